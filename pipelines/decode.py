"""The only door to PyAV: a media file in, arrays of one span out. Files are hostile until shown otherwise.

FFmpeg may open nothing but the file it is given (allowed formats and the ``file`` protocol; it takes both lists).
Sizes, lengths and time are limited before memory is spent. A damaged packet costs itself, not the clip; what was
skipped is said in ``DecodedClip.notes``.

Time zero of a file is its earliest time stamp (``start_time``), as players count. The picture rules the timeline: with
video, the clip ends where the last frame does, and sound is cut or padded to that; without, where the sound does.
"""

import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import av.container
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Float64, UInt8

from pipelines.audio import AudioClip, AudioJoiner
from pipelines.source import (
    BadSpanError,
    DecodeLimits,
    TooLargeError,
    TooLongError,
    TooSlowError,
    UnavailableError,
    UnreadableError,
)
from pipelines.spans import scaled_size, stored_before, stored_count
from schemas.features import RgbSpec

SAFE_OPTIONS = {
    "format_whitelist": "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,mpegvideo,m4v,wav,mp3,flac,aac",
    "protocol_whitelist": "file",
}
"""Each of the two alone still lets a playlist or a concat script open other files."""

SEEK_MARGIN_S = 1.0
"""Sound of an instant may lie this far before its picture in the file."""

PAST_MARGIN_S = 10.0
"""A stream without a usable frame at the span's end is given up this far after it: longer than a group of pictures."""

UNAVAILABLE_ERRNOS = frozenset({errno.EACCES, errno.EMFILE, errno.ENFILE, errno.ESTALE})
"""Errors that say nothing about the file; EIO and ENOMEM are not among them, for demuxers return these for damage."""

NO_TIMESTAMPS = 0x80
"""FFmpeg's flag of containers without any time stamps, such as a bare MPEG-4 stream; their frames are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoClip:
    """The stored frames of a span."""

    frames: UInt8[np.ndarray, "time height width 3"]
    """RGB. Frame i shows what was on screen i / fps after the start of the span."""
    pts_s: Float64[np.ndarray, " time"]
    """When the source frame behind each stored frame appeared, from the span's start; can be negative."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedClip:
    """What one span of one file holds."""

    duration_s: float
    """Length of the span as found in the file."""
    video: VideoClip | None
    """None: no video stream, or it has no frame in the span; ``no_video`` says which."""
    audio: AudioClip | None
    """None: no audio stream, or it has no sample in the span."""
    no_video: str | None = None
    """Why ``video`` is None: no-video-stream, no-frames or bad-span (the picture ends before the span)."""
    no_audio: str | None = None
    """Why ``audio`` is None: no-audio-stream or no-samples."""
    notes: tuple[str, ...] = ()
    """Damage that was survived, for the ledger."""


def decode_clip(
    path: str,
    *,
    start_s: float | None,
    end_s: float | None,
    rgb: RgbSpec,
    sample_rate_hz: int,
    limits: DecodeLimits | None = None,
) -> DecodedClip:
    """Frames and sound of [start_s, end_s) of a file that `resolve` has approved."""
    limits = limits or DecodeLimits()
    first, last = start_s or 0.0, np.inf if end_s is None else end_s
    if not (np.isfinite(first) and first >= 0 and last > first):
        raise BadSpanError(f"span [{start_s}, {end_s}) is empty or not a span")
    if np.isfinite(last) and last - first > limits.max_duration_s:
        raise TooLongError(f"the span lasts {last - first:.1f} s, the limit is {limits.max_duration_s:g} s")
    job = {"start_s": first, "end_s": float(last), "rgb": rgb, "rate_hz": sample_rate_hz, "limits": limits}
    job["deadline_s"] = time.monotonic() + limits.max_decode_s  # One for both passes.
    if first > SEEK_MARGIN_S:
        decoded = _decode(path, seek=True, **job)
        if decoded is not None:
            return decoded
    decoded = _decode(path, seek=False, **job)
    assert decoded is not None
    return decoded


def _decode(
    path: str,
    *,
    seek: bool,
    start_s: float,
    end_s: float,
    rgb: RgbSpec,
    rate_hz: int,
    limits: DecodeLimits,
    deadline_s: float,
) -> DecodedClip | None:
    """One pass over the file. None when seeking overshot and the file must be read from its beginning."""
    try:
        container = av.open("file:" + os.path.abspath(path), options=SAFE_OPTIONS)
    except FFmpegError as error:
        if error.errno in UNAVAILABLE_ERRNOS:
            raise UnavailableError(f"it cannot be opened now: {error.strerror}") from None
        raise UnreadableError(f"FFmpeg cannot open it: {error.strerror}") from None
    with container:
        pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        video_stream = pictures[0] if pictures else None
        audio_stream = container.streams.audio[0] if container.streams.audio else None
        zero_s = (container.start_time or 0) / av.time_base
        video = _VideoPicker(video_stream, zero_s + start_s, end_s - start_s, rgb, limits) if video_stream else None
        # An unlimited clip still ends: sound past the longest clip allowed cannot be part of one.
        audio_end_s = min(end_s - start_s, limits.max_duration_s + 1.0)
        audio = AudioJoiner(zero_s + start_s, audio_end_s, rate_hz) if audio_stream else None
        streams: list[Any] = [s for s in (video_stream, audio_stream) if s is not None]
        for stream in streams:
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
        if seek:
            _seek(container, zero_s + start_s - SEEK_MARGIN_S)
        sinks: dict[int, _VideoPicker | AudioJoiner] = {}
        if video_stream is not None and video is not None:
            sinks[video_stream.index] = video
        if audio_stream is not None and audio is not None:
            sinks[audio_stream.index] = audio
        # A stream that is done is no longer decoded, and the file is read only until all of them are.
        open_sinks = dict(sinks)
        for packet in _packets(container, streams):
            if time.monotonic() > deadline_s:
                raise TooSlowError(f"decoding took more than {limits.max_decode_s:g} s")
            if packet is None:
                sinks[streams[0].index].damaged += 1
                break
            sink = open_sinks.get(packet.stream.index)
            if sink is None:
                continue
            # A stream whose frames are damaged or carry no time is never done by itself: its packets end it.
            past = _time_s(packet) > zero_s + start_s + sink.span_s + PAST_MARGIN_S
            _push(packet, sink)
            if past and not sink.done:
                _push(_flush(packet.stream), sink)
            if past or sink.done:
                del open_sinks[packet.stream.index]
            if not open_sinks:
                break
        if seek and video is not None and video.overshot:
            return None
        return _assemble(video, audio, start_s=start_s, end_s=end_s, rate_hz=rate_hz, limits=limits)


def _seek(container: av.container.InputContainer, target_s: float) -> None:
    """To the last keyframe before a time. Where that fails, reading simply begins at the beginning."""
    try:
        container.seek(max(0, int(target_s * av.time_base)), backward=True)
    except FFmpegError:
        return


def _packets(container: av.container.InputContainer, streams: list[Any]) -> Iterator[Any]:
    """Packet by packet; None, and the end, where reading breaks off in a truncated or torn file."""
    if not streams:
        return
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except FFmpegError:
            yield None
            return
        yield packet


def _time_s(packet: Any) -> float:
    """When a packet is decoded, which is never after it is shown; before everything when it does not say."""
    stamp = packet.pts if packet.dts is None else packet.dts
    return -np.inf if stamp is None or packet.time_base is None else float(stamp * packet.time_base)


def _flush(stream: Any) -> Any:
    """The packet that makes a decoder give what it still holds."""
    packet = av.Packet()
    packet.stream, packet.time_base = stream, stream.time_base
    return packet


def _push(packet: Any, sink: "_VideoPicker | AudioJoiner") -> None:
    """Decode a packet into its sink; one that cannot be decoded is counted."""
    try:
        frames = packet.decode()
    except FFmpegError:
        sink.damaged += 1
        return
    for frame in frames:
        sink.push(frame)


def _assemble(
    video: "_VideoPicker | None",
    audio: "AudioJoiner | None",
    *,
    start_s: float,
    end_s: float,
    rate_hz: int,
    limits: DecodeLimits,
) -> DecodedClip:
    clip, notes = None, []
    if video is not None:
        clip = video.finish()
        if video.damaged:
            notes.append(f"{video.damaged} damaged video packets skipped")
    if audio is not None:
        audio.finish()
        if audio.damaged:
            notes.append(f"{audio.damaged} damaged audio packets skipped")
    duration_s = min(end_s - start_s, video.duration_s if clip is not None and video is not None else np.inf)
    if not np.isfinite(duration_s):
        duration_s = audio.end_s if audio is not None else 0.0
    elif clip is None and audio is not None:
        duration_s = min(duration_s, max(audio.end_s, 0.0))
    if duration_s > limits.max_duration_s:
        raise TooLongError(
            f"the clip lasts {duration_s:.1f} s, the limit is {limits.max_duration_s:g} s; give it spans"
        )
    sound = audio.cut(duration_s, rate_hz) if audio is not None else None
    return DecodedClip(
        duration_s=float(duration_s) if clip is not None or sound is not None else 0.0,
        video=clip,
        audio=sound,
        no_video="no-video-stream" if video is None else video.nothing if clip is None else None,
        no_audio="no-audio-stream" if audio is None else "no-samples" if sound is None else None,
        notes=tuple(notes),
    )


class _VideoPicker:
    """Turns a stream of frames into stored frames, scaling only those that are stored."""

    def __init__(self, stream: Any, origin_s: float, span_s: float, rgb: RgbSpec, limits: DecodeLimits) -> None:
        self.damaged = 0
        self.done = False
        self.overshot = False
        self.nothing = "no-frames"  # Why `finish` gives None, when it does.
        self.duration_s = 0.0
        self._stream = stream
        self.span_s = span_s
        self._origin_s, self._rgb, self._limits = origin_s, rgb, limits
        self._reformatter = VideoReformatter()
        self._frames: list[np.ndarray] = []
        self._pts_s: list[float] = []
        self._held: Any = None
        self._held_s = 0.0
        self._gap_s = 1.0 / float(stream.average_rate or stream.guessed_rate or 25)
        self._size: tuple[int, int] | None = None
        self._check_size(stream.codec_context.width, stream.codec_context.height)

    def push(self, frame: Any) -> None:
        """Take the next frame in order of presentation."""
        self._check_size(frame.width, frame.height)
        time_s = frame.time
        if time_s is None and self._held is None and not self._stream.container.format.flags & NO_TIMESTAMPS:
            return  # Before the first time stamp lies what an edit list or a negative start has cut away.
        if time_s is None:
            shown_s = self._held_s + self._gap_s if self._held is not None else 0.0
        else:
            shown_s = time_s - self._origin_s
        if self._held is None:
            self.overshot = shown_s > 0
            if shown_s >= self.span_s:
                self.done = True
                return
        elif shown_s <= self._held_s:
            return  # Time stamps that run backwards: the frame's instant has passed.
        else:
            self._gap_s = shown_s - self._held_s
            self._store(stored_before(min(shown_s, self.span_s), self._rgb.fps))
        if shown_s >= self.span_s:
            self.done = True
            self.duration_s = self.span_s
            return
        if shown_s > self._limits.max_duration_s:
            raise TooLongError(f"the clip lasts longer than {self._limits.max_duration_s:g} s; give it spans")
        self._held, self._held_s = frame, shown_s

    def finish(self) -> VideoClip | None:
        """The clip, once no more frames come."""
        if self._held is None:
            return None
        if not self.done:
            lasts_s = float(self._held.duration * self._held.time_base) if self._held.duration else self._gap_s
            self.duration_s = min(self._held_s + lasts_s, self.span_s)
        if self.duration_s <= 0:
            self.nothing = "bad-span"
            return None
        if self.duration_s > self._limits.max_duration_s:
            raise TooLongError(
                f"the clip lasts {self.duration_s:.1f} s, the limit is {self._limits.max_duration_s:g} s"
            )
        self._store(stored_count(self.duration_s, self._rgb.fps))
        self._held = None
        return VideoClip(frames=np.stack(self._frames), pts_s=np.array(self._pts_s))

    def _store(self, due: int) -> None:
        """Let the frame on screen fill every stored frame up to number ``due``."""
        missing = due - len(self._frames)
        if missing <= 0:
            return
        self._check_stored(due)
        picture = self._scaled(self._held)
        self._frames.extend([picture] * missing)
        self._pts_s.extend([self._held_s] * missing)

    def _stored_size(self) -> tuple[int, int]:
        """(height, width) of every stored frame. The first decides: a stream that changes its size stays one array."""
        if self._size is None:
            aspect = float(self._stream.sample_aspect_ratio or 1) or 1.0
            height, width = self._held.height, self._held.width
            if round(self._held.rotation / 90) % 2:
                height, width, aspect = width, height, 1 / aspect
            self._size = scaled_size(
                height=height,
                width=width,
                pixel_aspect=aspect if 0.1 < aspect < 10 else 1.0,
                short_side_px=self._rgb.short_side_px,
                fixed_size_px=self._rgb.fixed_size_px,
            )
        return self._size

    def _check_stored(self, frames: int) -> None:
        height, width = self._stored_size()
        limits = self._limits
        if max(height, width) > limits.max_stored_side_px:
            raise TooLargeError(f"stored frames of {width} x {height} exceed {limits.max_stored_side_px} pixels a side")
        if frames * height * width > limits.max_stored_pixels:
            raise TooLargeError(
                f"{frames} or more stored frames of {width} x {height} exceed {limits.max_stored_pixels} pixels"
            )

    def _scaled(self, frame: Any) -> np.ndarray:
        turns = round(frame.rotation / 90) % 4
        height, width = self._stored_size() if turns % 2 == 0 else self._stored_size()[::-1]
        scaled = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=Interpolation.AREA, threads=1
        )
        assert scaled is not None
        return np.rot90(scaled.to_ndarray(), turns)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limits.max_pixels:
            raise TooLargeError(f"frames of {width} x {height} exceed {self._limits.max_pixels} pixels")
