"""Annotations: which clips a dataset is said to hold, before anybody looked whether their files exist.

Columns are found by their header names, never by position, and what is wrong with a file is an error that names the
line: whatever were guessed here would be trained on without a word.
"""

import csv
import io
from dataclasses import dataclass

import fsspec

from schemas.manifest import SPLITS

SPLIT_ALIASES = {"training": "train", "validation": "val", "valid": "val", "testing": "test", "eval": "test"}
"""Names other datasets give the splits."""

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
    Other columns are ignored. A byte order mark and any line ending are fine.

    >>> parse_csv("path,split,label\na.mp4,train,dog\n", what="x.csv")[0].labels
    {'label': ('dog',)}
    """
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), skipinitialspace=True)
    header = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = header
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
    for row in reader:
        where = f"{what}, line {reader.line_num}"
        cells = {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)}
        if not any(cells.values()):
            continue
        if not cells["path"]:
            raise ValueError(f"{where}: path is empty")
        rows.append(
            Annotation(
                uri=cells["path"],
                split=_split(cells["split"], where),
                labels={task: _labels(cells[column]) for column, task in tasks.items()},
                start_s=_seconds(cells.get("start", ""), "start", where),
                end_s=_seconds(cells.get("end", ""), "end", where),
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
        return float(cell)
    except ValueError:
        raise ValueError(f"{where}: {name} must be seconds, got {cell!r}") from None
