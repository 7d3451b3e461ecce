"""Which manifest row goes into which shard. Decided once, from the manifest alone, before anything runs.

Rows are taken split by split in manifest order, ``clips_per_shard`` at a time: the same manifest gives the same shards
on any cluster, and a shard is the unit of work, of writing and of resuming.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, cast

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from schemas.conform import require_schema
from schemas.layout import shard_name
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardPlan:
    """One shard to be made."""

    name: str
    """Directory relative to the dataset."""
    split: str
    """train, val or test."""
    positions: np.ndarray
    """Which manifest rows, in order."""


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


def plan_shards(manifest: Manifest, *, clips_per_shard: int) -> list[ShardPlan]:
    """Every shard of a dataset, in order."""
    if clips_per_shard < 1:
        raise ValueError(f"clips_per_shard must be at least 1, got {clips_per_shard}")
    splits = manifest.table["split"].to_numpy(zero_copy_only=False)
    plans = []
    for split in SPLITS:
        rows = np.flatnonzero(splits == split)
        for index, first in enumerate(range(0, len(rows), clips_per_shard)):
            positions = rows[first : first + clips_per_shard]
            plans.append(ShardPlan(name=shard_name(split, index), split=split, positions=positions))
    return plans


def rows_hash(rows: pa.Table) -> str:
    """SHA-256 of manifest rows and the meaning of their labels, whatever file or library version they came from."""
    tasks = decode_tasks(rows.schema.metadata, what="manifest rows")
    said = {"rows": rows.to_pylist(), "tasks": [[t.name, t.kind, list(t.classes)] for t in tasks]}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def to_bytes(table: pa.Table) -> bytes:
    """A table as Arrow IPC stream bytes: how manifest rows and ledgers travel between processes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_bytes(data: bytes) -> pa.Table:
    """The inverse of `to_bytes`."""
    return pa.ipc.open_stream(data).read_all()


def is_shard_name(name: str) -> bool:
    """Whether a path relative to the dataset names a shard.

    >>> is_shard_name("train/00012"), is_shard_name("train/notes")
    (True, False)
    """
    return re.fullmatch(rf"({'|'.join(SPLITS)})/\d{{5,}}", name) is not None
