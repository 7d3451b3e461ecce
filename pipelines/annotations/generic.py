r"""The generic annotations, which any dataset can be written as: a CSV file with a header, or JSON lines.

Columns are found by their names, never by position, and a name that was probably meant to be one of ours but would not
be read is an error: whatever were guessed here would be trained on without a word.
"""

import difflib
import json
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipelines.annotations.cells import (
    BadRow,
    Text,
    columns_of,
    csv_rows,
    open_texts,
    require_columns,
    text_lines,
)
from pipelines.annotations.table import Annotations, BadRows, Rows

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""

COLUMNS = ("path", "split", "label", "start", "end", "id", "group")
"""What a file is searched for, besides ``label.TASK``."""

SYNONYMS = {"uri": "path", "start_s": "start", "end_s": "end", "clip_id": "id"}
"""The manifest's own names for them."""

LABEL_SEPARATOR = "|"
"""Between several labels of one CSV cell."""

ESCAPES = r"^[/\\]|(^|[/\\])\.\.([/\\]|$)|^[A-Za-z][A-Za-z0-9+.-]+:[^ ]"
"""Paths that would leave the video root, or that FFmpeg might take for a protocol."""

_JSON_SEPARATOR = "\x1f"


def parse_csv(text: Text, *, what: str, default_task: str = "label", bad_rows: BadRows = "refuse") -> Annotations:
    r"""Annotations from CSV text; ``what`` names the file in errors.

    Columns, by header name: ``path`` (below the video root) and ``split`` are required. ``label``, or ``label.TASK``
    once per head, holds a class name, several separated by ``|`` (any cell with several makes the task multi-label),
    or nothing. ``start`` and ``end`` are seconds, empty for the file's own ends. ``id`` and ``group`` are optional.
    The manifest's own names ``uri``, ``start_s``, ``end_s`` and ``clip_id`` do as well. Other columns are ignored,
    unless their names look like one of these. A byte order mark and any line ending are fine.

    >>> parse_csv("path,split,label\na.mp4,train,dog\n", what="x.csv").table["name"].to_pylist()
    ['a.mp4']
    """
    bad: list[BadRow] = []
    rows = csv_rows(text, what=what)
    _, first = next(rows, (0, []))
    header = _header([cell.strip() for cell in first], what)
    tasks = _tasks(header, default_task, what)
    read = [name if name in COLUMNS or name in tasks else "" for name in header]
    cells = columns_of(rows, read, what=what, source=0, bad=bad)
    return _check(cells, tasks, bad, what=what, separator=LABEL_SEPARATOR, bad_rows=bad_rows)


def parse_jsonl(text: Text, *, what: str, default_task: str = "label", bad_rows: BadRows = "refuse") -> Annotations:
    r"""Annotations from JSON lines: one object a line, with the names `parse_csv` has; labels may be lists.

    >>> parse_jsonl('{"path": "a.mp4", "split": "val", "label": [1, 2]}', what="x.jsonl").tasks[0].classes
    ('1', '2')
    """
    bad: list[BadRow] = []
    table: list[tuple[int, dict[str, str]]] = []
    for line, entry in text_lines(text, what=what):
        try:
            table.append((line, _json_cells(entry)))
        except ValueError as error:
            bad.append(BadRow(source=what, line=line, reason=str(error)))
    names = list(dict.fromkeys(name for _, cells in table for name in cells))
    if not names:
        raise ValueError(f"{what} has no rows" + (f"; the first of {len(bad)} bad ones: {bad[0]}" if bad else ""))
    header = _header(names, what)
    tasks = _tasks(header, default_task, what)
    read = [name if name in COLUMNS or name in tasks else "" for name in header]
    rows = ((line, [cells.get(name, "") for name in names]) for line, cells in table)
    cells = columns_of(rows, read, what=what, source=0, bad=bad)
    return _check(cells, tasks, bad, what=what, separator=_JSON_SEPARATOR, bad_rows=bad_rows)


def from_csv(path: str, *, default_task: str = "label", bad_rows: BadRows = "refuse") -> Annotations:
    """`parse_csv` of a file or fsspec URL, or `parse_jsonl` where its name ends with .jsonl or .ndjson."""
    parse = parse_jsonl if path.lower().endswith((".jsonl", ".ndjson")) else parse_csv
    with open_texts([path]) as texts:
        return parse(texts[path], what=path, default_task=default_task, bad_rows=bad_rows)


def _tasks(header: Sequence[str], default_task: str, what: str) -> dict[str, str]:
    """Label column -> task."""
    tasks = {name: name.removeprefix("label.") for name in header if name.startswith("label.")}
    if "label" in header:
        tasks["label"] = default_task
    require_columns(header, ("path", "split"), what=what)
    if not tasks:
        raise ValueError(f"{what} has no column 'label' or 'label.TASK'; its header is: {', '.join(header)}")
    if len(set(tasks.values())) < len(tasks):
        raise ValueError(f"{what} has both 'label' and 'label.{default_task}'; keep one")
    return tasks


def _check(
    cells: pa.Table, tasks: dict[str, str], bad: list[BadRow], *, what: str, separator: str, bad_rows: BadRows
) -> Annotations:
    rows = Rows([cells], sources=[what], bad=bad, bad_rows=bad_rows)
    rows.reject(pc.equal(rows["path"], ""), lambda row: "path is empty")
    rows.reject(
        pc.match_substring_regex(rows["path"], ESCAPES),
        lambda row: f"path {row['path']!r} is not a plain path below the video root",
    )
    split = rows.splits()
    start_s, end_s = rows.seconds("start"), rows.seconds("end")
    rows.require_spans(start_s, end_s)
    labels = [rows.many_labels(column, task, separator=separator, kind="as found") for column, task in tasks.items()]
    columns = {
        "name": rows["path"],
        "split": split,
        "start_s": start_s,
        "end_s": end_s,
        "length_s": pc.subtract(end_s, pc.fill_null(start_s, 0.0)),
        "clip_id": _unless_empty(rows["id"]),
        "group": _unless_empty(rows["group"]),
    }
    return rows.finish(columns, labels, matched_by="path")


def _unless_empty(text: Any) -> Any:
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _json_cells(entry: str) -> dict[str, str]:
    """One JSON object as text cells, a list as its parts with a separator that no label holds."""
    try:
        value = json.loads(entry)
    except ValueError:
        raise ValueError(f"not JSON: {entry[:60]!r}") from None
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object: {entry[:60]!r}")
    cells = {}
    for name, cell in value.items():
        parts = cell if isinstance(cell, list) and name.startswith("label") else [cell]
        if not all(part is None or isinstance(part, str | int | float) for part in parts):
            if name in COLUMNS or name in SYNONYMS or name.startswith("label."):
                raise ValueError(f"{name} must be text or a number, got {json.dumps(cell)[:60]}")
            continue
        cells[name] = _JSON_SEPARATOR.join("" if part is None else str(part) for part in parts)
    return cells


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
