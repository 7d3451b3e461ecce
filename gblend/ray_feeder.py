"""Batches from Ray Data (``--ingest ray``): windows are read and cut by CPUs anywhere in the cluster, beside GPUs.

A worker sends out which windows make its next batches and gets the batches back, in that order and cut where they are
to be cut: the same samples as from its own loader processes, to the bit, none dropped, in training and in measuring
alike. What Ray Data adds is where the work is done; what it costs is that windows travel through the object store.

A loop over an epoch is a Ray Data execution of its own, of tasks rather than actors: Ray keeps the processes of tasks,
and an execution then begins in milliseconds, where actors would each import torch anew. Each worker has an equal share
of the CPUs that training leaves.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from ray.data import ExecutionResources, TaskPoolStrategy

from gblend.batches import Batch, collate
from gblend.clip_dataset import ClipDataset, Draw
from gblend.data import RunData
from gblend.handover import Failure

Columns = dict[str, np.ndarray]
"""One value a clip: ``position``, ``enlarged``, and by key ``labels.KEY``, ``arrays.NAME``, ``present.NAME``."""

FAILURE = "failure"
"""The one column in place of those of a batch that could not be read."""

OPEN_SETS = 8
"""Sets of clips that a process of Ray's keeps open: splits, and the modalities of branches."""

AHEAD = 2
"""Batches that are on their way to a worker while it trains on another."""


def feed_from_ray(data: RunData, *, readers: int) -> None:
    """Have all sets of clips of this worker read by Ray's processes, so many at a time."""
    named = {"train": data.train, "heldout": data.heldout, **data.splits}
    sets = {name: clips for name, clips in named.items() if isinstance(clips, ClipDataset)}
    feeder = RayFeeder(sets, readers=readers)
    for name, clips in sets.items():
        clips.feed = partial(feeder.batches, name)


class RayFeeder:
    """Batches of several sets of clips, for one training worker."""

    def __init__(self, sets: Mapping[str, ClipDataset], *, readers: int) -> None:
        self._sources = {name: ray.put(clips.to_read()) for name, clips in sets.items()}
        self._readers = readers

    def batches(self, name: str, modalities: tuple[str, ...], draws: Sequence[Sequence[Draw]]) -> Iterator[Batch]:
        """Batches of one set, in order."""
        asked = ray.data.from_arrow([_table(batch) for batch in draws])
        asked.context.execution_options.preserve_order = True
        asked.context.execution_options.resource_limits = ExecutionResources.for_limits(cpu=self._readers)
        asked.context.enable_progress_bars = False
        made = asked.map_batches(
            cast(Any, _cut),
            fn_kwargs={"clips": self._sources[name], "modalities": modalities},
            batch_size=None,
            batch_format="pyarrow",
            compute=TaskPoolStrategy(size=self._readers),
            num_cpus=1,
        )
        parts = made.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=AHEAD)
        for columns in recut(_whole(cast(Iterable[Columns], parts)), [len(batch) for batch in draws]):
            yield _batch(columns)


def _cut(asked: pa.Table, *, clips: ray.ObjectRef, modalities: tuple[str, ...]) -> Columns:
    """The windows of a batch, in a process of Ray's; or what went wrong, which Ray would drown in advice."""
    try:
        source = _opened(clips, modalities)
        batch = collate([source[draw] for draw in _draws(asked)])
    except Exception as error:
        return {FAILURE: np.array([json.dumps(asdict(Failure.of(error)))])}
    parts = {"labels": batch.labels, "arrays": batch.arrays, "present": batch.present}
    columns = {f"{part}.{key}": values for part, named in parts.items() for key, values in named.items()}
    columns |= {"position": batch.position, "enlarged": batch.enlarged}
    return {key: values.numpy() for key, values in columns.items()}


def _whole(parts: Iterable[Columns]) -> Iterator[Columns]:
    """The same parts, up to one that is a failure, which is raised."""
    for part in parts:
        if FAILURE in part:
            raise Failure(**json.loads(str(part[FAILURE][0]))).as_error()
        yield part


@lru_cache(maxsize=OPEN_SETS)
def _opened(clips: ray.ObjectRef, modalities: tuple[str, ...]) -> ClipDataset:
    """A set of clips, its files open for the tasks that come to this process later."""
    torch.set_num_threads(1)
    return ray.get(clips).only(modalities)


def recut(parts: Iterable[Columns], sizes: Sequence[int]) -> Iterator[Columns]:
    """The same rows in pieces of these sizes, however they came: nothing depends on Ray's blocks.

    >>> parts = [{"x": np.array([1, 2, 3])}, {"x": np.array([4])}, {"x": np.array([5, 6])}]
    >>> [piece["x"].tolist() for piece in recut(parts, [2, 2, 2])]
    [[1, 2], [3, 4], [5, 6]]
    """
    coming, held, rows = iter(parts), list[Columns](), 0
    for size in sizes:
        while rows < size:
            part = next(coming)
            held.append(part)
            rows += len(next(iter(part.values())))
        whole = held[0] if len(held) == 1 else {key: np.concatenate([part[key] for part in held]) for key in held[0]}
        yield {key: values[:size] for key, values in whole.items()}
        rows -= size
        held = [{key: values[size:] for key, values in whole.items()}] if rows else []


def _table(draws: Sequence[Draw]) -> pa.Table:
    """Which windows to cut. Seeds are numbers of any size, so they travel as text."""
    entropies = [None if entropy is None else [str(number) for number in entropy] for _, entropy in draws]
    return pa.table(
        {
            "position": pa.array([position for position, _ in draws], pa.int64()),
            "entropy": pa.array(entropies, pa.list_(pa.string())),
        }
    )


def _draws(asked: pa.Table) -> list[Draw]:
    """The inverse of `_table`."""
    rows = zip(asked["position"].to_pylist(), asked["entropy"].to_pylist(), strict=True)
    return [(position, None if entropy is None else tuple(map(int, entropy))) for position, entropy in rows]


def _batch(columns: Columns) -> Batch:
    # Ray's arrays are views of its store, which nobody may write to.
    tensors = {key: torch.from_numpy(np.array(values)) for key, values in columns.items()}
    named = {
        part: {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}
        for part in ("labels", "arrays", "present")
    }
    return Batch(position=tensors["position"], enlarged=tensors["enlarged"], **named)
