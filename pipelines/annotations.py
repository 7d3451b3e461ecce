"""Annotations: which clips a dataset is said to hold, before anybody looked whether their files exist.

Columns are found by their header names, never by position, and what is wrong with a file is an error that names the
line: whatever were guessed here would be trained on without a word.
"""

import csv
import difflib
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fsspec

from schemas.manifest import SPLITS

SPLIT_ALIASES = {"training": "train", "validation": "val", "valid": "val", "testing": "test", "eval": "test"}
"""Names other datasets give the splits."""

COLUMNS = ("path", "split", "label", "start", "end", "id", "group")
"""What a CSV file is searched for, besides ``label.TASK``."""

SYNONYMS = {"uri": "path", "start_s": "start", "end_s": "end", "clip_id": "id"}
"""The manifest's own names for them."""

LABEL_SEPARATOR = "|"
"""Between several labels of one cell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """One annotated clip."""

    uri: str
    """Path below the video root."""
    split: str
    """train, val or test."""
    labels: dict[str, tuple[str, ...] | None]
    """Class names per task; None: not labelled."""
    start_s: float | None = None
    """Start of the span."""
    end_s: float | None = None
    """End of the span, exclusive."""
    clip_id: str | None = None
    """Given id; otherwise derived from path and span."""
    group: str | None = None
    """What must not straddle a hold-out; otherwise the path."""


def parse_csv(text: str, *, what: str, default_task: str = "label") -> list[Annotation]:
    r"""Annotations from CSV text; ``what`` names the file in errors.

    Columns, by header name: ``path`` (below the video root) and ``split`` are required. ``label``, or ``label.TASK``
    once per head, holds a class name, several separated by ``|`` (any cell with several makes the task multi-label),
    or nothing. ``start`` and ``end`` are seconds, empty for the file's own ends. ``id`` and ``group`` are optional.
    The manifest's own names ``uri``, ``start_s``, ``end_s`` and ``clip_id`` do as well. Other columns are ignored,
    unless their names look like one of these. A byte order mark and any line ending are fine.

    >>> parse_csv("path,split,label\na.mp4,train,dog\n", what="x.csv")[0].labels
    {'label': ('dog',)}
    """
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), skipinitialspace=True, strict=True)
    lines = _lines(reader, what)
    _, first = next(lines, (0, []))
    header = _header(first, what)
    tasks = {name: name.removeprefix("label.") for name in header if name.startswith("label.")}
    if "label" in header:
        tasks["label"] = default_task
    for wanted in ("path", "split"):
        if wanted not in header:
            raise ValueError(f"{what} has no column {wanted!r}; its header is: {', '.join(header) or 'empty'}")
    if not tasks:
        raise ValueError(f"{what} has no column 'label' or 'label.TASK'; its header is: {', '.join(header)}")
    if len(set(tasks.values())) < len(tasks):
        raise ValueError(f"{what} has both 'label' and 'label.{default_task}'; keep one")
    rows = []
    for number, row in lines:
        where = f"{what}, line {number}"
        if len(row) != len(header):
            hint = "; put a cell that holds a comma in quotes" if len(row) > len(header) else ""
            raise ValueError(f"{where} has {len(row)} cells, the header has {len(header)}{hint}")
        cells = dict(zip(header, row, strict=True))
        if not cells["path"]:
            raise ValueError(f"{where}: path is empty")
        start_s, end_s = (_seconds(cells.get(name, ""), name, where) for name in ("start", "end"))
        if end_s is not None and end_s <= (start_s or 0.0):
            raise ValueError(f"{where}: end must be after start, which is {start_s or 0.0} s, got {cells['end']!r}")
        rows.append(
            Annotation(
                uri=cells["path"],
                split=_split(cells["split"], where),
                labels={task: _labels(cells[column]) for column, task in tasks.items()},
                start_s=start_s,
                end_s=end_s,
                clip_id=cells.get("id") or None,
                group=cells.get("group") or None,
            )
        )
    if not rows:
        raise ValueError(f"{what} has no rows")
    return rows


def from_csv(path: str, *, default_task: str = "label") -> list[Annotation]:
    """`parse_csv` of a file or fsspec URL."""
    with fsspec.open(path, "rb") as file:
        data: bytes = file.read()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}); convert it first") from None
    return parse_csv(text, what=path, default_task=default_task)


def split_name(cell: str) -> str:
    """A split by the name we give it; any other name in lower case.

    >>> split_name("Validation")
    'val'
    """
    name = cell.lower()
    return SPLIT_ALIASES.get(name, name)


def _lines(reader: Any, what: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line that holds anything."""
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(f"{what}, line {reader.line_num} is not CSV: {error}") from None


def _header(cells: list[str], what: str) -> list[str]:
    """Column names with synonyms replaced. One that was meant to be read but would not be is an error."""
    header = [SYNONYMS.get(name, name) for name in cells]
    for name, column in zip(cells, header, strict=True):
        if name and header.count(column) > 1:
            raise ValueError(f"{what} has two columns for {column!r}; its header is: {', '.join(cells)}")
        meant = _nearly(column)
        if meant is not None:
            raise ValueError(f"{what} has a column {name!r}; call it {meant!r} to have it read, or rename or remove it")
    return header


def _nearly(name: str) -> str | None:
    """The column that another name was probably meant to be.

    >>> _nearly("Start"), _nearly("time_end"), _nearly("spilt"), _nearly("title")
    ('start', 'end', 'split', None)
    """
    if name in COLUMNS or name.startswith("label."):
        return None
    small = name.lower()
    for column in COLUMNS:
        # Longer names may also differ by a letter; short ones are too close to other words, such as idx.
        alike = len(column) > 3 and difflib.SequenceMatcher(None, small, column).ratio() > 0.85
        spans = column in ("start", "end") and column in re.split(r"[^a-z]+", small)
        if alike or spans or sorted(small) == sorted(column) or SYNONYMS.get(small) == column:
            return column
    return "label" + small[5:] if small.startswith("label.") else None


def _split(cell: str, where: str) -> str:
    name = split_name(cell)
    if name not in SPLITS:
        raise ValueError(f"{where}: split {cell!r} is unknown; allowed: {', '.join(SPLITS)}")
    return name


def _labels(cell: str) -> tuple[str, ...] | None:
    names = tuple(dict.fromkeys(part.strip() for part in cell.split(LABEL_SEPARATOR) if part.strip()))
    return names or None


def _seconds(cell: str, name: str, where: str) -> float | None:
    if not cell:
        return None
    try:
        time_s = float(cell)
    except ValueError:
        time_s = math.nan
    if not 0 <= time_s < math.inf:
        raise ValueError(f"{where}: {name} must be seconds, got {cell!r}; allowed: a number from 0 on, or nothing")
    return time_s
