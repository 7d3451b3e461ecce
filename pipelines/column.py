"""Add a modality of the user's own to a finished dataset: one more file in every shard, and its spec in the documents.

Nothing that is stored is computed anew or touched. The user's file is read and checked before the first shard changes;
``dataset.json`` comes last, so that a job that was killed leaves the dataset as it was, and run again finishes it.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from pipelines.scratch import process_scratch
from pipelines.shards import without
from pipelines.state import find_done
from pipelines.store import Store, sha256_of
from pipelines.tensors import Tensors, read_tensors
from schemas.layout import CLIPS_FILE, DATASET_FILE, DONE_FILE, LEDGER_FILE, DatasetInfo, ShardDone, feature_file
from schemas.store_errors import refuse_credentials
from schemas.tensor import TensorSpec, require_own_name, spec_of, tensor_schema

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnConfig:
    """What to add to what."""

    data: str
    """Dataset directory: local path or fsspec URL."""
    name: str
    """Of the modality."""
    values: str
    """The user's file: local path or fsspec URL."""
    on_change: Literal["refuse", "redo"] = "refuse"
    """What to do when the dataset has a column of this name with other values."""

    def __post_init__(self) -> None:
        for url in (self.data, self.values):
            refuse_credentials(url)
        require_own_name(self.name, what="name")


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnSummary:
    """What came of it."""

    spec: TensorSpec
    """What is stored."""
    clips: int
    """Clips of the dataset."""
    present: int
    """Of these, clips that have the tensor."""
    elsewhere: int
    """Rows of the file whose clip preprocessing could not store."""
    shards: int
    """Shards of the dataset."""
    kept_shards: int
    """Of these, shards that held the same already."""


def add_column(config: ColumnConfig, *, say: Callable[[str], None] = print) -> ColumnSummary:
    """Write ``<name>.arrow`` into every shard, then ``dataset.json``. ``say`` receives progress.

    Raises:
        ValueError: The dataset is not finished, the file does not fit it, or it has another column of this name.
    """
    store, name = Store(config.data), config.name
    text = store.read(DATASET_FILE)
    if text is None:
        raise ValueError(f"{config.data} is not a finished dataset (no {DATASET_FILE}); run `gblend preprocess` first")
    info = DatasetInfo.loads(text.decode(), what=store.path(DATASET_FILE))
    done = {shard.name: _done(store, shard.name, config.data) for shard in info.shards}
    ids = {shard.name: _clip_ids(store, shard.name) for shard in info.shards}
    clip_ids = [clip_id for found in ids.values() for clip_id in found]
    tensors = read_tensors(
        config.values,
        name=name,
        clip_ids=clip_ids,
        training=np.repeat([s.split == "train" for s in info.shards], [len(ids[s.name]) for s in info.shards]),
        failed=_not_stored(store),
        room=process_scratch(),
    )
    old = info.columns.get(name)
    if old is not None and old != tensors.spec:
        if config.on_change == "refuse":
            raise ValueError(
                f"{config.data} has a column {name!r} with other values (shape {old.shape}, these "
                f"{tensors.spec.shape}); choose another --name, or replace it with --on-change redo"
            )
        # While shards change, no reader may take them for the old ones or the new ones.
        info = replace(info, columns={column: spec for column, spec in info.columns.items() if column != name})
        store.write(DATASET_FILE, info.dumps().encode())
    kept, start, present = 0, 0, Counter({shard.split: 0 for shard in info.shards})
    for shard in info.shards:
        rows = slice(start, start + len(ids[shard.name]))
        start = rows.stop
        if _is_there(done[shard.name], name, tensors.spec):
            kept += 1
        else:
            _write(store, shard.name, done[shard.name], name=name, tensors=tensors, rows=rows, clip_ids=clip_ids[rows])
        present[shard.split] += int(tensors.has[rows].sum())
        say(f"column: {shard.name} has {name} for {int(tensors.has[rows].sum())} of {rows.stop - rows.start} clips")
    counts = {split: {**found, name: present[split]} for split, found in info.present.items()}
    info = replace(info, columns={**info.columns, name: tensors.spec}, present=counts)
    store.write(DATASET_FILE, info.dumps().encode())
    return ColumnSummary(
        spec=tensors.spec,
        clips=len(clip_ids),
        present=int(tensors.has.sum()),
        elsewhere=tensors.elsewhere,
        shards=len(info.shards),
        kept_shards=kept,
    )


def kept_columns(store: Store, shards: dict[str, ShardDone]) -> dict[str, TensorSpec]:
    """Columns that every one of these finished shards holds with the same values, by name."""
    documents = list(shards.values())
    names = sorted({name for done in documents for name in done.fingerprints if "column" in done.specs.get(name, {})})
    found = {}
    for name in names:
        if len({done.fingerprints.get(name) for done in documents}) == 1:
            shard = next(iter(shards))
            data = store.read(f"{shard}/{feature_file(name)}")
            assert data is not None, "a finished shard has this file"
            what = store.path(f"{shard}/{feature_file(name)}")
            found[name] = spec_of(pa.ipc.open_file(data).schema, what=what)
    return found


def columns_of(shards: dict[str, ShardDone]) -> set[str]:
    """Names of the columns that some of these shards hold."""
    return {name for done in shards.values() for name, spec in done.specs.items() if "column" in spec}


def _done(store: Store, shard: str, data: str) -> ShardDone:
    found = find_done(store, shard)
    if found is None:
        raise ValueError(f"shard {shard} of {data} is not finished; run `gblend preprocess` again first")
    return found


def _clip_ids(store: Store, shard: str) -> list[str]:
    data = store.read(f"{shard}/{CLIPS_FILE}")
    assert data is not None, "a finished shard has this file"
    return pa.ipc.open_file(data).read_all()["clip_id"].to_pylist()


def _not_stored(store: Store) -> set[str]:
    """Clips of the manifest that preprocessing could not store."""
    data = store.read(LEDGER_FILE)
    if data is None:
        return set()
    ledger = pq.read_table(pa.BufferReader(data), columns=["clip_id", "status"])
    return set(ledger.filter(pc.not_equal(ledger["status"], "ok"))["clip_id"].to_pylist())


def _is_there(done: ShardDone, name: str, spec: TensorSpec) -> bool:
    return done.fingerprints.get(name) == spec.fingerprint() and feature_file(name) in done.sizes


def _write(
    store: Store, shard: str, done: ShardDone, *, name: str, tensors: Tensors, rows: slice, clip_ids: list[str]
) -> None:
    """The file of one shard and its entry in the shard's document."""
    file = feature_file(name)
    store.clear_unfinished(shard)
    if file in done.sizes:
        # A file that is about to be replaced must not be taken for the finished one should this be the last we do.
        done = without(done, (name,))
        store.write(f"{shard}/{DONE_FILE}", done.dumps().encode())
    schema = tensor_schema(name, tensors.spec)
    with store.publish([f"{shard}/{file}"]) as paths:
        path = paths[f"{shard}/{file}"]
        with pa.ipc.new_file(path, schema) as writer:
            for clip_id, has, values in zip(clip_ids, tensors.has[rows], tensors.values[rows], strict=True):
                cell = pa.ListArray.from_arrays([0, len(values)], pa.array(np.array(values)))
                column = cell if has else pa.nulls(1, cell.type)
                arrays = [pa.array([clip_id]), pa.array([bool(has)]), column.cast(schema.field("values").type)]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
        done = replace(
            done,
            present={**done.present, name: int(tensors.has[rows].sum())},
            fingerprints={**done.fingerprints, name: tensors.spec.fingerprint()},
            specs={**done.specs, name: tensors.spec.describe()},
            checksums={**done.checksums, file: sha256_of(path)},
            sizes={**done.sizes, file: os.path.getsize(path)},
        )
    store.write(f"{shard}/{DONE_FILE}", done.dumps().encode())
