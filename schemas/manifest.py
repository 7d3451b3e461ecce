"""The clip manifest: one row per clip to make, the only thing preprocessing is told about a dataset.

After the columns below comes one label column per task (`schemas.task`); tasks and class names are schema metadata.
"""

import re
from urllib.parse import quote

import pyarrow as pa

from schemas.column import Column, fields_of
from schemas.task import Task, encode_tasks, label_fields

SPLITS = ("train", "val", "test")

IDENTITY_COLUMNS = (
    Column(
        name="clip_id",
        type=pa.string(),
        nullable=False,
        meaning="unique; by default derived from the path and the span",
    ),
    Column(name="uri", type=pa.string(), nullable=False, meaning="path of the media file below the video root"),
    Column(name="start_s", type=pa.float64(), meaning="start of the span in seconds; null: of the file"),
    Column(name="end_s", type=pa.float64(), meaning="end of the span in seconds, exclusive; null: of the file"),
    Column(name="split", type=pa.string(), nullable=False, meaning="train, val or test"),
    Column(
        name="group",
        type=pa.string(),
        nullable=False,
        meaning="what must not straddle a hold-out: the source video or the participant",
    ),
)
"""Columns that say which clip this is; they open the manifest and every ``clips.arrow``."""

IDENTITY_FIELDS = fields_of(IDENTITY_COLUMNS)


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
