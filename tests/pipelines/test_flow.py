import numpy as np
import pytest

from pipelines.flow import dequantise, flow_images, quantise
from schemas.features import FlowSpec
from tests.media import moving_square


@pytest.mark.parametrize("step_px", [(3, 0), (-3, 0), (0, 2), (2, -1)])
def test_a_moving_square_has_the_displacement_it_moves_by(step_px):
    start = (24, 4) if min(step_px) < 0 else (0, 0)
    frames = np.stack(
        [np.roll(moving_square(0), (start[1] + i * step_px[1], start[0] + i * step_px[0]), (0, 1)) for i in (0, 1)]
    )
    image = flow_images(frames, FlowSpec())[0]
    assert image.shape == (128, 96)
    flow_px = dequantise(image, bound_px=20.0)
    y, x = 20 + start[1] + 12, 8 + start[0] + 12
    inside = (slice(y - 6, y + 6), slice(x - 6, x + 6))
    assert float(np.median(flow_px[:64][inside])) == pytest.approx(step_px[0], abs=0.35)
    assert float(np.median(flow_px[64:][inside])) == pytest.approx(step_px[1], abs=0.35)


def test_stride_pairs_frames_that_far_apart():
    frames = np.stack([moving_square(i) for i in range(6)])
    images = flow_images(frames, FlowSpec(stride=2))
    assert len(images) == 4
    u = dequantise(images[0], bound_px=20.0)[:64][26:38, 14:26]
    assert float(np.median(u)) == pytest.approx(6, abs=0.5)


def test_one_frame_gives_no_field():
    assert flow_images(moving_square(0)[None], FlowSpec()) == []


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
def test_rest_is_stored_as_rest_at_the_smallest_size(preset):
    still = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    image = flow_images(np.stack([still, still]), FlowSpec(preset=preset))[0]
    assert set(np.unique(image)) <= {127, 128}


def test_quantising_loses_at_most_half_a_level():
    values = np.linspace(-8, 8, 1001, dtype=np.float32)
    back = dequantise(quantise(values, bound_px=8.0), bound_px=8.0)
    assert float(np.abs(back - values).max()) <= 8.0 / 255 + 1e-5
