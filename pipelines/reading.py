"""One reading of packets from a position on: every frame is decoded once and handed to all spans that it concerns."""

import errno
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from av.error import FFmpegError

from pipelines.container import MediaFile, flush
from pipelines.picture import Scaler
from pipelines.source import DecodeError, DecodeLimits, TooSlowError
from pipelines.take import Kind, SpanResult, Take
from schemas.features import RgbSpec

SEEK_MARGIN_S = 1.0
"""Sound of an instant may lie this far before its picture in the file."""

PAST_MARGIN_S = 10.0
"""A stream without a usable frame at the span's end is given up this far after it: longer than a group of pictures."""


class Clock:
    """When a stream's frames are shown, from the beginning of the file, also for frames that do not say."""

    def __init__(self, file: MediaFile, *, gap_s: float, rising: bool) -> None:
        self._zero_s, self._untimed, self._gap_s, self._rising = file.zero_s, file.untimed, gap_s, rising
        self._last_s: float | None = None

    def time_s(self, frame: Any) -> float | None:
        """None: a frame to leave out."""
        last_s, stamp_s = self._last_s, frame.time
        if stamp_s is not None:
            now_s = float(stamp_s) - self._zero_s
        elif last_s is not None:
            now_s = last_s + self._gap_s
        elif self._untimed:
            now_s = 0.0
        else:
            return None  # Before the first time stamp lies what an edit list or a negative start has cut away.
        if last_s is not None and now_s > last_s:
            self._gap_s = now_s - last_s
        elif last_s is not None and self._rising:
            return None  # Time stamps that run backwards: the frame's instant has passed.
        self._last_s = now_s
        return now_s


class Pass:
    """One reading of packets from a position on.

    ``left`` holds takes that need another pass: all of them when seeking came out after the first span's start
    (``overshot``), and those after a stream whose decoder had to be flushed to end an earlier span.
    """

    def __init__(self, file: MediaFile, takes: list[Take], *, rgb: RgbSpec, rate_hz: int, limits: DecodeLimits) -> None:
        self.left: list[Take] = []
        self.overshot = False
        self._file, self._limits, self._rate_hz = file, limits, rate_hz
        self._pending, self._active = deque(takes), list[Take]()
        self._ready: list[SpanResult] = []
        self._first_end_s = np.inf  # Of the active takes: far beyond it, a stream must be looked at.
        self._last: Any = None
        self._last_s = 0.0
        rate = (file.video.average_rate or file.video.guessed_rate or 25) if file.video is not None else 25
        self._clocks: dict[Kind, Clock] = {
            "video": Clock(file, gap_s=1 / float(rate), rising=True),
            "audio": Clock(file, gap_s=0.0, rising=False),
        }
        scaler = Scaler()
        for take in takes:
            take.restart(file, rgb=rgb, rate_hz=rate_hz, scaler=scaler)

    def run(self, *, sought: bool) -> Iterator[SpanResult]:
        """Results as they become complete."""
        closed: set[Kind] = set()
        deadline_s = time.monotonic() + self._limits.max_decode_s
        for packet in self._file.packets():
            if time.monotonic() > deadline_s:
                self._give_up()
                yield from self._ready
                return
            if packet is None:
                kind: Kind = "audio" if self._file.video is None else "video"
                for take in [*self._active, *self._pending]:
                    take.damaged[kind] += 1
                break
            kind = packet.stream.type
            if kind in closed:
                continue
            self._push(packet, kind)
            if sought and any(take.video is not None and take.video.overshot for take in self._active):
                self.overshot, self.left = True, [*self._active, *self._pending]
                yield from self._ready
                return
            when_s = self._file.time_s(packet) - PAST_MARGIN_S
            if when_s > self._first_end_s and self._unserved(when_s, kind):
                closed.add(kind)
                self._end_stream(packet, kind)
            if self._ready:
                yield from self._ready
                self._ready = []
                deadline_s = time.monotonic() + self._limits.max_decode_s
            if not self._active and not self._pending:
                return
        self._begin(np.inf)
        yield from self._ready
        for take in self._active:
            yield take.result(rate_hz=self._rate_hz)

    def _push(self, packet: Any, kind: Kind) -> None:
        """Decode a packet for every take that wants it; one that cannot be decoded is counted by those it concerns."""
        if not self._pending and not any(take.wants(kind) for take in self._active):
            return  # A stream that is done is no longer decoded.
        try:
            frames = packet.decode()
        except FFmpegError as error:
            if error.errno == errno.ENOMEM:
                raise MemoryError from error  # Skipping the packet would make the clip depend on what ran before it.
            when_s = self._file.time_s(packet)
            self._begin(when_s)
            for take in [*self._active, *self._pending]:
                near = when_s >= take.start_s - SEEK_MARGIN_S or when_s == -np.inf
                if take.wants(kind) and near:
                    take.damaged[kind] += 1
            return
        clock = self._clocks[kind]
        for frame in frames:
            shown_s = clock.time_s(frame)
            if shown_s is None:
                continue
            if self._pending:
                self._begin(shown_s + (0.0 if kind == "video" else frame.samples / frame.sample_rate))
            for take in tuple(self._active):
                if take.wants(kind):
                    self._feed(take, kind, frame, shown_s)
            if kind == "video":
                self._last, self._last_s = frame, shown_s

    def _feed(self, take: Take, kind: Kind, frame: Any, time_s: float) -> None:
        """Give a take a frame that it wants."""
        sink = take.sink(kind)
        assert sink is not None
        try:
            sink.push(frame, time_s)
        except DecodeError as error:
            self._remove(take)
            self._ready.append(SpanResult(index=take.index, clip=error))
        else:
            if sink.done and take.complete:
                self._finish(take)

    def _begin(self, until_s: float) -> None:
        """Activate the takes that start at or before a time; each is given the frame on screen at its start."""
        while self._pending and self._pending[0].start_s <= until_s:
            take = self._pending.popleft()
            self._active.append(take)
            self._first_end_s = min(self._first_end_s, take.end_s)
            if take.video is not None and self._last is not None:
                self._feed(take, "video", self._last, self._last_s)

    def _finish(self, take: Take) -> None:
        self._remove(take)
        self._ready.append(take.result(rate_hz=self._rate_hz))

    def _remove(self, take: Take) -> None:
        self._active.remove(take)
        self._first_end_s = min((other.end_s for other in self._active), default=np.inf)

    def _unserved(self, when_s: float, kind: Kind) -> bool:
        """Whether a take that ended before a time still waits: damaged or untimed frames are all it will get."""
        return any(when_s > take.end_s and take.wants(kind) for take in self._active)

    def _end_stream(self, packet: Any, kind: Kind) -> None:
        """Take what a stream's decoder still holds. Flushed, it gives no more: takes that need more are left."""
        when_s = self._file.time_s(packet) - PAST_MARGIN_S
        self._push(flush(packet.stream), kind)
        for take in tuple(self._active):
            sink = take.sink(kind)
            if sink is None or sink.done:
                continue
            if when_s > take.end_s:
                sink.done = True
                if take.complete:
                    self._finish(take)
            else:
                self._remove(take)
                self.left.append(take)
        self.left = sorted([*self.left, *self._pending], key=lambda take: (take.start_s, take.end_s))
        self._pending.clear()

    def _give_up(self) -> None:
        """Out of time: the takes being read fail, those not begun get a pass of their own."""
        if not self._active:
            self._active.append(self._pending.popleft())
        for take in self._active:
            error = TooSlowError(f"decoding took more than {self._limits.max_decode_s:g} s")
            self._ready.append(SpanResult(index=take.index, clip=error))
        self.left = [*self.left, *self._pending]
