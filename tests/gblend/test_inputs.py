"""Stored bytes to network inputs: alignment of picture and motion, mirroring, codecs, what is absent."""

import cv2
import numpy as np
import pytest
import torch

from gblend.clips import StoredClip
from gblend.config import InputConfig
from gblend.inputs import RGB_MEAN, RGB_STD, Window, choose_window, cut_window, sound_mask, to_inputs, window_spec
from schemas import FeatureSpec, FlowSpec, LogmelSpec, RgbSpec
from tests.gblend.shards import encode_flow, encode_rgb

RAW = FeatureSpec(rgb=RgbSpec(codec="raw", fps=10.0), flow=FlowSpec(codec="raw"))
JPEG = FeatureSpec(rgb=RgbSpec(fps=10.0))
EVERYTHING = ("rgb", "flow", "logmel")


def stored(frames: np.ndarray, flow: np.ndarray | None = None, *, spec: FeatureSpec = RAW, logmel=None) -> StoredClip:
    """``frames`` (time, height, width, 3); ``flow`` (time, 2, height, width)."""
    fields = None if flow is None else [encode_flow(f.reshape(-1, f.shape[-1]), spec.flow.codec) for f in flow]
    return StoredClip(
        rgb=[encode_rgb(frame, spec.rgb.codec) for frame in frames],
        flow=fields,
        logmel=logmel,
        height=frames.shape[1],
        width=frames.shape[2],
    )


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def at(start=0, top=0.0, left=0.0, mirrored=False) -> Window:
    return Window(start_frame=start, top=top, left=left, mirrored=mirrored)


def test_raw_frames_come_back_as_the_stored_pixels_of_the_crop():
    frames, config = noise(5, 12, 14, 3), InputConfig(frames=2, frame_step=2, crop_px=8)
    got = cut_window(stored(frames), at(start=1, top=1.0, left=0.5), config, RAW, ("rgb",))["rgb"]
    np.testing.assert_array_equal(got, frames[[1, 3], 4:12, 3:11])


def test_jpeg_frames_are_rgb_not_bgr():
    frames = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    frames[..., 0] = 200
    config = InputConfig(frames=2, crop_px=16)
    got = cut_window(stored(frames, spec=JPEG), at(), config, JPEG, ("rgb",))["rgb"]
    np.testing.assert_allclose(got, frames, atol=3)


def test_jpeg_flow_is_read_back_within_the_codec_error():
    flow = np.zeros((2, 2, 16, 16), dtype=np.uint8)
    flow[:, 0], flow[:, 1] = 90, 180
    config = InputConfig(frames=2, crop_px=16)
    got = cut_window(stored(noise(3, 16, 16, 3), flow, spec=JPEG), at(), config, JPEG, ("flow",))["flow"]
    np.testing.assert_allclose(got.astype(int), flow.astype(int), atol=3)


@pytest.mark.parametrize("scale_px", [None, 12, 30])
@pytest.mark.parametrize("mirrored", [False, True])
def test_picture_and_motion_show_the_same_place(scale_px, mirrored):
    """The flow's vertical component carries the green channel: wherever the window lies, the two must be equal."""
    y, x = np.mgrid[0:20, 0:26]
    green = (5 * x + 4 * y).astype(np.uint8)
    frames = np.repeat(green[None, :, :, None], 3, axis=3).repeat(3, axis=0)
    flow = np.repeat(green[None, None], 2, axis=1).repeat(3, axis=0)
    config = InputConfig(frames=3, crop_px=10, scale_px=scale_px)
    window = at(top=0.7, left=0.2, mirrored=mirrored)
    got = cut_window(stored(frames, flow), window, config, RAW, ("rgb", "flow"))
    np.testing.assert_array_equal(got["rgb"][..., 1], got["flow"][:, 1])


def test_mirroring_reverses_the_picture_and_the_sign_of_horizontal_displacement_only():
    frames, flow = noise(4, 10, 10, 3), noise(4, 2, 10, 10, seed=1)
    config, clip = InputConfig(frames=2, crop_px=8), stored(frames, flow)
    plain, mirror = (
        to_inputs(
            {k: torch.from_numpy(v)[None] for k, v in cut_window(clip, w, config, RAW, ("rgb", "flow")).items()}, RAW
        )
        for w in (at(), at(mirrored=True))
    )
    torch.testing.assert_close(mirror["rgb"], plain["rgb"].flip(-1))
    torch.testing.assert_close(mirror["flow"][:, 0], -plain["flow"][:, 0].flip(-1))
    torch.testing.assert_close(mirror["flow"][:, 1], plain["flow"][:, 1].flip(-1))


def test_a_motion_at_rest_stays_at_rest_within_half_a_level_when_mirrored():
    config = InputConfig(frames=1, crop_px=8)
    clip = stored(noise(1, 8, 8, 3), np.full((1, 2, 8, 8), 128, dtype=np.uint8))
    for mirrored in (False, True):
        cut = cut_window(clip, at(mirrored=mirrored), config, RAW, ("flow",))
        pixels = to_inputs({"flow": torch.from_numpy(cut["flow"])[None]}, RAW)["flow"]
        assert pixels.abs().max() <= RAW.flow.bound_px / 255 + 1e-6


def test_mirroring_a_scene_that_moves_right_gives_one_that_moves_left():
    """Against the flow of the mirrored frames themselves."""
    texture = cv2.GaussianBlur(noise(64, 80), (0, 0), 3)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    solver = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def quantised(first, second):
        flow = solver.calc(np.ascontiguousarray(first), np.ascontiguousarray(second), None).transpose(2, 0, 1)
        return np.rint((flow + 20) * 255 / 40).astype(np.uint8)

    pair = texture[:, 8:72], texture[:, 4:68]  # the content moves 4 px to the right
    config = InputConfig(frames=1, crop_px=64)
    clip = stored(noise(1, 64, 64, 3), quantised(*pair)[None])
    mirrored = cut_window(clip, at(mirrored=True), config, RAW, ("flow",))["flow"][0].astype(int)
    expected = quantised(pair[0][:, ::-1], pair[1][:, ::-1]).astype(int)
    inside = (slice(None), slice(16, 48), slice(16, 48))
    assert np.median(mirrored[0][inside[1:]]) < 120
    assert np.abs(np.median(mirrored[inside] - expected[inside], axis=(1, 2))).max() <= 1


def test_a_short_clip_holds_its_last_frame():
    frames = noise(2, 8, 8, 3)
    got = cut_window(stored(frames), at(), InputConfig(frames=4, crop_px=8), RAW, ("rgb",))["rgb"]
    np.testing.assert_array_equal(got, frames[[0, 1, 1, 1]])


def test_what_a_clip_lacks_is_zeros_of_the_right_shape_and_type():
    config = InputConfig(frames=3, crop_px=8, mel_frames=5)
    got = cut_window(StoredClip(), at(), config, RAW, EVERYTHING)
    assert {name: (a.shape, a.dtype) for name, a in got.items()} == {
        "rgb": ((3, 8, 8, 3), np.uint8),
        "flow": ((3, 2, 8, 8), np.uint8),
        "logmel": ((5, 40), np.float32),
    }
    assert not any(array.any() for array in got.values())


def test_sound_is_cut_from_the_seconds_of_the_pictures():
    ramp = np.arange(200, dtype=np.float16)[:, None].repeat(40, axis=1)  # value i at 10 ms times i
    clip = stored(noise(10, 8, 8, 3), logmel=ramp)
    config = InputConfig(frames=4, crop_px=8, mel_frames=40)
    got = cut_window(clip, at(start=5), config, RAW, ("logmel",))["logmel"]
    np.testing.assert_allclose(got[:, 0], np.arange(50, 90), atol=1e-3)  # 0.5 s to 0.9 s at 10 frames/s


@pytest.mark.parametrize("recipe", ["gblend-40", "vggish-64", "ast-128"])
@pytest.mark.parametrize("alignment", ["stretch", "exact"])
def test_after_the_end_of_its_log_mel_a_clip_is_as_silent_as_the_recipe_says(recipe, alignment):
    spec = FeatureSpec(rgb=RgbSpec(codec="raw", fps=10.0), logmel=LogmelSpec(recipe=recipe))
    stored_mel = np.full((50, spec.logmel.mels), 1.5, dtype=np.float16)
    config = InputConfig(frames=4, crop_px=8, mel_frames=40, mel_alignment=alignment)
    clip = stored(noise(10, 8, 8, 3), logmel=stored_mel)
    got = cut_window(clip, at(start=3), config, spec, ("logmel",))["logmel"]  # 0.3 s to 0.7 s of 0.5 s
    assert got.shape == (40, spec.logmel.mels)
    np.testing.assert_array_equal(got[:20], 1.5)
    np.testing.assert_array_equal(got[20:], spec.logmel.silence)


def test_the_part_of_a_window_before_a_late_track_is_not_real_sound():
    clip = StoredClip(logmel=np.zeros((100, 40), np.float16), audio_start_s=0.65, audio_end_s=0.8)
    config = InputConfig(frames=4, crop_px=8, mel_frames=40)
    heard = sound_mask(clip, at(start=5), config, RAW)  # 0.5 s to 0.9 s, a frame each 10 ms
    assert np.flatnonzero(heard).tolist() == list(range(15, 30))


def test_a_clip_without_sound_has_no_frame_of_real_sound():
    assert not sound_mask(StoredClip(), at(), InputConfig(mel_frames=5), RAW).any()


@pytest.mark.parametrize(
    ("recipe", "mean", "sd"),
    [("gblend-40", 16.0, 8.0), ("vggish-64", -1.5, 2.0), ("ast-128", -4.2677, 9.138)],
)
def test_log_mel_is_standardised_by_its_recipe(recipe, mean, sd):
    spec = FeatureSpec(logmel=LogmelSpec(recipe=recipe))
    got = to_inputs({"logmel": torch.tensor([[[mean, mean + sd]]])}, spec)["logmel"]
    torch.testing.assert_close(got, torch.tensor([[[[0.0, 1.0]]]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale_px", [None, 64, 32])
def test_a_resized_motion_is_that_of_the_resized_pictures(scale_px):
    """Against the flow of the resized frames themselves; the content moves 4 px right and 2 px up."""
    texture = cv2.GaussianBlur(noise(160, 160), (0, 0), 5)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    solver = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    pair = [np.ascontiguousarray(p) for p in (texture[10:138, 12:140], texture[12:140, 8:136])]
    levels = np.rint((solver.calc(*pair, None).transpose(2, 0, 1) + 20) * 255 / 40).astype(np.uint8)
    spec = FeatureSpec(rgb=RgbSpec(short_side_px=128, codec="raw"), flow=FlowSpec(codec="raw"))
    config = InputConfig(frames=1, crop_px=scale_px or 128, scale_px=scale_px)
    cut = cut_window(stored(noise(1, 128, 128, 3), levels[None]), at(), config, spec, ("flow",))["flow"]
    got = to_inputs({"flow": torch.from_numpy(cut)[None]}, window_spec(spec, config))["flow"][0, :, 0].numpy()
    side = scale_px or 128
    resized = [cv2.resize(p, (side, side), interpolation=cv2.INTER_AREA) for p in pair]
    fresh = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    expected = fresh.calc(*resized, None).transpose(2, 0, 1)
    inside = (slice(None), slice(side // 4, -side // 4), slice(side // 4, -side // 4))
    np.testing.assert_allclose(np.median(got[inside], axis=(1, 2)), np.median(expected[inside], axis=(1, 2)), atol=0.15)
    np.testing.assert_allclose(np.median(got[inside], axis=(1, 2)), np.array([4, -2]) * side / 128, atol=0.15)


@pytest.mark.parametrize(
    ("size", "scale_px", "crop_px"), [((30, 41), 16, 12), ((16, 20), None, 24), ((33, 16), 20, 20)]
)
def test_every_size_of_frame_gives_the_crop_asked_for(size, scale_px, crop_px):
    clip = stored(noise(2, *size, 3), noise(2, 2, *size))
    config = InputConfig(frames=2, crop_px=crop_px, scale_px=scale_px)
    for place in (0.0, 0.5, 1.0):
        got = cut_window(clip, at(top=place, left=place), config, RAW, ("rgb", "flow"))
        assert got["rgb"].shape == (2, crop_px, crop_px, 3)
        assert got["flow"].shape == (2, 2, crop_px, crop_px)


def test_scaling_keeps_the_whole_short_side():
    """A left-to-right ramp on a tall frame, scaled to the crop's width: the crop spans the ramp."""
    frames = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, None, :, None] * 8, (1, 64, 32, 3))
    config = InputConfig(frames=1, crop_px=16, scale_px=16)
    got = cut_window(stored(np.ascontiguousarray(frames)), at(), config, RAW, ("rgb",))["rgb"][0]
    np.testing.assert_allclose(got[8, :, 0], np.arange(16) * 16 + 4, atol=1)


def test_inputs_are_standardised_pictures_displacements_in_pixels_and_standardised_log_mel():
    arrays = {
        "rgb": torch.full((1, 2, 4, 4, 3), 100, dtype=torch.uint8),
        "flow": torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 2, 1, 1).expand(1, 2, 2, 4, 4),
        "logmel": torch.full((1, 5, 40), 3.5),
    }
    inputs = to_inputs(arrays, RAW)
    assert {name: tuple(x.shape) for name, x in inputs.items()} == {
        "rgb": (1, 3, 2, 4, 4),
        "flow": (1, 2, 2, 4, 4),
        "logmel": (1, 1, 5, 40),
    }
    expected = [(100 - mean) / std for mean, std in zip(RGB_MEAN, RGB_STD, strict=True)]
    np.testing.assert_allclose(inputs["rgb"][0, :, 0, 0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(inputs["flow"][0, :, 0, 0, 0], [-20.0, 20.0], atol=1e-5)
    assert (inputs["logmel"] == (3.5 - 16.0) / 8.0).all()


def test_the_central_window_is_in_the_middle_and_never_mirrored():
    clip = stored(noise(11, 8, 8, 3))
    window = choose_window(clip, InputConfig(frames=3, frame_step=2, crop_px=8, flip="horizontal"), None)
    assert window == Window(start_frame=3, top=0.5, left=0.5, mirrored=False)  # starts 0..6


def test_random_windows_reach_every_start_that_fits_picture_and_motion():
    clip = stored(noise(7, 8, 8, 3), noise(6, 2, 8, 8))  # one motion field fewer than pictures
    config = InputConfig(frames=3, crop_px=8)
    starts = {choose_window(clip, config, np.random.default_rng(i)).start_frame for i in range(200)}
    assert starts == {0, 1, 2, 3}


def test_allowing_flips_changes_nothing_else_about_a_window():
    clip = stored(noise(20, 8, 8, 3))
    drawn = [
        [choose_window(clip, InputConfig(frames=3, crop_px=8, flip=flip), np.random.default_rng(i)) for i in range(100)]
        for flip in ("none", "horizontal")
    ]
    places = [[(w.start_frame, w.top, w.left) for w in windows] for windows in drawn]
    assert places[0] == places[1]
    assert not any(w.mirrored for w in drawn[0])
    assert 30 < sum(w.mirrored for w in drawn[1]) < 70


@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_a_damaged_image_says_what_to_do(modality):
    clip = StoredClip(rgb=[b"not a picture"], flow=[b"not a picture"], height=8, width=8)
    with pytest.raises(ValueError, match=r"cannot be decoded.*rerun `gblend preprocess`"):
        cut_window(clip, at(), InputConfig(frames=1, crop_px=8), JPEG, (modality,))
