"""A span that is being read: what was asked for, what gathers its frames, and what came of it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipelines.audio import AudioClip, AudioJoiner
from pipelines.container import MediaFile
from pipelines.picture import Scaler, VideoClip, VideoPicker
from pipelines.source import BadSpanError, DecodeError, DecodeLimits, TooLongError
from schemas.features import RgbSpec

Kind = Literal["video", "audio"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Half-open [start_s, end_s) of a file."""

    start_s: float | None = None
    """None: from the start."""
    end_s: float | None = None
    """None: to the end."""
    duration_s: float | None = None
    """Length found when the picture was decoded, which decides where sound ends when only sound is."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanResult:
    """What came of one span."""

    index: int
    """Which of the spans asked for."""
    clip: DecodedClip | DecodeError
    """The clip, or why there is none."""


class Take:
    """A span that is being read."""

    def __init__(self, index: int, span: Span, limits: DecodeLimits) -> None:
        first, last = span.start_s or 0.0, np.inf if span.end_s is None else span.end_s
        if not (np.isfinite(first) and first >= 0 and last > first):
            raise BadSpanError(f"span [{span.start_s}, {span.end_s}) is empty or not a span")
        if np.isfinite(last) and last - first > limits.max_duration_s:
            raise TooLongError(f"the span lasts {last - first:.1f} s, the limit is {limits.max_duration_s:g} s")
        self.index, self.span, self.start_s, self.end_s = index, span, first, float(last)
        self._limits = limits
        self.video: VideoPicker | None = None
        self.audio: AudioJoiner | None = None
        self.damaged: dict[Kind, int] = {"video": 0, "audio": 0}

    @property
    def span_s(self) -> float:
        """How long the span is; infinite without an end."""
        return self.end_s - self.start_s

    def sink(self, kind: Kind) -> "VideoPicker | AudioJoiner | None":
        """What gathers a stream's frames; None when the file has no such stream or none is wanted."""
        return self.video if kind == "video" else self.audio

    def wants(self, kind: Kind) -> bool:
        """Whether more frames of a stream are wanted."""
        sink = self.video if kind == "video" else self.audio
        return sink is not None and not sink.done

    @property
    def complete(self) -> bool:
        """Whether no more frames are wanted."""
        return all(sink is None or sink.done for sink in (self.video, self.audio))

    def restart(self, file: MediaFile, *, rgb: RgbSpec, rate_hz: int, scaler: Scaler) -> None:
        """Forget what was gathered, and gather from a file."""
        self.damaged = {"video": 0, "audio": 0}
        self.video = self.audio = None
        if file.video is not None:
            self.video = VideoPicker(
                file.video, start_s=self.start_s, span_s=self.span_s, rgb=rgb, limits=self._limits, scaler=scaler
            )
        if file.audio is not None:
            # An unlimited clip still ends: sound past the longest clip allowed cannot be part of one.
            span_s = min(self.span_s, self._limits.max_duration_s + 1.0)
            self.audio = AudioJoiner(start_s=self.start_s, span_s=span_s, rate_hz=rate_hz)

    def result(self, *, rate_hz: int) -> SpanResult:
        """The clip, once no more frames come."""
        try:
            return SpanResult(index=self.index, clip=self._assemble(rate_hz))
        except DecodeError as error:
            return SpanResult(index=self.index, clip=error)

    def _assemble(self, rate_hz: int) -> DecodedClip:
        video, audio, limits = self.video, self.audio, self._limits
        clip = video.finish() if video is not None else None
        if audio is not None:
            audio.finish()
        duration_s = min(self.span_s, video.duration_s if clip is not None and video is not None else np.inf)
        if clip is None and self.span.duration_s is not None:
            duration_s = self.span.duration_s
        elif not np.isfinite(duration_s):
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
            notes=tuple(f"{count} damaged {kind} packets skipped" for kind, count in self.damaged.items() if count),
        )
