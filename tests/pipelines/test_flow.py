"""Flow against known motion and against OpenCV called directly, with a solver of its own for every pair."""

import json

import cv2
import numpy as np
import pytest

from pipelines.flow import dequantise, flow_images, quantise
from schemas.features import SPEC_KEY, FeatureSpec, RgbSpec
from schemas.flow import DIS, FARNEBACK, TVL1, FlowSpec
from schemas.shards import feature_schema
from tests.media import moving_square

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}

SOLVERS = {
    **{("dis", name): lambda preset=preset: cv2.DISOpticalFlow.create(preset) for name, preset in PRESETS.items()},
    ("farneback", "fast"): cv2.FarnebackOpticalFlow.create,
    ("tvl1", "fast"): cv2.optflow.createOptFlow_DualTVL1,
}


def moving_texture(count: int, *, height: int, width: int, step_px: tuple[int, int]) -> np.ndarray:
    """A smooth texture that fills the frames and moves by ``step_px`` (right, down) a frame."""
    (dx, dy), reach = step_px, 4 * count
    noise = np.random.default_rng(0).integers(0, 256, (height + 2 * reach, width + 2 * reach), dtype=np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.5), None, 0, 255, cv2.NORM_MINMAX)
    places = [(reach - dy * i, reach - dx * i) for i in range(count)]
    return tuple(texture[y : y + height, x : x + width, None].repeat(3, axis=2) for y, x in places)


def components(image: np.ndarray, spec: FlowSpec) -> tuple[np.ndarray, np.ndarray]:
    u, v = np.split(dequantise(image, bound_px=spec.bound_px), 2)
    return u, v


@pytest.mark.parametrize("step_px", [(3, 0), (-3, 0), (0, 2), (2, -1)])
@pytest.mark.parametrize(("algorithm", "preset"), SOLVERS)
def test_a_translation_is_found_in_sign_axis_and_size(algorithm, preset, step_px):
    spec = FlowSpec(algorithm=algorithm, preset=preset)
    frames = moving_texture(2, height=64, width=96, step_px=step_px)
    image = flow_images(frames, spec)[0]
    assert image.shape == (128, 96)
    inside = (slice(16, -16), slice(16, -16))
    u, v = components(image, spec)
    # A level is 0.157 px.
    assert float(np.median(u[inside])) == pytest.approx(step_px[0], abs=0.25)
    assert float(np.median(v[inside])) == pytest.approx(step_px[1], abs=0.25)


@pytest.mark.parametrize(("height", "width"), [(40, 42), (48, 48), (64, 96), (128, 170)])
@pytest.mark.parametrize(("algorithm", "preset"), SOLVERS)
def test_every_pair_is_what_opencv_gives_for_it_alone_within_half_a_level(algorithm, preset, height, width):
    if algorithm == "tvl1" and height > 64:
        pytest.skip("slow, and of no special size")
    spec = FlowSpec(algorithm=algorithm, preset=preset)
    frames = moving_texture(3, height=height, width=width, step_px=(2, 1))
    gray = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]
    images = flow_images(frames, spec)
    assert len(images) == 2
    for image, first, second in zip(images, gray, gray[1:], strict=False):
        direct = SOLVERS[algorithm, preset]().calc(first, second, None)
        expected = np.clip(np.concatenate([direct[..., 0], direct[..., 1]]), -20, 20)
        np.testing.assert_allclose(dequantise(image, bound_px=20.0), expected, atol=20 / 255 + 1e-4)


def test_a_clips_flow_does_not_depend_on_the_clips_before_it():
    """DIS lowers its finest scale for a small frame, and keeps it."""
    spec = FlowSpec()
    large = moving_texture(2, height=128, width=170, step_px=(2, 1))
    small = moving_texture(2, height=20, width=20, step_px=(1, 0))
    alone = flow_images(large, spec)[0]
    flow_images(small, spec)
    np.testing.assert_array_equal(flow_images(large, spec)[0], alone)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_presets_written_out_are_opencvs(preset):
    assert set(DIS[preset]) >= {"finest_scale", "patch_stride"}
    require_set(cv2.DISOpticalFlow.create(PRESETS[preset]), DIS[preset])


def test_the_defaults_written_out_are_opencvs():
    require_set(cv2.FarnebackOpticalFlow.create(), FARNEBACK)
    require_set(cv2.optflow.createOptFlow_DualTVL1(), TVL1)


def require_set(solver, parameters):
    for name, value in parameters.items():
        assert getattr(solver, "get" + name.title().replace("_", ""))() == value, name


def test_stride_pairs_frames_that_far_apart():
    spec = FlowSpec(stride=2)
    images = flow_images([moving_square(i) for i in range(6)], spec)
    assert len(images) == 4
    u, _ = components(images[0], spec)
    assert float(np.median(u[26:38, 14:26])) == pytest.approx(6, abs=0.5)


@pytest.mark.parametrize("count", [1, 2])
def test_frames_without_a_partner_give_no_field(count):
    assert flow_images([moving_square(i) for i in range(count)], FlowSpec(stride=2)) == []


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
def test_rest_is_stored_as_rest_at_the_smallest_size(preset):
    still = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    image = flow_images([still, still], FlowSpec(preset=preset))[0]
    assert set(np.unique(image)) <= {127, 128}


def test_what_moves_further_than_the_bound_is_stored_at_the_bound():
    spec = FlowSpec(bound_px=2.0)
    u, v = components(flow_images(moving_texture(2, height=64, width=96, step_px=(-4, 0)), spec)[0], spec)
    assert float(np.median(u[16:-16, 16:-16])) == pytest.approx(-2.0, abs=1e-5)
    assert float(np.median(v[16:-16, 16:-16])) == pytest.approx(0.0, abs=0.1)


def test_quantising_loses_at_most_half_a_level():
    values = np.linspace(-8, 8, 1001, dtype=np.float32)
    back = dequantise(quantise(values, bound_px=8.0), bound_px=8.0)
    assert float(np.abs(back - values).max()) <= 8.0 / 255 + 1e-5


def test_a_reader_of_the_schema_learns_all_that_decides_a_level():
    features = FeatureSpec(rgb=RgbSpec(fps=10.0), flow=FlowSpec(algorithm="farneback", stride=2, bound_px=8.0))
    described = json.loads(feature_schema("flow", features).metadata[SPEC_KEY])
    assert described["rgb"] == {"fps": 10.0, "short_side_px": 128, "fixed_size_px": None}
    flow = described["flow"]
    assert (flow["algorithm"], flow["stride"], flow["bound_px"]) == ("farneback", 2, 8.0)
    assert flow["parameters"] == FARNEBACK
    assert flow["unit"].startswith("pixels of the stored frame")


def test_only_the_network_wants_a_gpu():
    wanting = [name for name in ("dis", "farneback", "tvl1", "raft") if FlowSpec(algorithm=name).wants_gpu]
    assert wanting == ["raft"]


def test_quantising_is_the_published_formula_in_double_precision():
    values = np.random.default_rng(0).normal(0, 12, (64, 80, 2)).astype(np.float32)
    exact = 255 * (values.astype(np.float64) + 20) / 40
    assert np.abs(exact % 1 - 0.5).min() > 4e-5  # Single precision decides no level.
    np.testing.assert_array_equal(quantise(values, bound_px=20.0), np.clip(np.rint(exact), 0, 255))
