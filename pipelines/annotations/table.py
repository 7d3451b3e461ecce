"""Annotations: which clips a dataset is said to hold, before anybody looked whether their files exist.

One Arrow table, one row a clip, whatever the dataset. Adapters check whole columns at once; a row that fails a check is
a bad row with the reason of its first failure, and the file is refused unless told to leave such rows out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute

from pipelines.annotations.cells import SPLIT_ALIASES, BadRow
from schemas.manifest import SPLITS
from schemas.task import LABEL_PREFIX, Task

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""

BadRows = Literal["refuse", "report"]
"""Refuse annotations with bad rows, or leave the rows out and list them in the report."""

MatchedBy = Literal["path", "stem"]
"""Whether clips name a file by its path below the video root, or by its name without folder and ending."""

NUMBER = r"^(\d{1,15}(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?$"
"""A number from 0 on, as text."""

VIDEO_ID = r"^[A-Za-z0-9_-]{11}$"
"""A YouTube id. It may begin with ``-`` and hold ``_``, so nothing may be split at either."""

FIELDS = {
    "name": pa.string(),
    "split": pa.string(),
    "start_s": pa.float64(),
    "end_s": pa.float64(),
    "length_s": pa.float64(),
    "clip_id": pa.string(),
    "group": pa.string(),
    "video": pa.string(),
    "source": pa.int16(),
    "line": pa.int32(),
}
"""Columns of `Annotations.table` before the label columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotations:
    """The annotated clips of a dataset."""

    table: pa.Table
    """Columns ``name`` (see ``matched_by``), ``split``, ``start_s`` and ``end_s`` (null: the file's own ends),
    ``length_s`` (annotated length, also where the file is cut already), ``clip_id`` (null: derived from path and span),
    ``group`` and ``video`` (null: the path), ``source`` and ``line`` (where the row stands), and ``label.TASK``."""
    tasks: tuple[Task, ...]
    """What the label columns mean."""
    sources: tuple[str, ...] = ()
    """Names of the annotation files, which ``table["source"]`` counts."""
    matched_by: MatchedBy = "path"
    """What ``table["name"]`` is."""
    ending: str | None = None
    """Only files that end so are meant, such as ``.wav``."""
    bad: tuple[BadRow, ...] = ()
    """Rows that were left out."""
    notes: tuple[str, ...] = ()
    """What else a reader of the report should know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """One task's labels as class indices."""

    task: Task
    """What they mean."""
    column: Any
    """int32, or list<int32>; null: not labelled."""
    unknown: np.ndarray
    """Rows with a label that is no class."""


class Rows:
    """Rows of text cells on their way to annotations, and the verdict on each."""

    def __init__(
        self, tables: Sequence[pa.Table], *, sources: Sequence[str], bad: Sequence[BadRow], bad_rows: BadRows
    ) -> None:
        self.bad_rows = bad_rows
        self.cells = pa.concat_tables(tables, promote_options="default")
        self.sources = tuple(sources)
        self.bad = list(bad)
        self.good = np.ones(self.cells.num_rows, bool)
        if not self.cells.num_rows:
            first = f"; the first of {len(bad)} bad ones: {bad[0]}" if bad else ""
            raise ValueError(f"{', '.join(sources)} has no rows{first}")

    def __contains__(self, name: str) -> bool:
        return name in self.cells.column_names

    def __getitem__(self, name: str) -> Any:
        """A column of cells; nothing but nulls where no file has it."""
        return self.cells[name] if name in self else pa.chunked_array([pa.nulls(len(self.good), pa.string())])

    def reject(self, failed: Any, reason: Callable[[dict[str, Any]], str]) -> None:
        """Count rows as bad, unless they are already; ``reason`` is told the row's cells. Null is not failed."""
        mask = failed if isinstance(failed, np.ndarray) else to_mask(failed)
        for position in np.flatnonzero(mask & self.good):
            row = self.cells.slice(int(position), 1).to_pylist()[0]
            self.bad.append(BadRow(source=self.sources[row["source"]], line=row["line"], reason=reason(row)))
        self.good[mask] = False

    def matching(self, name: str, pattern: str, reason: Callable[[dict[str, Any]], str]) -> Any:
        """A column of which every cell that is not null must match, with null where it does not."""
        text = self[name]
        fits = pc.match_substring_regex(text, pattern)
        if pc.all(fits).as_py() is not False:
            return text
        self.reject(pc.invert(fits), reason)
        return pc.if_else(fits, text, pa.scalar(None, pa.string()))

    def seconds(self, name: str) -> Any:
        """A column of seconds. An empty cell is null, anything but a number from 0 on a bad row."""
        text = self.matching(
            name,
            f"^$|{NUMBER}",
            lambda row: f"{name} must be seconds, got {row[name]!r}; allowed: a number from 0 on, or nothing",
        )
        return pc.cast(pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text), pa.float64())

    def splits(self) -> Any:
        """The column ``split`` with our names of the splits; any other name is a bad row."""
        split = pc.utf8_lower(self["split"])
        for alias, name in SPLIT_ALIASES.items():
            split = pc.if_else(pc.equal(split, alias), name, split)
        self.reject(
            pc.invert(pc.is_in(split, pa.array(SPLITS))),
            lambda row: f"split {row['split']!r} is unknown; allowed: {', '.join(SPLITS)}",
        )
        return split

    def video_ids(self) -> Any:
        """The column ``id`` as YouTube ids; anything else is a bad row."""
        return self.matching(
            "id",
            VIDEO_ID,
            lambda row: f"video id {row['id']!r} is not 11 letters, digits, '-' or '_'",
        )

    def whole_seconds(self, name: str) -> Any:
        """A column of whole seconds as six digits, as file names spell them."""
        text = self.matching(
            name,
            r"^\d{1,6}(\.0*)?$",
            lambda row: f"{name} must be whole seconds of at most six digits, got {row[name]!r}",
        )
        return pc.utf8_lpad(pc.replace_substring_regex(text, r"\..*$", ""), 6, "0")

    def require_spans(self, start_s: Any, end_s: Any) -> None:
        """Reject rows that end before they have begun."""
        self.reject(
            pc.less_equal(end_s, pc.fill_null(start_s, 0.0)),
            lambda row: f"end must be after start, which is {float(row.get('start') or 0)} s, got {row['end']!r}",
        )

    def require_known(self, labels: Labels, column: str, *, where: str) -> None:
        """Reject rows with a label that is no class; ``where`` says what names the classes."""
        self.reject(labels.unknown, lambda row: f"label {row[column]!r} is not in {where}")

    def settle(self) -> tuple[BadRow, ...]:
        """The bad rows so far in file order; an error if there should be none, or if there is nothing else."""
        bad = sorted(self.bad, key=lambda row: (self.sources.index(row.source), row.line))
        if bad and not self.good.any():
            raise ValueError(f"{bad[0]}; no row can be used, all {len(bad)} are bad")
        if bad and self.bad_rows == "refuse":
            raise ValueError(f"{bad[0]}; bad rows: {len(bad)}; --bad-rows report leaves them out and lists them")
        return tuple(bad)

    def labels(
        self, column: str, task: str, *, classes: Sequence[str] | None = None, keys: Sequence[str] | None = None
    ) -> Labels:
        """A column of one class name (or key) each; without ``classes``, they are what the good rows hold."""
        text = pc.if_else(pc.equal(self[column], ""), pa.scalar(None, pa.string()), self[column])
        if classes is None:
            self.settle()
            classes = _ordered(text.filter(pa.array(self.good)), task)
        index = pc.index_in(text, pa.array(keys or classes, pa.string()))
        unknown = to_mask(pc.and_(pc.is_valid(text), pc.is_null(index)))
        return Labels(task=Task(name=task, kind="single", classes=tuple(classes)), column=index, unknown=unknown)

    def many_labels(
        self,
        column: str,
        task: str,
        *,
        separator: str,
        kind: Literal["multi", "as found"],
        classes: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
    ) -> Labels:
        """A column of any number of class names (or keys) each; ``as found``: single if no cell has several."""
        cells = _split_cells(self[column], separator)
        if classes is None:
            self.settle()
            told = [names.filter(pa.array(self.good[parents])) for parents, names in cells]
            classes = _ordered(pa.chunked_array(told, pa.string()), task)
            cells = _split_cells(self[column], separator)
        known_at, codes_at = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        unknown = np.zeros(len(self.good), bool)
        key_set = pa.array(keys or classes, pa.string())
        for parents, names in cells:
            index = pc.index_in(names, key_set)
            known = to_mask(pc.is_valid(index))
            unknown[parents[~known]] = True
            parents, codes = parents[known], index.drop_null().to_numpy()
            # A label told twice in a cell is one label.
            _, first = np.unique(parents * len(key_set) + codes, return_index=True)
            first.sort()
            known_at.append(parents[first])
            codes_at.append(codes[first])
        parents, codes = np.concatenate(known_at), np.concatenate(codes_at)
        counts = np.bincount(parents, minlength=len(self.good))
        if kind == "as found" and (counts[self.good] <= 1).all():
            single = np.zeros(len(counts), np.int32)
            single[parents] = codes
            found = Task(name=task, kind="single", classes=tuple(classes))
            return Labels(task=found, column=pa.array(single, pa.int32(), mask=counts == 0), unknown=unknown)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        column_values = pa.ListArray.from_arrays(
            pa.array(offsets), pa.array(codes, pa.int32()), mask=pa.array(counts == 0)
        )
        return Labels(task=Task(name=task, kind="multi", classes=tuple(classes)), column=column_values, unknown=unknown)

    def finish(
        self,
        columns: Mapping[str, Any],
        labels: Sequence[Labels],
        *,
        matched_by: MatchedBy,
        ending: str | None = None,
        notes: Sequence[str] = (),
    ) -> Annotations:
        """The good rows as annotations, or the error that there are bad ones."""
        bad = self.settle()
        every = {name: columns.get(name) for name in FIELDS} | {name: self[name] for name in ("source", "line")}
        every |= {LABEL_PREFIX + label.task.name: label.column for label in labels}
        self.cells = self.cells.select([])  # The text is read; what it was turned into is all that is kept.
        made: dict[str, Any] = {}
        flat_by_id: dict[int, Any] = {}
        for name, column in every.items():
            if column is None:
                made[name] = pa.nulls(int(np.count_nonzero(self.good)), FIELDS[name])
                continue
            if id(column) not in flat_by_id:  # One id of a video is its name and group as well.
                flat_by_id[id(column)] = flat(column if self.good.all() else column.filter(pa.array(self.good)))
            made[name] = flat_by_id[id(column)]
        give_back()
        return Annotations(
            table=pa.table(made),
            tasks=tuple(label.task for label in labels),
            sources=self.sources,
            matched_by=matched_by,
            ending=ending,
            bad=bad,
            notes=tuple(notes),
        )


def flat(column: Any) -> Any:
    """A column in one piece, without a copy where it is in one already."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def give_back() -> None:
    """Return to the system what Arrow's pool has freed but keeps, which between joins is most of it."""
    pa.default_memory_pool().release_unused()


def to_mask(values: Any) -> np.ndarray:
    """Arrow booleans as numpy ones, null being false."""
    return np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False), dtype=bool)


def _split_cells(column: Any, separator: str) -> Iterator[tuple[np.ndarray, Any]]:
    """For every chunk of cells, the parts that are not blank, and the row of each."""
    first = 0
    for chunk in column.chunks:
        lists = pc.split_pattern(chunk, separator)
        parents = pc.list_parent_indices(lists).to_numpy().astype(np.int64) + first
        names = pc.utf8_trim_whitespace(pc.list_flatten(lists))
        told = to_mask(pc.not_equal(names, ""))
        yield (parents, names) if told.all() else (parents[told], names.filter(pa.array(told)))
        first += len(chunk)


def _ordered(names: Any, task: str) -> list[str]:
    """The classes among labels: whole numbers sort as numbers, anything else as text."""
    found = pc.unique(names.drop_null()).to_pylist()
    if not found:
        raise ValueError(f"task {task!r} has no label in any row")
    if all(name.removeprefix("-").isascii() and name.removeprefix("-").isdigit() for name in found):
        return sorted(found, key=lambda name: (int(name), name))
    return sorted(found)
