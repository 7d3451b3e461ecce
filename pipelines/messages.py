"""What is asked of a decoder process and what it answers. Light to import: the asking side never decodes.

Neither side unpickles anything: requests are JSON, answers are a JSON head and Arrow record batches.

    at start  {ready: true, versions}
    request   {request, videos, features, limits, scratch}
    answer    {index, failure | presence, note, batches: [[modality, bytes], ...]}, then the bytes of the batches
              {end: true} after the last clip of a request

Every JSON text follows its length in 4 bytes.
"""

import json
import struct
from dataclasses import asdict, dataclass
from typing import Any, Literal

from schemas.features import Modality
from schemas.ledger import Stage

LENGTH = struct.Struct("<I")

GRACE_S = 10.0
"""How much longer than the limit a clip may take before the process is ended from outside."""

Part = Literal["picture", "sound"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRequest:
    """One span of a source file."""

    clip_id: str
    """Name of the clip."""
    start_s: float | None
    """Start of the span; None: of the file."""
    end_s: float | None
    """End of the span, exclusive; None: of the file."""
    duration_s: float | None = None
    """Length found earlier, of a clip that is stored already and gets more modalities; None: a new clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRequest:
    """The clips wanted of one source file."""

    uri: str
    """Path below the video root."""
    clips: tuple[ClipRequest, ...]
    """All new, or all stored already."""
    modalities: tuple[Modality, ...]
    """What to compute."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """What must be decoded. Presence and length of a new clip depend on picture and sound alike."""
        if any(clip.duration_s is None for clip in self.clips):
            return ("picture", "sound")
        picture = any(name in self.modalities for name in ("rgb", "flow"))
        return (*(("picture",) if picture else ()), *(("sound",) if "logmel" in self.modalities else ()))


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFailure:
    """A clip that cannot be stored."""

    stage: Stage
    """The step that ended it."""
    reason: str
    """A key of `schemas.ledger.REASONS`."""
    message: str
    """One readable line."""


def framed(values: dict[str, Any]) -> bytes:
    """A JSON text behind its length.

    >>> len(framed({"end": True}))
    17
    """
    text = json.dumps(values).encode()
    return LENGTH.pack(len(text)) + text


def request_to_json(request: SourceRequest) -> dict[str, Any]:
    """Plain JSON values, read back by `request_from_json`.

    >>> request = SourceRequest(uri="a.mp4", clips=(ClipRequest(clip_id="a", start_s=None, end_s=2.0),), modalities=())
    >>> request_from_json(json.loads(json.dumps(request_to_json(request)))) == request
    True
    """
    return asdict(request)


def request_from_json(values: dict[str, Any]) -> SourceRequest:
    """The inverse of `request_to_json`."""
    clips = tuple(ClipRequest(**clip) for clip in values["clips"])
    return SourceRequest(uri=values["uri"], clips=clips, modalities=tuple(values["modalities"]))
