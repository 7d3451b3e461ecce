import io
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from pipelines import clip as clip_module
from pipelines.clip import ClipFailure, ClipRecord, make_clips
from pipelines.container import MediaFile
from pipelines.messages import ClipRequest, SourceRequest
from schemas.features import MODALITIES, FeatureSpec, RgbSpec
from tests.media import gray_level, ordinary_clip, steady, tone, write_media

RGB = RgbSpec(fps=10.0, fixed_size_px=(48, 64))


def made(root, uri, *modalities, start_s=None, end_s=None):
    clip = ClipRequest(clip_id=uri, start_s=start_s, end_s=end_s)
    request = SourceRequest(uri=uri, clips=(clip,), modalities=modalities or MODALITIES)
    (result,) = make_clips(request, videos=str(root), features=FeatureSpec(rgb=RGB))
    return result.made


def test_an_ordinary_clip_has_every_modality_on_one_timeline(tmp_path):
    ordinary_clip(tmp_path / "a.mp4")
    record = made(tmp_path, "a.mp4")
    assert isinstance(record, ClipRecord)
    assert record.presence == {
        "duration_s": pytest.approx(0.8),
        "frames": 8,
        "has_rgb": True,
        "has_audio": True,
        "silent": False,
        "still": False,
    }
    rgb, flow, mel = (record.features[m] for m in ("rgb", "flow", "logmel"))
    assert (len(rgb["frames"]), len(flow["fields"]), mel["n_frames"]) == (8, 7, 80)
    assert Image.open(io.BytesIO(rgb["frames"][0])).size == (64, 48)
    assert Image.open(io.BytesIO(flow["fields"][0])).size == (64, 96)
    assert mel["values"].shape == (80 * 40,)
    assert record.note is None


def test_without_sound_the_mel_is_null_and_flagged(tmp_path):
    write_media(tmp_path / "v.mkv", pts_s=steady(0.4))
    record = made(tmp_path, "v.mkv")
    assert record.features["logmel"] == {"clip_id": "v.mkv"}
    assert not record.presence["has_audio"]
    assert not record.presence["silent"]
    assert record.note == "no sound"


def test_without_picture_frames_and_flow_are_null(tmp_path):
    write_media(tmp_path / "a.mkv", sound=tone(440, seconds=0.5))
    record = made(tmp_path, "a.mkv")
    assert record.features["rgb"] == record.features["flow"] == {"clip_id": "a.mkv"}
    assert record.features["logmel"]["n_frames"] == 50
    assert not record.presence["has_rgb"]


@pytest.mark.parametrize("modality", ["rgb", "flow", "logmel"])
def test_a_clip_counts_whatever_is_asked_for_when_it_has_picture_or_sound(tmp_path, modality):
    write_media(tmp_path / "picture.mkv", pts_s=[0.0])
    write_media(tmp_path / "sound.mkv", sound=tone(440, seconds=0.5))
    for name in ("picture.mkv", "sound.mkv"):
        record = made(tmp_path, name, modality)
        assert isinstance(record, ClipRecord)
        assert (len(record.features[modality]) > 1) == (
            (name, modality) in [("picture.mkv", "rgb"), ("sound.mkv", "logmel")]
        )


def test_sound_after_the_end_of_the_picture_is_a_clip(tmp_path):
    write_media(tmp_path / "x.mkv", pts_s=steady(2.0), sound=tone(440, seconds=8.0))
    record = made(tmp_path, "x.mkv", start_s=5.0, end_s=6.0)
    assert isinstance(record, ClipRecord)
    assert not record.presence["has_rgb"]
    assert record.features["logmel"]["n_frames"] == 100
    assert "after the picture's end" in record.note


def test_a_span_after_the_end_of_both_is_a_failed_row(tmp_path):
    write_media(tmp_path / "x.mkv", pts_s=steady(2.0), sound=tone(440, seconds=2.0))
    failure = made(tmp_path, "x.mkv", start_s=5.0, end_s=6.0)
    assert (failure.reason, failure.stage) == ("bad-span", "plan")


def break_pictures(monkeypatch):
    """No packet of a picture can be decoded."""
    honest = MediaFile.packets

    def fail():
        raise av.error.InvalidDataError(1, "damaged")

    def packets(self):
        for packet in honest(self):
            if packet.stream.type == "video":
                same = {name: getattr(packet, name) for name in ("stream", "pts", "dts", "time_base")}
                packet = SimpleNamespace(decode=fail, **same)
            yield packet

    monkeypatch.setattr(MediaFile, "packets", packets)


def test_a_picture_that_cannot_be_decoded_leaves_the_sound(tmp_path, monkeypatch):
    write_media(tmp_path / "x.mkv", pts_s=steady(0.4), sound=tone(440, seconds=0.4))
    break_pictures(monkeypatch)
    record = made(tmp_path, "x.mkv")
    assert isinstance(record, ClipRecord)
    assert record.presence["has_audio"]
    assert "damaged video packets skipped" in record.note


def test_a_picture_that_cannot_be_decoded_and_no_sound_is_a_failed_row(tmp_path, monkeypatch):
    write_media(tmp_path / "x.mkv", pts_s=steady(0.4))
    break_pictures(monkeypatch)
    failure = made(tmp_path, "x.mkv")
    assert isinstance(failure, ClipFailure)
    assert failure.reason == "no-frames"
    assert "damaged" in failure.message


def test_clips_of_a_file_are_made_together_and_each_fails_alone(tmp_path):
    ordinary_clip(tmp_path / "a.mp4")
    spans = [(0.0, 0.4), (0.5, 0.2), (0.2, 0.6)]
    clips = tuple(ClipRequest(clip_id=f"c{i}", start_s=s, end_s=e) for i, (s, e) in enumerate(spans))
    request = SourceRequest(uri="a.mp4", clips=clips, modalities=MODALITIES)
    results = {r.index: r.made for r in make_clips(request, videos=str(tmp_path), features=FeatureSpec(rgb=RGB))}
    assert results[1].reason == "bad-span"
    for i in (0, 2):
        alone = made(tmp_path, "a.mp4", start_s=spans[i][0], end_s=spans[i][1])
        assert results[i].features["rgb"]["frames"] == alone.features["rgb"]["frames"]


def test_silence_and_stillness_are_flagged(tmp_path):
    silence = np.zeros(8000, np.float32)
    write_media(tmp_path / "x.mkv", pts_s=steady(0.5), picture=lambda i: gray_level(90), sound=silence)
    presence = made(tmp_path, "x.mkv").presence
    assert presence["silent"]
    assert presence["still"]


def test_presence_does_not_depend_on_what_is_stored(tmp_path):
    ordinary_clip(tmp_path / "a.mp4")
    assert made(tmp_path, "a.mp4", "logmel").presence == made(tmp_path, "a.mp4", "rgb").presence


def test_a_modality_is_the_same_whatever_else_is_stored(tmp_path):
    ordinary_clip(tmp_path / "a.mp4")
    alone, together = made(tmp_path, "a.mp4", "logmel"), made(tmp_path, "a.mp4")
    assert np.array_equal(alone.features["logmel"]["values"], together.features["logmel"]["values"])


def test_a_bug_becomes_a_failed_row_that_names_the_error(tmp_path, monkeypatch):
    ordinary_clip(tmp_path / "a.mp4")
    monkeypatch.setattr(clip_module, "logmel", lambda *a, **k: 1 / 0)
    failure = made(tmp_path, "a.mp4")
    assert failure.reason == "internal-error"
    assert failure.message == "ZeroDivisionError: division by zero"


def test_a_path_out_of_the_root_is_a_failed_row(tmp_path):
    assert made(tmp_path, "../x.mp4").reason == "outside-root"


def test_a_remote_root_gives_the_same_clip_as_a_local_one(tmp_path):
    import fsspec

    path = ordinary_clip(tmp_path / "a.mp4")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/videos/sub/a.mp4", path.read_bytes())
    local, remote = made(tmp_path, "a.mp4"), made("memory://videos", "sub/a.mp4")
    assert remote.features["rgb"]["frames"] == local.features["rgb"]["frames"]
    assert made("memory://videos", "sub/b.mp4").reason == "missing-file"
    assert made("memory://videos", "../a.mp4").reason == "outside-root"
