import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from pipelines.container import MediaFile
from pipelines.decode import decode_spans
from pipelines.source import (
    BadSpanError,
    DecodeError,
    DecodeLimits,
    TooLargeError,
    TooLongError,
    TooSlowError,
    UnreadableError,
    resolve,
)
from pipelines.take import Span
from schemas.features import RgbSpec
from tests.media import gray_level, steady, tone, write_media

EXACT = RgbSpec(fps=10.0, fixed_size_px=(48, 64))


def decode(path, *, start_s=None, end_s=None, rgb=EXACT, limits=None):
    span = Span(start_s=start_s, end_s=end_s)
    (result,) = decode_spans(str(path), [span], rgb=rgb, sample_rate_hz=16_000, limits=limits)
    if isinstance(result.clip, DecodeError):
        raise result.clip
    return result.clip


def levels(clip):
    """Which source frame each stored frame shows, for files whose frame i is flat gray 5 i."""
    return [round(float(frame.mean()) / 5) for frame in clip.video.frames]


def test_variable_frame_rate_shows_what_was_on_screen(tmp_path):
    pts_s = [0.0, 0.05, 0.24, 0.26, 0.7, 0.72]
    clip = decode(write_media(tmp_path / "v.mkv", pts_s=pts_s))
    wanted = [sum(t <= i / 10 + 1e-3 for t in pts_s) - 1 for i in range(len(clip.video.frames))]
    assert levels(clip) == wanted
    assert clip.video.pts_s.tolist() == [pts_s[i] for i in wanted]


def test_a_span_after_a_seek_shows_the_same_frames_as_the_whole_file(tmp_path):
    path = write_media(tmp_path / "v.mkv", pts_s=steady(2.0), sound=tone(440, seconds=2.0))
    whole, span = decode(path), decode(path, start_s=1.4, end_s=1.9)
    assert levels(span) == levels(whole)[14:19]
    assert span.duration_s == pytest.approx(0.5)
    np.testing.assert_allclose(span.audio.samples, whole.audio.samples[22_400:30_400], atol=1e-4)


def test_a_seek_between_distant_keyframes_decodes_up_to_the_span(tmp_path):
    path = write_media(
        tmp_path / "v.mp4", pts_s=steady(4.0), picture=lambda i: gray_level(2 * i), video_codec="libx264", gop=250
    )
    span = decode(path, start_s=3.0, end_s=3.5)
    assert [round(float(f.mean()) / 2) for f in span.video.frames] == pytest.approx([75, 77, 80, 82, 85], abs=1)


def test_a_late_first_frame_fills_the_instants_before_it(tmp_path):
    path = write_media(tmp_path / "v.mkv", pts_s=[0.3, 0.4, 0.5], sound=tone(440, seconds=0.6))
    assert levels(decode(path)) == [0, 0, 0, 0, 1, 2]


def test_colours_arrive_as_blue_green_red(tmp_path):
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 200
    clip = decode(write_media(tmp_path / "v.mkv", pts_s=steady(0.4), picture=lambda i: red))
    assert clip.video.frames[0][0, 0].tolist() == pytest.approx([0, 0, 200], abs=2)


def test_a_tone_keeps_its_pitch_and_level(tmp_path):
    path = write_media(tmp_path / "a.mkv", sound=tone(440, seconds=1.0, rate=44_100), rate=44_100)
    clip = decode(path)
    assert clip.video is None
    assert clip.no_video == "no-video-stream"
    assert clip.duration_s == pytest.approx(1.0, abs=1e-3)
    spectrum = np.abs(np.fft.rfft(clip.audio.samples))
    assert spectrum.argmax() == pytest.approx(440, abs=1)
    assert np.abs(clip.audio.samples).max() == pytest.approx(0.25, abs=0.01)


def test_late_and_short_sound_is_padded_and_says_where_it_is_real(tmp_path):
    path = write_media(tmp_path / "v.mkv", pts_s=steady(2.0), sound=tone(440, seconds=0.5), sound_start_s=0.6)
    audio = decode(path).audio
    assert len(audio.samples) == 32_000
    assert audio.start_s == pytest.approx(0.6, abs=1e-3)
    assert audio.end_s == pytest.approx(1.1, abs=1e-3)
    assert not audio.samples[:9_500].any()
    assert not audio.samples[17_700:].any()
    np.testing.assert_allclose(audio.samples[9_700:17_500], tone(440, seconds=0.5)[100:7_900], atol=1e-3)


def test_picture_without_sound_says_so(tmp_path):
    clip = decode(write_media(tmp_path / "v.mkv", pts_s=steady(0.4)))
    assert clip.audio is None
    assert clip.no_audio == "no-audio-stream"


@pytest.mark.parametrize("name", ["evil.mp4", "evil.ffconcat", "evil.m3u8", "evil.sdp"])
@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile neighbour.mkv\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nneighbour.mkv\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    ],
)
def test_a_playlist_opens_nothing(tmp_path, name, text):
    write_media(tmp_path / "neighbour.mkv", pts_s=steady(0.2))
    (tmp_path / name).write_text(text)
    with pytest.raises(UnreadableError):
        decode(tmp_path / name)


def test_a_span_outside_the_file_is_refused(tmp_path):
    path = write_media(tmp_path / "v.mkv", pts_s=steady(0.4))
    assert decode(path, start_s=5.0, end_s=6.0).no_video == "bad-span"
    with pytest.raises(BadSpanError, match="empty"):
        decode(path, start_s=0.3, end_s=0.3)


def test_limits_stop_large_and_long_clips(tmp_path):
    path = write_media(tmp_path / "v.mkv", pts_s=steady(2.0))
    with pytest.raises(TooLargeError, match="64 x 48"):
        decode(path, limits=DecodeLimits(max_pixels=1000))
    with pytest.raises(TooLongError, match="give it spans"):
        decode(path, limits=DecodeLimits(max_duration_s=1.0))


def test_a_long_thin_picture_is_refused_before_it_is_scaled(tmp_path):
    strip = gray_level(90, height=16, width=8000)
    path = write_media(tmp_path / "v.mkv", pts_s=[0.0, 0.1], picture=lambda i: strip)
    with pytest.raises(TooLargeError, match="64000 x 128 exceed 32000 pixels a side"):
        decode(path, rgb=RgbSpec(fps=10.0))


def test_the_stored_frames_of_a_clip_are_limited_together(tmp_path):
    path = write_media(tmp_path / "v.mkv", pts_s=steady(2.0))
    assert len(decode(path, limits=DecodeLimits(max_stored_pixels=20 * 48 * 64)).video.frames) == 20
    with pytest.raises(TooLargeError, match="stored frames of 64 x 48"):
        decode(path, limits=DecodeLimits(max_stored_pixels=19 * 48 * 64))


def test_a_torn_file_gives_what_can_be_read(tmp_path):
    path = write_media(tmp_path / "v.mkv", pts_s=steady(2.0), video_codec="libx264")
    torn = tmp_path / "torn.mkv"
    torn.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    assert 0 < decode(torn).duration_s < 2.0


def meddle(monkeypatch, change):
    """Passes every packet of a file, with its number, through a function."""
    honest = MediaFile.packets

    def packets(self):
        for number, packet in enumerate(honest(self)):
            yield change(number, packet)

    monkeypatch.setattr(MediaFile, "packets", packets)


def as_packet(packet, decode):
    """A packet with another way to be decoded."""
    return SimpleNamespace(
        decode=decode, stream=packet.stream, dts=packet.dts, pts=packet.pts, time_base=packet.time_base
    )


def packets_decoded(monkeypatch):
    """Counts the packets that are handed to a decoder, by stream."""
    count = Counter()

    def counted(number, packet):
        def decode():
            count[packet.stream.index] += 1
            return packet.decode()

        return as_packet(packet, decode)

    meddle(monkeypatch, counted)
    return count


def test_a_stream_that_is_done_is_not_decoded_further(tmp_path, monkeypatch):
    # The sound ends at once, so it never says that the span is over.
    path = write_media(tmp_path / "v.mkv", pts_s=steady(40.0), sound=tone(440, seconds=0.2))
    count = packets_decoded(monkeypatch)
    clip = decode(path, start_s=0.0, end_s=1.0)
    assert len(clip.video.frames) == 10
    assert clip.audio.end_s == pytest.approx(0.2, abs=0.01)
    assert count[0] <= 30


def test_damaged_packets_past_the_span_end_the_reading(tmp_path, monkeypatch):
    path = write_media(tmp_path / "v.mkv", pts_s=steady(40.0))
    read = Counter()

    def damaged(number, packet):
        read["packets"] += 1
        return packet if number < 4 else as_packet(packet, decode_that_fails)

    meddle(monkeypatch, damaged)
    clip = decode(path, start_s=0.0, end_s=1.0)
    assert clip.notes[0].endswith("damaged video packets skipped")
    assert read["packets"] < 25 * 12


def test_an_endless_stream_of_damaged_packets_runs_out_of_time(tmp_path, monkeypatch):
    path = write_media(tmp_path / "v.mkv", pts_s=steady(0.4))
    honest = MediaFile.packets

    def endless(self):
        (first, *_) = honest(self)
        broken = as_packet(first, decode_that_fails)
        broken.dts = broken.pts = None
        for _ in range(100_000_000):
            yield broken

    monkeypatch.setattr(MediaFile, "packets", endless)
    with pytest.raises(TooSlowError):
        decode(path, limits=DecodeLimits(max_decode_s=0.2))


def decode_that_fails():
    raise av.error.InvalidDataError(1, "damaged")


def expected_files(kind: str) -> list[str]:
    listed = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "expected.json"
    if not listed.is_file():
        return ["absent"]
    return [name for name in json.loads(listed.read_text())["files"] if name.startswith(kind)]


@pytest.mark.parametrize("name", expected_files("good/") + expected_files("odd/"))
def test_good_and_odd_files_meet_their_measured_facts(media_fixtures, name):
    facts = json.loads((media_fixtures / "expected.json").read_text())["files"][name]
    video, audio = facts.get("video"), facts.get("audio")
    clip = decode(resolve(str(media_fixtures / "videos"), name), rgb=RgbSpec(fps=5.0, short_side_px=64))
    has_video = bool(video) and not video["is_cover_art"] and video["frames"] > 0
    assert (clip.video is not None) == has_video
    assert (clip.audio is not None) == bool(audio and audio["samples"])
    if has_video:
        # Facts count from the first frame; a clip counts from the file's first time stamp, of sound or picture.
        first = video["first_pts_s"]
        lead_s = first - min(first, audio["first_pts_s"] if audio else first)
        assert clip.duration_s == pytest.approx(video["duration_s"] + lead_s, abs=0.07)
        upright = video["size"][::-1] if video["rotation_deg"] % 180 == 0 else video["size"]
        height, width = clip.video.frames[0].shape[:2]
        if "sar" not in name and "puremagic" not in name and "mmaction2" not in name and "carphone" not in name:
            assert height / width == pytest.approx(upright[0] / upright[1], rel=0.15)
        mean = float(clip.video.frames[0].mean())
        assert mean == pytest.approx(video["first_frame_mean_gray"], abs=12)
    if clip.audio is not None:
        assert (float(np.abs(clip.audio.samples).max()) > 1e-4) == audio["audible"]
        if not has_video:
            assert clip.duration_s == pytest.approx(audio["duration_s"], abs=0.01)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", expected_files("broken/"))
def test_broken_files_fail_with_a_reason_or_give_finite_arrays(media_fixtures, name):
    path = resolve(str(media_fixtures / "videos"), name)
    clip, reason = None, None
    try:
        clip = decode(path)
    except DecodeError as error:
        reason = error.reason
    if clip is None:
        assert reason in {"unreadable", "no-frames", "too-large"}
        return
    assert "evil" not in name
    if clip.audio is not None:
        assert np.isfinite(clip.audio.samples).all()
        assert np.abs(clip.audio.samples).max() <= 1
