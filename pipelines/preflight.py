"""Annotations and a video root to a clip manifest and a report on what is missing, before any work is spent.

What is missing on disk is a count and a list, not an error, because real datasets lose videos all the time.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from pipelines.annotations import LABEL_SEPARATOR, Annotation
from pipelines.folder import is_media
from schemas.manifest import SPLITS, make_clip_id, manifest_schema
from schemas.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """What a manifest covers."""

    annotated: int
    """Rows of the annotations."""
    found: int
    """Rows of the manifest: those whose file exists, repeated ones counted once."""
    missing: tuple[str, ...]
    """Annotated paths that do not exist, sorted, each once."""
    duplicates: tuple[str, ...]
    """Ids of rows that repeat an earlier one word for word and were left out."""
    ignored: tuple[str, ...]
    """Media files below the root that no row names, sorted."""
    histogram: dict[str, dict[str, dict[str, int]]]
    """Task -> split -> class -> clips."""

    def lines(self) -> list[str]:
        """The report, for people."""
        told = [
            f"annotated {self.annotated}, found {self.found}, missing files {len(self.missing)}, "
            f"duplicates {len(self.duplicates)}, ignored media files {len(self.ignored)}"
        ]
        for what, names in (("missing", self.missing), ("duplicate", self.duplicates), ("ignored", self.ignored)):
            told += [f"{what}: {name}" for name in names[:20]]
            if len(names) > 20:
                told.append(f"{what}: ... and {len(names) - 20} more")
        for task, splits in self.histogram.items():
            for split, classes in splits.items():
                shown = ", ".join(f"{name} {count}" for name, count in list(classes.items())[:20])
                more = f", ... {len(classes) - 20} more classes" if len(classes) > 20 else ""
                told.append(f"{task}, {split}: {sum(classes.values())} labels: {shown}{more}")
        return told


def build(annotations: Sequence[Annotation], *, files: Iterable[str]) -> tuple[pa.Table, Preflight]:
    """The manifest of the annotated clips whose files exist, and the report on all of them.

    Rows may repeat each other word for word; two that share an id and nothing else are an error.
    """
    present = set(files)
    tasks = _tasks(annotations)
    index = {task.name: {name: i for i, name in enumerate(task.classes)} for task in tasks}
    rows: list[dict[str, Any]] = []
    missing: set[str] = set()
    duplicates: list[str] = []
    seen: dict[str, Annotation] = {}
    histogram: dict[str, dict[str, Counter[str]]] = {t.name: {s: Counter() for s in SPLITS} for t in tasks}
    for note in annotations:
        clip_id = note.clip_id or make_clip_id(note.uri, note.start_s, note.end_s)
        first = seen.setdefault(clip_id, note)
        if first is not note:
            _require_same(clip_id, first, note)
            duplicates.append(clip_id)
            continue
        if note.uri not in present:
            missing.add(note.uri)
            continue
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
        ignored=tuple(sorted(path for path in present - {note.uri for note in annotations} if is_media(path))),
        histogram={
            task: {split: dict(sorted(counts.items())) for split, counts in splits.items() if counts}
            for task, splits in histogram.items()
        },
    )
    return pa.Table.from_pylist(rows, manifest_schema(tasks)), report


def _require_same(clip_id: str, first: Annotation, again: Annotation) -> None:
    """Two rows with one id must be one row written twice: anything else loses a clip or a label without a word."""
    for field in fields(Annotation):
        one, other = getattr(first, field.name), getattr(again, field.name)
        if one != other:
            raise ValueError(
                f"two rows share the clip id {clip_id!r} but differ in {field.name}: {one!r} and {other!r}; "
                f"ids are unique, and several labels of one clip go into one cell, separated by {LABEL_SEPARATOR!r}"
            )


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
