"""Several spans of one file in one pass: the arrays are those of each span by itself, and frames are decoded once."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipelines.container import MediaFile
from pipelines.decode import Span, decode_spans
from pipelines.source import DecodeError, DecodeLimits
from schemas.features import RgbSpec
from tests.media import gray_level, steady, tone, write_media

RGB = RgbSpec(fps=10.0, short_side_px=32)
FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "expected.json"


def several(path, spans, *, limits=None, parts=("picture", "sound")):
    asked = [Span(start_s=start, end_s=end) for start, end in spans]
    found = decode_spans(str(path), asked, rgb=RGB, sample_rate_hz=16_000, limits=limits, parts=parts)
    results = {result.index: result.clip for result in found}
    assert len(results) == len(spans)
    return [results[i] for i in range(len(spans))]


def alone(path, span, *, limits=None):
    try:
        return several(path, [span], limits=limits)[0]
    except DecodeError as error:
        return error


def same(one, other):
    assert type(one) is type(other), (one, other)
    if isinstance(one, DecodeError):
        assert str(one) == str(other)
        return
    assert one.duration_s == other.duration_s
    assert (one.no_video, one.no_audio) == (other.no_video, other.no_audio)
    for a, b in ((one.video, other.video), (one.audio, other.audio)):
        assert (a is None) == (b is None)
    if one.video is not None:
        np.testing.assert_array_equal(one.video.pts_s, other.video.pts_s)
        np.testing.assert_array_equal(one.video.frames, other.video.frames)
    if one.audio is not None:
        assert (one.audio.start_s, one.audio.end_s) == (other.audio.start_s, other.audio.end_s)
        # After a seek some audio decoders begin with other rounding.
        np.testing.assert_allclose(one.audio.samples, other.audio.samples, atol=1e-5)


SPANS = [
    *[(14.0, 15.5), (0.0, 1.0), (0.5, 2.5), (2.0, 2.1), (8.2, 9.0), (8.3, 8.4)],
    *[(30.0, 31.0), (19.5, None), (3.0, 4.0)],
]


@pytest.fixture
def long_clip(tmp_path):
    return write_media(
        tmp_path / "v.mp4",
        pts_s=steady(20.0),
        picture=lambda i: gray_level(i % 250),
        sound=tone(440, seconds=20.0),
        video_codec="libx264",
        gop=40,
    )


def test_spans_asked_for_together_are_as_each_by_itself(long_clip):
    for span, together in zip(SPANS, several(long_clip, SPANS), strict=True):
        same(together, alone(long_clip, span))


def test_a_frame_that_several_spans_need_is_decoded_once(long_clip, monkeypatch):
    count = Counter()
    honest = MediaFile.packets

    def counted(self):
        for packet in honest(self):
            count[packet.stream.type] += bool(packet.size)
            yield packet

    monkeypatch.setattr(MediaFile, "packets", counted)
    several(long_clip, [(i / 10, i / 10 + 2.0) for i in range(170)])
    assert count["video"] <= 25 * 20 + 1


def test_a_long_gap_between_spans_is_not_decoded(long_clip, monkeypatch):
    count = Counter()
    honest = MediaFile.packets

    def counted(self):
        for packet in honest(self):
            count[packet.stream.type] += 1
            yield packet

    monkeypatch.setattr(MediaFile, "packets", counted)
    several(long_clip, [(0.0, 0.5), (18.0, 18.5)])
    assert count["video"] < 130


def test_a_span_that_is_refused_costs_the_others_nothing(long_clip):
    limits = DecodeLimits(max_duration_s=5.0)
    first, refused, last = several(long_clip, [(0.0, 1.0), (0.5, None), (1.5, 2.0)], limits=limits)
    assert refused.reason == "too-long"
    same(first, alone(long_clip, (0.0, 1.0)))
    same(last, alone(long_clip, (1.5, 2.0)))


def test_results_come_in_the_order_in_which_spans_end(long_clip):
    asked = [Span(start_s=s, end_s=e) for s, e in [(0.0, 6.0), (1.0, 2.0), (1.5, 4.0), (5.0, 5.5)]]
    found = decode_spans(str(long_clip), asked, rgb=RGB, sample_rate_hz=16_000)
    assert [result.index for result in found] == [1, 2, 3, 0]


def test_sound_alone_is_as_long_as_it_was_beside_the_picture(long_clip):
    (whole,) = several(long_clip, [(19.0, 21.0)])
    asked = [Span(start_s=19.0, end_s=21.0, duration_s=whole.duration_s)]
    (sound,) = decode_spans(str(long_clip), asked, rgb=RGB, sample_rate_hz=16_000, parts=("sound",))
    assert sound.clip.video is None
    assert sound.clip.duration_s == whole.duration_s
    np.testing.assert_array_equal(sound.clip.audio.samples, whole.audio.samples)


def fixture_files():
    if not FIXTURES.is_file():
        return ["absent"]
    return [name for name in json.loads(FIXTURES.read_text())["files"] if not name.startswith("broken/")]


@pytest.mark.parametrize("name", fixture_files())
def test_real_files_give_the_same_spans_together_and_alone(media_fixtures, name):
    path = media_fixtures / "videos" / name
    spans = [(0.0, 0.4), (0.3, 1.1), (0.9, 1.3), (1.25, 1.9), (4.6, 5.0), (4.8, 9.0), (20.0, 21.0), (45.0, 46.0)]
    for span, together in zip(spans, several(path, spans), strict=True):
        same(together, alone(path, span))
