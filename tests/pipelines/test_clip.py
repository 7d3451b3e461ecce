import io

import numpy as np
import pytest
from PIL import Image

from pipelines import clip as clip_module
from pipelines import decode as decode_module
from pipelines.clip import ClipFailure, ClipRecord, make_clip
from schemas.features import FeatureSpec, RgbSpec
from tests.media import gray_level, ordinary_clip, steady, tone, write_media

RGB = RgbSpec(fps=10.0, fixed_size_px=(48, 64))


def made(root, uri, *modalities, start_s=None, end_s=None):
    features = FeatureSpec(rgb=RGB, **({"modalities": modalities} if modalities else {}))
    row = {"clip_id": uri, "uri": uri, "start_s": start_s, "end_s": end_s}
    return make_clip(row, videos=str(root), features=features)


def test_an_ordinary_clip_has_every_modality_on_one_timeline(tmp_path):
    ordinary_clip(tmp_path / "a.mp4")
    record = made(tmp_path, "a.mp4")
    assert isinstance(record, ClipRecord)
    assert record.presence == {
        "duration_s": pytest.approx(0.8),
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
    assert record.note == "no logmel"


def test_without_picture_frames_and_flow_are_null(tmp_path):
    write_media(tmp_path / "a.mkv", sound=tone(440, seconds=0.5))
    record = made(tmp_path, "a.mkv")
    assert record.features["rgb"] == record.features["flow"] == {"clip_id": "a.mkv"}
    assert record.features["logmel"]["n_frames"] == 50
    assert not record.presence["has_rgb"]


@pytest.mark.parametrize(
    ("media", "modalities", "reason", "stage"),
    [
        ({"pts_s": steady(0.4)}, ("logmel",), "no-audio-stream", "audio"),
        ({"sound": tone(440, seconds=0.5)}, ("rgb", "flow"), "no-video-stream", "video"),
        ({"pts_s": [0.0]}, ("flow",), "too-few-frames", "flow"),
    ],
)
def test_a_clip_fails_when_nothing_requested_can_be_had(tmp_path, media, modalities, reason, stage):
    write_media(tmp_path / "x.mkv", **media)
    failure = made(tmp_path, "x.mkv", *modalities)
    assert isinstance(failure, ClipFailure)
    assert (failure.reason, failure.stage) == (reason, stage)


def test_sound_after_the_end_of_the_picture_is_a_clip(tmp_path):
    write_media(tmp_path / "x.mkv", pts_s=steady(2.0), sound=tone(440, seconds=8.0))
    for modalities in ((), ("logmel",)):
        record = made(tmp_path, "x.mkv", *modalities, start_s=5.0, end_s=6.0)
        assert isinstance(record, ClipRecord)
        assert not record.presence["has_rgb"]
        assert record.features["logmel"]["n_frames"] == 100
        assert "after the end of the picture" in record.note
    failure = made(tmp_path, "x.mkv", "rgb", "flow", start_s=5.0, end_s=6.0)
    assert (failure.reason, failure.stage) == ("bad-span", "plan")


def test_a_picture_that_cannot_be_decoded_leaves_the_sound(tmp_path, monkeypatch):
    write_media(tmp_path / "x.mkv", pts_s=steady(0.4), sound=tone(440, seconds=0.4))
    honest = decode_module._push

    def damaged(packet, sink):
        if packet.stream.type == "video":
            sink.damaged += 1
        else:
            honest(packet, sink)

    monkeypatch.setattr(decode_module, "_push", damaged)
    record = made(tmp_path, "x.mkv")
    assert isinstance(record, ClipRecord)
    assert record.presence["has_audio"]
    assert "damaged video packets skipped" in record.note
    failure = made(tmp_path, "x.mkv", "rgb")
    assert failure.reason == "no-frames"
    assert "damaged" in failure.message


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
