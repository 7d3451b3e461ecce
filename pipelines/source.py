"""Which files may be opened at all, what a clip may cost, and how failure is named. No decoder in here.

A path must be a regular file whose real path lies below the video root: a pipe would block for ever, a link could lead
anywhere. Every error carries the ``stage`` and ``reason`` that the ledger shows.

Errors:
    DecodeError
    ├── OutsideRootError, MissingFileError, NotAFileError, UnavailableError, UnreadableError    while opening
    ├── BadSpanError, TooLargeError, TooLongError, TooSlowError, OutOfMemoryError               limits
    └── DecoderCrashError                                                                       isolation
"""

import errno
import os
import stat
from dataclasses import dataclass, fields

from schemas.ledger import Stage


class DecodeError(Exception):
    """A clip that cannot be had: ``stage`` and ``reason`` go into the ledger, the message is one readable line."""

    stage: Stage = "open"
    reason: str = "unreadable"


class OutsideRootError(DecodeError):
    """The path is absolute, climbs with ``..`` or leaves the root through a link."""

    reason = "outside-root"


class MissingFileError(DecodeError):
    """There is no such file."""

    reason = "missing-file"


class NotAFileError(DecodeError):
    """A directory, pipe, socket or device."""

    reason = "not-a-file"


class UnavailableError(DecodeError):
    """The file is there and could not be read just now: permission, network, too many open files."""

    reason = "unavailable"


class UnreadableError(DecodeError):
    """FFmpeg cannot open it as one of the allowed containers."""

    reason = "unreadable"


class BadSpanError(DecodeError):
    """The span is empty."""

    stage: Stage = "plan"
    reason = "bad-span"


class TooLargeError(DecodeError):
    """The picture, declared or as stored, has more pixels than allowed, or a file to be downloaded more bytes."""

    reason = "too-large"


class TooLongError(DecodeError):
    """The span lasts longer than allowed."""

    stage: Stage = "video"
    reason = "too-long"


class TooSlowError(DecodeError):
    """Decoding took longer than allowed."""

    stage: Stage = "video"
    reason = "too-slow"


class OutOfMemoryError(DecodeError):
    """Decoding needed more memory than allowed."""

    stage: Stage = "video"
    reason = "out-of-memory"


class DecoderCrashError(DecodeError):
    """The decoder process died of this clip, twice."""

    stage: Stage = "video"
    reason = "decoder-crash"


TRANSIENT_REASONS = frozenset({"unavailable", "internal-error"})
"""Failures that lie in the machine, the moment or the code: a later run tries the clip again."""

LIMIT_REASONS = frozenset({"too-large", "too-long", "too-slow", "out-of-memory"})
"""Failures that a run with other limits may not meet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeLimits:
    """What one clip may cost."""

    max_pixels: int = 40_000_000
    """Of one source frame; 8K UHD has 33 million."""
    max_stored_side_px: int = 32_000
    """Of a stored frame. A JPEG ends at 65,500, and a flow image is twice as high as its frame."""
    max_stored_pixels: int = 300_000_000
    """Of all stored frames of one clip, three bytes each; 600 s of 128 x 228 at 15 frames/s have 263 million."""
    max_duration_s: float = 600.0
    """Of one clip; a longer source is cut into clips by the manifest's spans."""
    max_decode_s: float = 300.0
    """Wall-clock time for one clip, its file's download included: a guard against endless files, far above what an
    honest one takes."""
    max_memory_gib: float = 4.0
    """Memory a decoder may allocate, beyond what it needs to start."""
    max_file_gib: float = 64.0
    """Size of a file that has to be downloaded."""

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if not value > 0:
                raise ValueError(f"limits.{part.name} must be above 0, got {value}")


NO_SUCH_PATH = frozenset({errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP})
"""Errors of a path that nothing can be at, now or later."""


def resolve(root: str, uri: str) -> str:
    """The real path of a manifest's ``uri``, once it is known to be a regular file below ``root``."""
    if "\0" in uri or os.path.isabs(uri) or ".." in uri.replace("\\", "/").split("/"):
        raise OutsideRootError(f"{uri!r} is not a plain path below the video root")
    base = os.path.realpath(root)
    path = os.path.realpath(os.path.join(base, uri))
    if os.path.commonpath([base, path]) != base:
        raise OutsideRootError(f"{uri!r} leads out of the video root through a link")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise MissingFileError(f"{uri!r} does not exist below the video root") from None
    except OSError as error:
        if error.errno in NO_SUCH_PATH:
            raise MissingFileError(f"{uri!r} cannot be the path of a file: {error.strerror}") from None
        raise UnavailableError(f"{uri!r} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        # Opening a pipe would block for ever.
        raise NotAFileError(f"{uri!r} is not a regular file")
    return path
