"""Which manifest row goes into which shard. Decided once, from the manifest alone, before anything runs.

Rows are taken split by split, ``clips_per_shard`` at most: the same manifest gives the same shards on any cluster, and
a shard is the unit of work, of writing and of resuming. The clips of one source file lie together, so that it is opened
and decoded once; sources keep the order in which the manifest names them first.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from pipelines.manifest import Manifest, repeated_rows
from schemas.layout import shard_name
from schemas.manifest import SPLITS
from schemas.task import decode_tasks

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardPlan:
    """One shard to be made."""

    name: str
    """Directory relative to the dataset."""
    split: str
    """train, val or test."""
    positions: np.ndarray
    """Which manifest rows, in order."""


def plan_shards(manifest: Manifest, *, clips_per_shard: int) -> list[ShardPlan]:
    """Every shard of a dataset, in order."""
    if clips_per_shard < 1:
        raise ValueError(f"clips_per_shard must be at least 1, got {clips_per_shard}")
    table = manifest.table
    # A source goes by its first row, which keeps the order of first appearance.
    repeats, firsts = repeated_rows(table["uri"])
    sources = np.arange(table.num_rows)
    sources[repeats] = firsts
    ends_s = pc.fill_null(table["end_s"], np.inf).to_numpy()
    starts_s = pc.fill_null(table["start_s"], 0.0).to_numpy()
    plans = []
    for split in SPLITS:
        rows = np.flatnonzero(pc.equal(table["split"], split).to_numpy())
        # By end: the order in which one pass over a source completes its clips.
        rows = rows[np.lexsort((rows, starts_s[rows], ends_s[rows], sources[rows]))]
        for index, (first, last) in enumerate(_bounds(sources[rows], clips_per_shard)):
            plans.append(ShardPlan(name=shard_name(split, index), split=split, positions=rows[first:last]))
    return plans


def _bounds(sources: np.ndarray, clips_per_shard: int) -> list[tuple[int, int]]:
    """Where shards begin and end in rows sorted by source: sources stay whole unless they alone exceed a shard.

    >>> _bounds(np.array([0, 0, 1, 1, 2, 3, 3, 3, 3, 3]), 3)
    [(0, 2), (2, 5), (5, 8), (8, 10)]
    """
    ends = np.append(np.flatnonzero(np.diff(sources)) + 1, len(sources)).tolist()
    bounds, first, last = [], 0, 0
    for end in ends if len(sources) else []:
        if end - first > clips_per_shard and last > first:
            bounds.append((first, last))
            first = last
        while end - first > clips_per_shard:
            bounds.append((first, first + clips_per_shard))
            first += clips_per_shard
        last = end
    return [*bounds, (first, last)] if last > first else bounds


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
