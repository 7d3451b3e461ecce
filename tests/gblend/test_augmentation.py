"""What training does to its windows: sizes at random and the motion in them, masks over sound; off unless asked for."""

import cv2
import numpy as np
import pytest
import torch

from gblend.batches import measuring_loader, training_batches, training_loader
from gblend.clips import StoredClip
from gblend.config import InputConfig, TrainConfig
from gblend.data import load_run_data
from gblend.inputs import Window, choose_window, cut_window, enlargement, to_inputs, window_spec
from gblend.loop import Position, train
from gblend.model import make_model
from jobs.recipes import RECIPES
from schemas import FeatureSpec, FlowSpec, RgbSpec
from tests.gblend.shards import Clip, gradient_clip, write_dataset
from tests.gblend.tiny import tiny_config

LEVEL = 204
"""Of the stored flow: 204 * 40 / 255 - 20 = 12 px, of the stored picture."""
SPEC = FeatureSpec(rgb=RgbSpec(short_side_px=32, fps=20.0), flow=FlowSpec(codec="raw"))
JITTER = InputConfig(frames=3, scale_px=24, jitter_px=(20, 36, 48), crop_px=16, mel_frames=10)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """20 training clips, 2 of test, of 32 x 40 px; everything moves 12 px to the right and 12 px down."""
    flow = np.full((5, 64, 40), LEVEL, np.uint8)

    def clip(name: str, i: int) -> Clip:
        return gradient_clip(name, seed=i, label=i % 3, height=32, width=40, flow=flow)

    clips = {"train": [clip(f"c{i}", i) for i in range(20)], "test": [clip(f"t{i}", i) for i in range(2)]}
    return write_dataset(tmp_path_factory.mktemp("data"), clips, spec=SPEC)


def config(**changes) -> TrainConfig:
    return TrainConfig(name="test", **{"input": JITTER, **changes})


def batches_of(run, entropy=(0, 0, 0)):
    batches = training_batches(len(run.train), batch_size=8, entropy=entropy, rank=0, world=1)
    return list(training_loader(run.train, batches, entropy))


def test_displacements_are_in_pixels_of_the_picture_that_each_clip_of_a_batch_was_resized_to(data):
    """12 px of 32 are 12 * s / 32 px of a picture whose short side is s: 7.5, 13.5 and 18 px; central ones 9 px."""
    run = load_run_data(data, config())
    met = set()
    for batch in batches_of(run):
        flow = to_inputs(batch.arrays, run.spec, enlarged=batch.enlarged)["flow"]
        for at, one in enumerate(flow):
            side = float(batch.enlarged[at]) * 24
            torch.testing.assert_close(one, torch.full_like(one, 12 * side / 32), atol=1e-4, rtol=0)
            met.add(round(side))
    assert met == {20, 36, 48}
    (batch,) = measuring_loader(run.splits["test"], [0, 1], batch_size=4, rank=0, world=1)
    assert batch.enlarged.tolist() == [1.0, 1.0]
    flow = to_inputs(batch.arrays, run.spec, enlarged=batch.enlarged)["flow"]
    torch.testing.assert_close(flow, torch.full_like(flow, 9.0), atol=1e-4, rtol=0)


def test_the_network_is_trained_on_them(data):
    run = load_run_data(data, config(modalities=("rgb", "flow")))
    model = make_model(("rgb", "flow"), run.classes, tiny_config().model, seed=0)
    seen: set[float] = set()
    model.encoders["flow"].register_forward_pre_hook(
        lambda _, inputs: seen.update(round(float(v), 3) for v in inputs[0].unique())
    )
    weights = dict.fromkeys(model.head_names, 1.0)
    train(model, run, config(batch_size=8), weights=weights, position=Position(start_epoch=0, epochs=1), seed=0)
    assert seen == {7.5, 13.5, 18.0}


def test_a_motion_resized_at_random_is_that_of_the_resized_pictures():
    """Against the flow of the resized frames themselves; the content moves 4 px right and 2 px up."""
    noise = np.random.default_rng(0).integers(0, 256, (160, 160), dtype=np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 5), None, 0, 255, cv2.NORM_MINMAX)
    pair = [np.ascontiguousarray(p) for p in (texture[10:138, 12:140], texture[12:140, 8:136])]

    def motion(first, second):
        solver = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return solver.calc(first, second, None).transpose(2, 0, 1)

    levels = np.rint((motion(*pair) + 20) * 255 / 40).astype(np.uint8)
    spec = FeatureSpec(rgb=RgbSpec(short_side_px=128), flow=FlowSpec(codec="raw"))
    settings = InputConfig(frames=1, crop_px=64, scale_px=96, jitter_px=(64,))
    clip = StoredClip(flow=[levels.tobytes()], height=128, width=128)
    window = Window(start_frame=0, top=0.0, left=0.0, mirrored=False, short_side_px=64)
    cut = torch.from_numpy(cut_window(clip, window, settings, spec, ("flow",))["flow"])[None]
    enlarged = torch.tensor([enlargement(window, spec, settings)])
    got = to_inputs({"flow": cut}, window_spec(spec, settings), enlarged=enlarged)["flow"][0, :, 0].numpy()
    expected = motion(*(cv2.resize(p, (64, 64), interpolation=cv2.INTER_AREA) for p in pair))
    inside = (slice(None), slice(16, 48), slice(16, 48))
    np.testing.assert_allclose(np.median(got[inside], axis=(1, 2)), [2, -1], atol=0.1)
    np.testing.assert_allclose(np.median(got[inside], axis=(1, 2)), np.median(expected[inside], axis=(1, 2)), atol=0.1)


def test_masked_sound_is_the_mean_after_standardising_and_the_rest_as_it_was(data):
    masked = InputConfig(frames=3, crop_px=16, mel_frames=10, time_masks=(1, 8), band_masks=(2, 12))
    plain = InputConfig(frames=3, crop_px=16, mel_frames=10)
    shares = []
    for other, one in zip(
        batches_of(load_run_data(data, config(input=plain))),
        batches_of(load_run_data(data, config(input=masked))),
        strict=True,
    ):
        before, after = (to_inputs(batch.arrays, SPEC) for batch in (other, one))
        for name in ("rgb", "flow"):
            assert torch.equal(before[name], after[name])
        blotted = after["logmel"] != before["logmel"]
        assert (after["logmel"][blotted] == 0).all()
        shares += blotted.float().mean(dim=(1, 2, 3)).tolist()
    assert 0.3 < np.mean(shares) < 0.8
    assert len(set(shares)) > 8


def test_a_central_window_has_neither_masks_nor_another_size():
    settings = InputConfig(jitter_px=(40, 60), time_masks=(2, 8), band_masks=(2, 8))
    assert choose_window(StoredClip(), settings, None) == Window(start_frame=0, top=0.5, left=0.5, mirrored=False)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"flip": "horizontal"}, {"mirrored"}),
        ({"jitter_px": (40, 44, 60)}, {"short_side_px"}),
        ({"time_masks": (2, 8)}, {"time_masks"}),
        ({"band_masks": (2, 8)}, {"band_masks"}),
    ],
)
@pytest.mark.parametrize("others", [{}, {"flip": "horizontal", "jitter_px": (40, 48), "time_masks": (1, 5)}])
def test_a_setting_changes_nothing_but_what_it_names(changes, named, others):
    clip = StoredClip(rgb=[b""] * 30, height=50, width=50)
    differ = set()
    for seed in range(40):
        before, after = (
            choose_window(clip, InputConfig(frames=3, **given), np.random.default_rng((seed, 1)))
            for given in (others, others | changes)
        )
        differ |= {name for name in Window.__slots__ if getattr(before, name) != getattr(after, name)}
    assert differ <= named
    assert differ or others


def test_masks_wider_than_the_stored_bands_are_refused(data):
    with pytest.raises(ValueError, match=r"input.band_masks \(41\) must not be wider than the 40 mel bands"):
        load_run_data(data, config(input=InputConfig(crop_px=16, band_masks=(1, 41))))


def test_the_papers_recipe_resizes_as_the_authors_code_does():
    """There one of 128 and 160 px for crops of 112 px."""
    given = RECIPES["paper-r3d50"]().input
    assert [side / given.crop_px for side in given.jitter_px] == [128 / 112, 160 / 112]
    assert not RECIPES["small-cpu"]().input.jitter_px
