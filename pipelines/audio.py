"""The sound of a span: pieces as they are decoded in, one mono array on the clip's timeline out.

Every piece lies where its time stamp says, so a hole in the sound stays a hole and nothing after it shifts.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from av.audio.resampler import AudioResampler
from jaxtyping import Float32

JOIN_S = 0.1
"""A jump in the sound's time stamps up to this is rounding; a larger one is a hole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioClip:
    """The sound of a span, mono."""

    samples: Float32[np.ndarray, " sample"]
    """In [-1, 1]; sample n belongs to n / rate after the start of the span. Zero where there is no sound."""
    start_s: float
    """Real samples lie in [start_s, end_s)."""
    end_s: float
    """See ``start_s``."""


@dataclass(slots=True)
class _Segment:
    """Sound without a hole: where it begins, and its pieces."""

    start_s: float
    pieces: list[np.ndarray] = field(default_factory=list)
    samples: int = 0


class AudioJoiner:
    """Mixes to mono, resamples and puts every piece where its time stamp says."""

    def __init__(self, *, start_s: float, span_s: float, rate_hz: int) -> None:
        self.done = False
        self._start_s, self._span_s, self._rate_hz = start_s, span_s, rate_hz
        self._resampler: AudioResampler | None = None
        self._form: tuple[str, str, int] | None = None
        self._segments: list[_Segment] = []
        self._next_s = 0.0

    @property
    def end_s(self) -> float:
        """Where the last real sample ends."""
        return max((s.start_s + s.samples / self._rate_hz for s in self._segments), default=0.0)

    def push(self, frame: Any, time_s: float) -> None:
        """Take the next piece of sound, and when it begins, from the beginning of the file."""
        time_s -= self._start_s
        lasts_s = frame.samples / frame.sample_rate
        if time_s >= self._span_s:
            self.done = True
            return
        if time_s + lasts_s <= 0:
            return
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or form != self._form or abs(time_s - self._next_s) > JOIN_S:
            self._flush()
            self._form = form
            # Without the option FFmpeg mixes loud stereo to 1.4 of full scale, and clipping would distort it.
            self._resampler = AudioResampler(
                format="flt", layout="mono", rate=self._rate_hz, options={"rematrix_maxval": "1.0"}
            )
            self._segments.append(_Segment(start_s=time_s))
            self._next_s = time_s
        self._next_s += lasts_s
        self._collect(frame)

    def finish(self) -> None:
        """Take what the resampler still holds."""
        self._flush()

    def cut(self, duration_s: float, rate_hz: int) -> AudioClip | None:
        """The sound of [0, duration_s); None when not one sample lies in it."""
        wanted = round(duration_s * rate_hz)
        samples = np.zeros(wanted, np.float32)
        first, last = wanted, 0
        for segment in self._segments:
            if not segment.pieces:
                continue
            at = round(segment.start_s * rate_hz)
            sound = np.concatenate(segment.pieces)
            lo, hi = max(at, 0), min(at + len(sound), wanted)
            if lo < hi:
                samples[lo:hi] = sound[lo - at : hi - at]
                first, last = min(first, lo), max(last, hi)
        if first >= last:
            return None
        # A damaged AAC packet can decode to NaN or to thousands; honest decoders overshoot 1 by a little.
        np.nan_to_num(samples, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        np.clip(samples, -1.0, 1.0, out=samples)
        return AudioClip(samples=samples, start_s=first / rate_hz, end_s=last / rate_hz)

    def _flush(self) -> None:
        if self._resampler is not None:
            self._collect(None)
            self._resampler = None

    def _collect(self, frame: Any) -> None:
        assert self._resampler is not None
        for piece in self._resampler.resample(frame):
            samples: Any = piece.planes[0]  # A buffer, which PyAV's types do not say.
            values = np.frombuffer(samples, np.float32, piece.samples)  # A view: a copy costs a tenth of the sound.
            self._segments[-1].pieces.append(values)
            self._segments[-1].samples += len(values)
