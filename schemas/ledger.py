"""The ledger: one row per manifest row, saying what became of it. Nothing is dropped silently.

``status`` is ok (the clip is in a shard), failed (it is not, and ``reason`` says why) or skipped (nothing was tried).
``stage`` names the step that ended the clip; ``shard`` and ``row`` point at the stored clip.
"""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from schemas.column import Column, fields_of

Status = Literal["ok", "failed", "skipped"]
Stage = Literal["plan", "open", "video", "audio", "flow", "logmel", "encode"]

LEDGER_COLUMNS = (
    Column(name="clip_id", type=pa.string(), nullable=False, meaning="name of the clip"),
    Column(name="uri", type=pa.string(), nullable=False, meaning="path of its media file"),
    Column(name="split", type=pa.string(), nullable=False, meaning="train, val or test"),
    Column(name="status", type=pa.string(), nullable=False, meaning="ok, failed or skipped"),
    Column(name="stage", type=pa.string(), meaning="step that ended it; null when ok"),
    Column(name="reason", type=pa.string(), meaning="why, as a word to count by; null when ok"),
    Column(
        name="message", type=pa.string(), meaning="why, in one line; of an ok clip, damage survived and parts missing"
    ),
    Column(name="shard", type=pa.string(), meaning="shard that holds it; null unless ok"),
    Column(name="row", type=pa.int32(), meaning="its row there; null unless ok"),
)

LEDGER_SCHEMA = pa.schema(list(fields_of(LEDGER_COLUMNS)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """What a reason in the ledger means."""

    meaning: str
    """Why there is no clip."""
    tried_again: Literal["never", "when it may help", "always"]
    """Whether a later run of the same job tries the clip again by itself."""


REASONS: dict[str, Reason] = {
    "outside-root": Reason(meaning="the path is absolute, has `..` or leads out of the root", tried_again="never"),
    "missing-file": Reason(meaning="there is no such file below the root", tried_again="when it may help"),
    "not-a-file": Reason(meaning="a directory, pipe, socket or device", tried_again="never"),
    "unavailable": Reason(meaning="there, but not readable now: permission, network, open files", tried_again="always"),
    "unreadable": Reason(
        meaning="FFmpeg cannot open it as one of the allowed containers", tried_again="when it may help"
    ),
    "no-streams": Reason(meaning="it opens, and holds neither picture nor sound", tried_again="never"),
    "no-frames": Reason(
        meaning="no frame of the picture can be decoded in the span, nor any sound", tried_again="never"
    ),
    "no-samples": Reason(meaning="sound only, and none of it in the span", tried_again="never"),
    "bad-span": Reason(meaning="the span is empty or begins after the file's end", tried_again="never"),
    "too-large": Reason(meaning="more pixels or bytes than a limit allows", tried_again="when it may help"),
    "too-long": Reason(meaning="lasts longer than a limit allows", tried_again="when it may help"),
    "too-slow": Reason(meaning="took longer than a limit allows", tried_again="when it may help"),
    "out-of-memory": Reason(meaning="needed more memory than a limit allows", tried_again="when it may help"),
    "decoder-crash": Reason(meaning="the decoder process died of it, twice", tried_again="never"),
    "internal-error": Reason(meaning="a mistake of ours, or of a library, met by this clip", tried_again="always"),
    "error-rate": Reason(meaning="skipped: the job had stopped, too many clips had failed", tried_again="always"),
}
"""Every reason there is. Tried again when it may help: the file has appeared or changed, or the limits are others."""
