"""The clip manifest as a file: read and checked before any work starts, written whole or not at all."""

import os
from dataclasses import dataclass
from typing import Any, cast

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from schemas.conform import require_schema
from schemas.manifest import SPLITS, manifest_schema
from schemas.task import Task, decode_tasks

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""


SORTED_AT_ONCE = 1 << 16
"""Values taken in sorted order at a time, where repeated ones are looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A checked manifest."""

    table: pa.Table
    """Exactly the columns of `schemas.manifest_schema`, in its order."""
    tasks: tuple[Task, ...]
    """What the label columns mean."""


def read_manifest(path: str) -> Manifest:
    """Read and check a manifest: everything wrong with it is said before any work starts."""
    try:
        # Through fsspec, so that a manifest may lie wherever the videos and the dataset may.
        with cast("Any", fsspec.open(path, "rb")) as file:
            parquet = pq.ParquetFile(file)
            # Column by column: joining the pieces of all columns at once would hold everything twice.
            names = dict.fromkeys(parquet.schema_arrow.names)
            columns = [parquet.read(columns=[name])[name].combine_chunks() for name in names]
            table = pa.table(columns, schema=parquet.schema_arrow)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no manifest at {path}; make one with `gblend manifest`") from None
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file ({error}); make one with `gblend manifest`") from None
    return check_manifest(table, what=path)


def check_manifest(table: pa.Table, *, what: str) -> Manifest:
    """Schema, ids, splits, spans, labels and paths; ``what`` names the manifest in errors."""
    tasks = decode_tasks(table.schema.metadata, what=what)
    schema = manifest_schema(tasks)
    require_schema(table.schema, schema, what=what, remedy="write it with `gblend manifest`")
    if table.num_rows == 0:
        raise ValueError(f"{what} has no rows")
    for field in schema:  # Before the cast, which refuses them too, but not in words.
        if not field.nullable and table.column(field.name).null_count:
            raise ValueError(f"{what}: column {field.name!r} has empty cells; every clip needs one")
    table = table.select(schema.names).cast(pa.schema(list(schema), metadata=schema.metadata))
    if any(column.num_chunks != 1 for column in table.columns):
        table = table.combine_chunks()
    repeats, firsts = repeated_rows(table["clip_id"])
    if len(repeats):
        times = 1 + np.count_nonzero(firsts == firsts[0])
        raise ValueError(
            f"{what}: clip_id {table['clip_id'][int(firsts[0])].as_py()!r} occurs {times} times; ids must be unique"
        )
    unknown = sorted(set(pc.unique(table["split"]).to_pylist()) - set(SPLITS))
    if unknown:
        raise ValueError(f"{what}: unknown split {unknown[0]!r}; allowed: {', '.join(SPLITS)}")
    start, end = pc.fill_null(table["start_s"], 0.0), table["end_s"]
    bad = pc.or_kleene(pc.less(start, 0.0), pc.less_equal(end, start))
    _refuse(table, bad, what, "has a span that is empty or begins before 0")
    escape = pc.match_substring_regex(table["uri"], r"^/|^$|(^|[/\\])\.\.([/\\]|$)|^[A-Za-z][A-Za-z0-9+.-]*://")
    _refuse(table, escape, what, "has a uri that is not a plain path below the video root")
    for task in tasks:
        _check_labels(table, task, what)
    return Manifest(table=table, tasks=tasks)


def repeated_rows(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a column's values that an earlier row has, in order, and for each the first row that has it.

    By sorting, because a hash table of millions of ids takes several times their own memory.

    >>> [rows.tolist() for rows in repeated_rows(pa.array(["b", "a", "b", "b"]))]
    [[2, 3], [0, 0]]
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
    order = pc.sort_indices(values)  # Stable: the first of equal values comes first.
    same = np.zeros(len(values), bool)
    for first in range(0, len(values), SORTED_AT_ONCE):
        piece = values.take(order.slice(max(0, first - 1), SORTED_AT_ONCE + min(first, 1)))
        alike = pc.equal(piece.slice(1), piece.slice(0, len(piece) - 1))
        same[max(1, first) : first + SORTED_AT_ONCE] = alike.to_numpy(zero_copy_only=False)
    rows = order.to_numpy()
    leads = np.maximum.accumulate(np.where(same, 0, np.arange(len(rows))))
    repeats, firsts = rows[same].astype(np.int64), rows[leads[same]].astype(np.int64)
    in_order = np.argsort(repeats)
    return repeats[in_order], firsts[in_order]


def _refuse(table: pa.Table, bad: pa.ChunkedArray, what: str, problem: str) -> None:
    first = pc.index(pc.fill_null(bad, False), True).as_py()
    if first >= 0:
        row = table.slice(first, 1).to_pylist()[0]
        span = f"[{row['start_s']}, {row['end_s']})"
        raise ValueError(f"{what}: row {first} (uri {row['uri']!r}, span {span}) {problem}")


def _check_labels(table: pa.Table, task: Task, what: str) -> None:
    labels = table[task.column]
    values = pc.list_flatten(labels) if task.kind == "multi" else labels
    outside = pc.or_(pc.less(values, 0), pc.greater_equal(values, len(task.classes)))
    if pc.any(outside).as_py():
        worst = values.filter(outside)[0].as_py()
        raise ValueError(f"{what}: {task.column} holds {worst}, allowed are 0..{len(task.classes) - 1}")


def write_manifest(table: pa.Table, out: str) -> None:
    """Write a manifest as Parquet, whole or not at all."""
    fs, path = url_to_fs(out)
    if fs.isdir(path):
        # Moving the file there would put it inside, under a temporary name.
        raise IsADirectoryError(f"{out} is a directory; name a file, such as {os.path.join(out, 'clips.parquet')}")
    parent = os.path.dirname(path)
    if parent:
        fs.makedirs(parent, exist_ok=True)
    temporary = f"{path}.tmp-{os.getpid()}"
    try:
        with cast("Any", fs.open(temporary, "wb")) as file:
            pq.write_table(table, file, compression="zstd")
    except BaseException:
        if fs.exists(temporary):
            fs.rm_file(temporary)
        raise
    fs.mv(temporary, path)
