"""Annotations and a video root to a clip manifest and a report on what is missing, before any work is spent.

Columns are found by their header names, never by position. What is wrong with an annotation file is an error that names
the line; what is missing on disk is a count and a list, because real datasets lose videos all the time.
"""

import csv
import io
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from schemas.manifest import SPLITS, make_clip_id, manifest_schema
from schemas.task import Task

VIDEO_ENDINGS = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".ts",
    ".mpg",
    ".mpeg",
    ".flv",
    ".wmv",
    ".asf",
    ".gif",
)
AUDIO_ENDINGS = (".ogv", ".ogg", ".wav", ".mp3", ".flac", ".m4a", ".aac")
MEDIA_ENDINGS = frozenset(VIDEO_ENDINGS + AUDIO_ENDINGS)
"""Files a folder tree is searched for."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """What a manifest covers."""

    annotated: int
    """Rows of the annotations."""
    found: int
    """Rows whose file exists; these make the manifest."""
    missing: tuple[str, ...]
    """Paths that do not exist, sorted."""
    duplicates: tuple[str, ...]
    """Ids that occurred again and were left out."""
    histogram: dict[str, dict[str, dict[str, int]]]
    """Task -> split -> class -> clips."""

    def lines(self) -> list[str]:
        """The report, for people."""
        told = [
            f"annotated {self.annotated}, found {self.found}, "
            f"missing files {len(self.missing)}, duplicates {len(self.duplicates)}"
        ]
        told += [f"missing: {path}" for path in self.missing[:20]]
        if len(self.missing) > 20:
            told.append(f"missing: ... and {len(self.missing) - 20} more")
        told += [f"duplicate: {clip_id}" for clip_id in self.duplicates[:20]]
        for task, splits in self.histogram.items():
            for split, classes in splits.items():
                shown = ", ".join(f"{name} {count}" for name, count in list(classes.items())[:20])
                more = f", ... {len(classes) - 20} more classes" if len(classes) > 20 else ""
                told.append(f"{task}, {split}: {sum(classes.values())} labels: {shown}{more}")
        return told


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


def from_folder(
    paths: Iterable[str], *, task: str = "label", shares: tuple[float, float] = (0.1, 0.1), seed: int = 0
) -> list[Annotation]:
    """Annotations from a tree of files: SPLIT/CLASS/FILE, or CLASS/FILE with a split of our own.

    The first level names splits when all of its folders do. Otherwise ``shares`` of every class go to val and test,
    at least one each where a class has three files or more, drawn with ``seed``.

    >>> [a.split for a in from_folder(["train/dog/a.mp4", "valid/dog/b.mp4"])]
    ['train', 'val']
    """
    media = sorted(p for p in paths if os.path.splitext(p)[1].lower() in MEDIA_ENDINGS)
    parts = [p.split("/") for p in media]
    top = {p[0] for p in parts if len(p) > 1}
    if top and all(_split_name(name) in SPLITS for name in top):
        deep = [(p, "/".join(p)) for p in parts if len(p) > 2]
        rows = [Annotation(uri=uri, split=_split_name(p[0]), labels={task: (p[1],)}) for p, uri in deep]
    else:
        by_class: dict[str, list[str]] = defaultdict(list)
        for p, uri in zip(parts, media, strict=True):
            if len(p) > 1:
                by_class[p[0]].append(uri)
        rows = []
        for name, uris in sorted(by_class.items()):
            for uri, split in zip(uris, _draw_splits(len(uris), shares, f"{seed}/{name}"), strict=True):
                rows.append(Annotation(uri=uri, split=split, labels={task: (name,)}))
    if not rows:
        raise ValueError("the folder holds no media file as SPLIT/CLASS/FILE or CLASS/FILE")
    return sorted(rows, key=lambda row: row.uri)


def list_files(videos: str) -> list[str]:
    """Every file below a video root (path or fsspec URL), relative to it."""
    fs, root = url_to_fs(videos)
    root = root.rstrip("/")
    if not fs.isdir(root or "/"):
        raise FileNotFoundError(f"there is no video root at {videos}")
    return sorted(path[len(root) :].lstrip("/") for path in fs.find(root))


def build(annotations: Sequence[Annotation], *, files: Iterable[str]) -> tuple[pa.Table, Preflight]:
    """The manifest of the annotated clips whose files exist, and the report on all of them."""
    present = set(files)
    tasks = _tasks(annotations)
    index = {task.name: {name: i for i, name in enumerate(task.classes)} for task in tasks}
    rows: list[dict[str, Any]] = []
    missing, duplicates, seen = set(), [], set()
    histogram: dict[str, dict[str, Counter[str]]] = {t.name: {s: Counter() for s in SPLITS} for t in tasks}
    for note in annotations:
        if note.uri not in present:
            missing.add(note.uri)
            continue
        clip_id = note.clip_id or make_clip_id(note.uri, note.start_s, note.end_s)
        if clip_id in seen:
            duplicates.append(clip_id)
            continue
        seen.add(clip_id)
        row: dict[str, Any] = {
            "clip_id": clip_id,
            "uri": note.uri,
            "start_s": note.start_s,
            "end_s": note.end_s,
            "split": note.split,
            "group": note.group or note.uri,
        }
        for task in tasks:
            names = note.labels[task.name]
            numbers = None if names is None else [index[task.name][name] for name in names]
            row[task.column] = numbers if task.kind == "multi" or numbers is None else numbers[0]
            histogram[task.name][note.split].update(names or ())
        rows.append(row)
    if not rows:
        raise ValueError(f"none of the {len(annotations)} annotated files exists below the video root")
    report = Preflight(
        annotated=len(annotations),
        found=len(rows),
        missing=tuple(sorted(missing)),
        duplicates=tuple(duplicates),
        histogram={
            task: {split: dict(sorted(counts.items())) for split, counts in splits.items() if counts}
            for task, splits in histogram.items()
        },
    )
    return pa.Table.from_pylist(rows, manifest_schema(tasks)), report


def write_manifest(table: pa.Table, out: str) -> None:
    """Write a manifest as Parquet, whole or not at all."""
    fs, path = url_to_fs(out)
    parent = os.path.dirname(path)
    if parent:
        fs.makedirs(parent, exist_ok=True)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    temporary = f"{path}.tmp-{os.getpid()}"
    fs.pipe_file(temporary, sink.getvalue().to_pybytes())
    fs.mv(temporary, path)


def _tasks(annotations: Sequence[Annotation]) -> tuple[Task, ...]:
    """Tasks and classes: several labels in any cell make a task multi-label; integers sort as numbers."""
    tasks = []
    for name in annotations[0].labels:
        cells = [note.labels[name] for note in annotations]
        classes = {label for cell in cells for label in cell or ()}
        if not classes:
            raise ValueError(f"task {name!r} has no label in any row")
        numeric = all(re.fullmatch(r"-?\d+", label) for label in classes)
        ordered = sorted(classes, key=lambda label: (int(label) if numeric else 0, label))
        several = any(cell is not None and len(cell) > 1 for cell in cells)
        tasks.append(Task(name=name, kind="multi" if several else "single", classes=tuple(ordered)))
    return tuple(tasks)


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


def _split_name(cell: str) -> str:
    name = cell.lower()
    return SPLIT_ALIASES.get(name, name)


def _split(cell: str, where: str) -> str:
    name = _split_name(cell)
    if name not in SPLITS:
        raise ValueError(f"{where}: split {cell!r} is unknown; allowed: {', '.join(SPLITS)}")
    return name


def _draw_splits(count: int, shares: tuple[float, float], seed: str) -> list[str]:
    """A split for each of a class's files.

    >>> sorted(_draw_splits(10, (0.1, 0.2), "0/dog"))
    ['test', 'test', 'train', 'train', 'train', 'train', 'train', 'train', 'train', 'val']
    """
    least = 1 if count >= 3 else 0
    val, test = (max(least, round(count * share)) if share > 0 else 0 for share in shares)
    splits = ["val"] * val + ["test"] * test
    splits = (splits + ["train"] * count)[:count]
    random.Random(seed).shuffle(splits)
    return splits
