"""The picture of a span: decoded frames in, stored frames out. Only frames that are stored are scaled.

A stored frame shows what was on screen at its instant (`pipelines.spans`): the frame held when that instant passed.
The first frame decides the stored size, so a stream that changes its size midway stays one array.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Float64, UInt8

from pipelines.source import DecodeLimits, TooLargeError, TooLongError
from pipelines.spans import scaled_size, stored_before, stored_count
from schemas.features import RgbSpec

Frame = UInt8[np.ndarray, "height width 3"]
"""In the order blue, green, red: OpenCV's, and that in which FFmpeg scales in half the time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoClip:
    """The stored frames of a span."""

    frames: tuple[Frame, ...]
    """Frame i shows what was on screen i / fps after the start of the span; repeated frames are one array."""
    pts_s: Float64[np.ndarray, " time"]
    """When the source frame behind each stored frame appeared, from the span's start; can be negative."""


def check_size(width: int, height: int, limits: DecodeLimits) -> None:
    """Refuse frames that are larger than allowed, before memory is spent on them."""
    if width * height > limits.max_pixels:
        raise TooLargeError(f"frames of {width} x {height} exceed {limits.max_pixels} pixels")


class Scaler:
    """Frames of a stream as upright arrays; one reformatter for all spans of a file."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._frame: Any = None
        self._size = (0, 0)
        self._picture = np.zeros((0, 0, 3), np.uint8)

    def scaled(self, frame: Any, size: tuple[int, int]) -> Frame:
        """A frame at (height, width), turned as its display matrix says. Spans that overlap share the result."""
        if frame is not self._frame or size != self._size:
            turns = round(frame.rotation / 90) % 4
            height, width = size if turns % 2 == 0 else size[::-1]
            picture = self._reformatter.reformat(
                frame, width=width, height=height, format="bgr24", interpolation=Interpolation.AREA, threads=1
            )
            assert picture is not None
            upright = np.ascontiguousarray(np.rot90(picture.to_ndarray(), turns)) if turns else picture.to_ndarray()
            self._frame, self._size, self._picture = frame, size, upright
        return self._picture


class VideoPicker:
    """Turns the frames of a stream into the stored frames of one span."""

    def __init__(
        self, stream: Any, *, start_s: float, span_s: float, rgb: RgbSpec, limits: DecodeLimits, scaler: Scaler
    ) -> None:
        self.done = False
        self.overshot = False  # The first frame came after the span's start.
        self.nothing = "no-frames"  # Why `finish` gives None, when it does.
        self.duration_s = 0.0
        self._pixel_aspect = float(stream.sample_aspect_ratio or 1) or 1.0
        self._start_s, self._span_s = start_s, span_s
        self._rgb, self._limits, self._scaler = rgb, limits, scaler
        self._frames: list[Frame] = []
        self._pts_s: list[float] = []
        self._held: Any = None
        self._held_s = 0.0
        self._gap_s = 1.0 / float(stream.average_rate or stream.guessed_rate or 25)
        self._size: tuple[int, int] | None = None

    def push(self, frame: Any, time_s: float) -> None:
        """Take the next frame in order of presentation, and when it is shown, from the beginning of the file."""
        check_size(frame.width, frame.height, self._limits)
        shown_s = time_s - self._start_s
        if self._held is None:
            self.overshot = shown_s > 0
            if shown_s >= self._span_s:
                self.done = True
                return
        else:
            self._gap_s = shown_s - self._held_s
            self._store(stored_before(min(shown_s, self._span_s), self._rgb.fps))
        if shown_s >= self._span_s:
            self.done = True
            self.duration_s = self._span_s
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
            self.duration_s = min(self._held_s + lasts_s, self._span_s)
        if self.duration_s <= 0:
            self.nothing = "bad-span"
            return None
        if self.duration_s > self._limits.max_duration_s:
            raise TooLongError(
                f"the clip lasts {self.duration_s:.1f} s, the limit is {self._limits.max_duration_s:g} s"
            )
        self._store(stored_count(self.duration_s, self._rgb.fps))
        self._held = None
        return VideoClip(frames=tuple(self._frames), pts_s=np.array(self._pts_s))

    def _store(self, due: int) -> None:
        """Let the frame on screen fill every stored frame up to number ``due``."""
        missing = due - len(self._frames)
        if missing <= 0:
            return
        size = self._stored_size()
        self._check_stored(due, *size)
        picture = self._scaler.scaled(self._held, size)
        self._frames.extend([picture] * missing)
        self._pts_s.extend([self._held_s] * missing)

    def _stored_size(self) -> tuple[int, int]:
        """(height, width) of every stored frame."""
        if self._size is None:
            aspect = self._pixel_aspect
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

    def _check_stored(self, frames: int, height: int, width: int) -> None:
        limits = self._limits
        if max(height, width) > limits.max_stored_side_px:
            raise TooLargeError(f"stored frames of {width} x {height} exceed {limits.max_stored_side_px} pixels a side")
        if frames * height * width > limits.max_stored_pixels:
            raise TooLargeError(
                f"{frames} or more stored frames of {width} x {height} exceed {limits.max_stored_pixels} pixels"
            )
