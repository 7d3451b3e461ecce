"""A media file opened so that FFmpeg reads nothing else: the only door to containers. Files are hostile by default.

Allowed formats and the ``file`` protocol are given together: either list alone still lets a playlist or a concat script
open other files. Decoding is single-threaded, for the cores belong to other clips.

Time zero of a file is its earliest time stamp (``start_time``), as players count.
"""

import errno
import os
from collections.abc import Iterator
from typing import Any

import av
import av.container
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition

from pipelines.source import UnavailableError, UnreadableError

SAFE_OPTIONS = {
    "format_whitelist": "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,mpegvideo,m4v,wav,mp3,flac,aac",
    "protocol_whitelist": "file",
}

UNAVAILABLE_ERRNOS = frozenset({errno.EACCES, errno.EMFILE, errno.ENFILE, errno.ESTALE})
"""Errors that say nothing about the file; EIO is not among them, for demuxers return it for damage."""

NO_TIMESTAMPS = 0x80
"""FFmpeg's flag of containers without any time stamps, such as a bare MPEG-4 stream; their frames are counted."""

UNINDEXED_FORMATS = frozenset({"mpegts", "mpeg"})
"""Formats in which FFmpeg guesses a position, which may lie behind the keyframe wanted; they are read through."""


class MediaFile:
    """An open file with its first picture and its first sound stream. A context manager."""

    def __init__(self, path: str, *, picture: bool, sound: bool) -> None:
        """Open a file that `pipelines.source.resolve` has approved, for the streams wanted.

        Raises:
            UnavailableError: It cannot be opened at the moment.
            UnreadableError: FFmpeg cannot open it as one of the allowed containers.
        """
        self._path, self._wanted = path, (picture, sound)
        self._open()

    def _open(self) -> None:
        try:
            self._container = av.open("file:" + os.path.abspath(self._path), options=SAFE_OPTIONS)
        except FFmpegError as error:
            if error.errno == errno.ENOMEM:
                raise MemoryError from error  # Asked again in a fresh process, it says whether it was the file's fault.
            if error.errno in UNAVAILABLE_ERRNOS:
                raise UnavailableError(f"it cannot be opened now: {error.strerror}") from None
            raise UnreadableError(f"FFmpeg cannot open it: {error.strerror}") from None
        self._touched = False
        container, (picture, sound) = self._container, self._wanted
        # A cover image is no picture of anything that happens.
        pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        self.video: Any = pictures[0] if pictures and picture else None
        self.audio: Any = container.streams.audio[0] if container.streams.audio and sound else None
        self.zero_s = (container.start_time or 0) / av.time_base
        self.untimed = bool(container.format.flags & NO_TIMESTAMPS)
        self.seekable = not self.untimed and container.format.name not in UNINDEXED_FORMATS
        bases = {stream.index: stream.time_base for stream in self.streams}
        self._ticks = {index: (base.numerator, base.denominator) for index, base in bases.items() if base}
        for stream in self.streams:
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1

    def __enter__(self) -> "MediaFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def streams(self) -> list[Any]:
        """The streams that are read: picture, then sound."""
        return [stream for stream in (self.video, self.audio) if stream is not None]

    def rewind(self) -> None:
        """Back to the beginning. Seeking there fails in some containers; opening again does not."""
        if self._touched:
            self._container.close()
            self._open()

    def seek(self, time_s: float) -> None:
        """To the last keyframe before a time; where that fails, to the beginning."""
        self._touched = True
        try:
            self._container.seek(max(0, int((self.zero_s + time_s) * av.time_base)), backward=True)
        except FFmpegError:
            self.rewind()

    def packets(self) -> Iterator[Any]:
        """Packet by packet; None, and the end, where reading breaks off in a truncated or torn file."""
        self._touched = True
        if not self.streams:
            return
        packets = self._container.demux(self.streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except FFmpegError:
                yield None
                return
            yield packet

    def time_s(self, packet: Any) -> float:
        """When a packet is decoded, which is never after it is shown; before everything when it does not say."""
        stamp = packet.pts if packet.dts is None else packet.dts
        ticks = self._ticks.get(packet.stream.index)
        # A packet makes its time base anew each time it is asked, and the arithmetic of fractions costs more still.
        return -np.inf if stamp is None or ticks is None else stamp * ticks[0] / ticks[1] - self.zero_s


def flush(stream: Any) -> Any:
    """The packet that makes a decoder give what it still holds."""
    packet = av.Packet()
    packet.stream, packet.time_base = stream, stream.time_base
    return packet
