"""The clip manifest: one row per clip to make, the only thing preprocessing is told about a dataset.

| column | type | meaning |
|---|---|---|
| clip_id | string | unique; derived from the source and the span, see `make_clip_id` |
| uri | string | path of the media file, relative to the video root |
| start_s, end_s | double | half-open span [start_s, end_s) in seconds; null = from the start / to the end |
| split | string | train, val or test |
| group | string | what must not straddle a hold-out: the source video or the participant |
| label.<task> | int32 or list<int32> | one column per task; tasks and class names in the schema metadata |
"""

import re
from urllib.parse import quote

import pyarrow as pa

from schemas.task import Task, encode_tasks, label_fields

SPLITS = ("train", "val", "test")

IDENTITY_FIELDS: tuple[pa.Field, ...] = (
    pa.field("clip_id", pa.string(), nullable=False),
    pa.field("uri", pa.string(), nullable=False),
    pa.field("start_s", pa.float64()),
    pa.field("end_s", pa.float64()),
    pa.field("split", pa.string(), nullable=False),
    pa.field("group", pa.string(), nullable=False),
)
"""Columns that say which clip this is; they open the manifest and every ``clips.arrow``."""


def manifest_schema(tasks: tuple[Task, ...]) -> pa.Schema:
    """The manifest's schema for these tasks, which it carries in its metadata."""
    return pa.schema([*IDENTITY_FIELDS, *label_fields(tasks)], metadata=encode_tasks(tasks))


def make_clip_id(uri: str, start_s: float | None, end_s: float | None) -> str:
    """A readable id without white space, different for every (uri, span) pair; the span in milliseconds.

    White space is percent-encoded, and so are the two characters that would otherwise be ambiguous, ``%`` and ``@``.
    A time that is no whole number of milliseconds is written out in seconds.

    >>> make_clip_id("a/b c.mp4", None, None)
    'a/b%20c.mp4'
    >>> make_clip_id("-x.mp4", 1.5, 3.0)
    '-x.mp4@1500-3000'
    >>> make_clip_id("x.mp4", None, 0.0125)
    'x.mp4@-0.0125s'
    """
    name = re.sub(r"[\s%@]", lambda found: quote(found[0], safe=""), uri)
    if start_s is None and end_s is None:
        return name
    return f"{name}@{_spell(start_s)}-{_spell(end_s)}"


def _spell(time_s: float | None) -> str:
    if time_s is None:
        return ""
    milliseconds = round(time_s * 1000)
    return f"{milliseconds}" if milliseconds / 1000 == time_s else f"{time_s!r}s"
