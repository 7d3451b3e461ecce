import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gblend.config import InputConfig
from gblend.flow_colour import flow_picture
from gblend.samples import animation, flow_frames, flow_scale_px, flow_wheel, load_samples, logmel_svg
from gblend.summary import summarize_dataset
from tests.gblend.synthetic_data import FRAMES, MEL_FRAMES, write_dataset


def image_of(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_whole_clips_are_decoded_to_the_stored_values(tmp_path: Path):
    write_dataset(tmp_path)
    sample = load_samples(str(tmp_path), per_split=1)[0]
    assert sample.rgb is not None
    assert sample.flow is not None
    assert sample.logmel is not None
    assert sample.rgb.shape == (FRAMES - 1, 16, 16, 3)  # as many frames as flow fields, cropped to the centre
    assert sample.rgb[:, 8, 8, 0].tolist() == [0, 10, 20, 30, 40]
    assert (sample.rgb[..., 1] == 0).all()  # the green column lies outside the central square
    assert np.allclose(sample.flow[..., 0], 20.0)
    assert np.allclose(sample.flow[..., 1], -20.0)
    assert np.array_equal(sample.logmel, np.arange(MEL_FRAMES * 4).reshape(MEL_FRAMES, 4))
    assert (sample.fps, sample.mel_s) == (10.0, pytest.approx(0.6))


def test_with_the_runs_input_setting_the_clip_is_cut_to_the_central_window(tmp_path: Path):
    write_dataset(tmp_path)
    config = InputConfig(frames=2, frame_step=2, crop_px=8, mel_frames=10)
    sample = load_samples(str(tmp_path), config=config, per_split=1)[0]
    assert sample.rgb is not None
    assert sample.logmel is not None
    assert sample.rgb.shape == (2, 8, 8, 3)
    assert sample.rgb[:, 0, 0, 0].tolist() == [10, 30]  # five fields fit three starts: the middle one is frame 1
    assert sample.logmel.shape == (10, 4)
    assert (sample.fps, sample.mel_s) == (5.0, pytest.approx(0.4))


def test_a_missing_modality_stays_none(tmp_path: Path):
    write_dataset(tmp_path, silent_row=0, blind_row=1)
    samples = {sample.clip_id: sample for sample in load_samples(str(tmp_path), per_split=3)}
    assert samples["train-0"].logmel is None
    assert samples["train-0"].rgb is not None
    assert samples["train-1"].rgb is None
    assert samples["train-1"].flow is None
    assert samples["train-1"].logmel is not None


def test_every_split_gives_its_clips_and_classes_differ_before_they_repeat(tmp_path: Path):
    write_dataset(tmp_path, per_split=9)
    for seed in range(5):
        samples = load_samples(str(tmp_path), per_split=3, seed=seed)
        assert [sample.split for sample in samples] == ["train"] * 3 + ["test"] * 3
        assert {sample.label for sample in samples[:3]} == {"noop", "fire", "left"}
        assert len({sample.clip_id for sample in samples}) == 6


def test_the_choice_depends_on_the_seed_alone(tmp_path: Path):
    write_dataset(tmp_path, per_split=9)
    chosen = {seed: tuple(s.clip_id for s in load_samples(str(tmp_path), seed=seed)) for seed in (0, 0, 1, 2, 3)}
    assert chosen[0] == tuple(s.clip_id for s in load_samples(str(tmp_path), seed=0))
    assert len(set(chosen.values())) > 1


def test_the_animation_plays_every_frame_at_its_rate_without_end():
    frames = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (0, 80, 160, 240)])
    image = image_of(animation(frames, fps=8.0))
    assert (image.format, image.n_frames, image.info["loop"]) == ("WEBP", 4, 0)  # type: ignore[attr-defined]
    for index, value in enumerate((0, 80, 160, 240)):
        image.seek(index)
        assert abs(float(np.asarray(image.convert("RGB")).mean()) - value) < 6


def test_every_flow_field_is_a_picture_in_the_colours_of_the_contact_sheet():
    fields = np.random.default_rng(0).normal(0, 2, (3, 5, 7, 2)).astype(np.float32)
    frames = flow_frames(fields, scale_px=2.0)
    assert frames.shape == (3, 5, 7, 3)
    assert np.array_equal(frames[1], flow_picture(fields[1], scale_px=2.0))


def test_the_flow_scale_keeps_noise_pale():
    assert flow_scale_px(np.full((2, 4, 4, 2), 0.01, np.float32)) == 1.0
    assert flow_scale_px(np.full((2, 4, 4, 2), 3.0, np.float32)) == pytest.approx(3.0 * 2**0.5)


def test_the_wheel_is_a_round_picture():
    wheel = np.asarray(image_of(flow_wheel()))
    assert wheel[0, 0, 3] == 0
    assert wheel[28, 28, 3] == 255


def test_the_logmel_has_seconds_and_mel_bands_on_its_axes():
    svg = logmel_svg(np.zeros((10, 40), np.float32), name="mel", duration_s=0.5)
    assert "mel band" in svg
    assert "data:image/png;base64," in svg
    assert "http" not in svg


def test_the_summary_counts_and_explains_what_is_missing(tmp_path: Path):
    write_dataset(tmp_path)
    summary = summarize_dataset(str(tmp_path))
    assert summary.counts["train"] == {"ok": 3, "failed": 2, "skipped": 0}
    assert [(x.split, x.status, x.stage, x.reason, x.clips) for x in summary.losses] == [
        ("train", "failed", "open", "unreadable", 2),
        ("test", "skipped", "plan", "duplicate", 1),
    ]
    assert summary.losses[0].example == "bad0: moov missing"
    assert list(summary.features) == ["rgb", "flow", "logmel"]


def test_a_directory_that_is_no_data_set_is_one_clear_line(tmp_path: Path):
    for read in (load_samples, summarize_dataset):
        with pytest.raises(ValueError, match=r"dataset\.json does not exist") as caught:
            read(str(tmp_path))
        assert "\n" not in str(caught.value)


def test_a_ledger_that_is_not_parquet_is_one_clear_line(tmp_path: Path):
    write_dataset(tmp_path)
    (tmp_path / "ledger.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(ValueError, match=r"ledger\.parquet is not a Parquet file"):
        summarize_dataset(str(tmp_path))
