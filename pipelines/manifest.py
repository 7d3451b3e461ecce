"""The clip manifest as a file: read and checked before any work starts, written whole or not at all."""

import os
from dataclasses import dataclass
from typing import Any, cast

import fsspec
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from schemas.conform import require_schema
from schemas.manifest import SPLITS, manifest_schema
from schemas.task import Task, decode_tasks

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""


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
            table = pq.read_table(file)
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
    table = table.select(schema.names).cast(pa.schema(list(schema), metadata=schema.metadata)).combine_chunks()
    counts = pc.value_counts(table["clip_id"].combine_chunks())
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        raise ValueError(
            f"{what}: clip_id {repeated[0]['values'].as_py()!r} occurs {repeated[0]['counts'].as_py()} times; "
            "ids must be unique"
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
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    temporary = f"{path}.tmp-{os.getpid()}"
    fs.pipe_file(temporary, sink.getvalue().to_pybytes())
    fs.mv(temporary, path)
