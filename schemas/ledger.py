"""The ledger: one row per manifest row, saying what became of it. Nothing is dropped silently.

``status`` is ok (the clip is in a shard), failed (it is not, and ``reason`` says why) or skipped (nothing was tried).
``stage`` names the step that ended the clip; ``shard`` and ``row`` point at the stored clip.
"""

from typing import Literal

import pyarrow as pa

Status = Literal["ok", "failed", "skipped"]
Stage = Literal["plan", "open", "video", "audio", "flow", "logmel", "encode", "write"]

LEDGER_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("stage", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("row", pa.int32()),
    ]
)
