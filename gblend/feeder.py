"""Loader processes: they cut windows while the network computes, and stay for as long as a worker trains.

One pool serves all sets of clips of a worker, training and measuring alike, because they take turns and a process costs
seconds to start: what is to be read travels with each request. What a window holds is decided by its request alone, so
neither the number of processes nor which of them reads it changes a bit.

Processes come from a fork server. A plain fork would copy a Ray worker with its threads, and with whatever lock one of
them holds at that moment; a spawned process would import torch anew, each of them. The server is a clean process that
imports once. A killed worker takes its processes with it: each waits for the end of its parent.
"""

import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from gblend.batches import Batch, collate
from gblend.clip_dataset import ClipDataset, Draw, Sample, WindowDataset
from gblend.config import ComputeConfig
from gblend.handover import Failure, Parcel, no_process, packed
from gblend.prefetch import Prefetch
from gblend.shard_cache import GIB, ShardCache
from gblend.viewed import ViewedClips
from schemas import feature_file

Clips = ClipDataset | ViewedClips
"""What is read: one window of each clip, or all."""

Request = tuple[str, tuple[str, ...], Draw]
"""Name of a set, the modalities wanted, and the window."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Feeding:
    """How a worker gets its batches; it decides no value in them."""

    processes: int = 0
    """Loader processes; 0: windows are cut between the steps, by the process that trains."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where batches go: to a GPU they travel from pinned memory."""
    cache: ShardCache | None = None
    """For data that are not on a file system of this machine; None: they are read by ranges."""

    @classmethod
    def of(cls, compute: ComputeConfig, *, device: torch.device, workers_here: int) -> "Feeding":
        """That of one of ``workers_here`` workers on a node."""
        cache = ShardCache(
            compute.cache_dir,
            limit_bytes=int(compute.cache_gib * GIB),
            sharers=workers_here * max(1, compute.loader_processes),
        )
        return cls(processes=compute.loader_processes, device=device, cache=cache)


def tight_cache(sets: Iterable[WindowDataset]) -> str | None:
    """A line for a cache that cannot hold all that an epoch reads in shuffled order; None when all is well."""
    stored = [clips for clips in sets if isinstance(clips, ClipDataset)]
    if not stored or (cache := stored[0].reader.files.cache) is None:
        return None
    names = {(shard, feature_file(m)) for clips in stored for shard in clips.index.shards for m in clips.reads}
    needed, limit = stored[0].reader.files.total_bytes(names), cache.limit_bytes
    if needed <= limit:
        return None
    return (
        f"the cache of a node may hold {limit / GIB:.3g} GiB and an epoch reads {needed / GIB:.3g} GiB in shuffled "
        "order: files will be fetched again and again; raise --cache-gib if the disk has room"
    )


class Feeder:
    """Batches of several sets of clips, from processes that they share."""

    def __init__(self, sets: Mapping[str, Clips], feeding: Feeding) -> None:
        self._source = _Sets({name: clips.to_read() for name, clips in sets.items()})
        self._feeding = feeding
        self._requests = _Requests()
        self._loader: DataLoader | None = None
        self._turn = 0

    def batches(self, name: str, modalities: tuple[str, ...], draws: Sequence[Sequence[Draw]]) -> Iterator[Batch]:
        """Batches of one set, in order. A loop that is left early costs nothing but what was read ahead.

        Raises:
            ValueError: What reading a clip raised, as if it were read here.
            RuntimeError: Anything else that happened in a loader process, or its end.
        """
        self._turn += 1
        turn = self._turn
        self._requests.batches = [[(name, modalities, draw) for draw in batch] for batch in draws]
        if self._loader is None:
            self._loader = self._start()
        with self._ahead(name, modalities, draws) as reached:
            yield from self._batches(iter(self._loader), turn, reached)

    def _batches(
        self, batches: Iterator[Batch | Failure], turn: int, reached: Callable[[int], object]
    ) -> Iterator[Batch]:
        for step in itertools.count():
            assert turn == self._turn, "one loop over a feeder at a time: the processes are shared"
            try:
                made = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
                    raise
                raise no_process(error) from error
            if isinstance(made, Failure):
                raise made.as_error()
            reached(step)
            yield made

    @contextmanager
    def _ahead(
        self, name: str, modalities: tuple[str, ...], draws: Sequence[Sequence[Draw]]
    ) -> Iterator[Callable[[int], object]]:
        """While batches are read, files of coming ones are fetched; to be told which batch was read."""
        clips = self._source.part(name, modalities)
        if (cache := clips.reader.files.cache) is None:
            yield lambda step: None
            return
        steps = [[(clips.shard_of(i), feature_file(m)) for i, _ in batch for m in clips.reads] for batch in draws]
        prefetch = Prefetch(clips.reader.files, steps, ahead_bytes=cache.mapped_bytes)
        try:
            yield prefetch.reached
        finally:
            prefetch.close()

    def _start(self) -> DataLoader:
        # A generator of its own: a DataLoader otherwise draws its base seed from torch's global one.
        shared = {"generator": torch.Generator().manual_seed(0), "pin_memory": self._feeding.device.type == "cuda"}
        source = cast(Dataset, self._source)
        if self._feeding.processes == 0:
            return DataLoader(source, batch_sampler=self._requests, collate_fn=_collate, **shared)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["__main__", __name__])
        return DataLoader(
            source,
            batch_sampler=self._requests,
            collate_fn=_pack,
            num_workers=self._feeding.processes,
            persistent_workers=True,
            multiprocessing_context=context,
            worker_init_fn=_begin,
            **shared,
        )


class _Requests:
    """The batch sampler of all loops: what the next one reads is put into it."""

    def __init__(self) -> None:
        self.batches: list[list[Request]] = []

    def __iter__(self) -> Iterator[list[Request]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Sets:
    """All sets of clips by name, as one set of requests."""

    def __init__(self, sets: Mapping[str, Clips]) -> None:
        self._sets = dict(sets)
        self._parts: dict[tuple[str, tuple[str, ...]], Clips] = {}

    def part(self, name: str, modalities: tuple[str, ...]) -> Clips:
        """A set, bringing these modalities."""
        part = self._parts.get((name, modalities))
        if part is None:
            part = self._parts[name, modalities] = self._sets[name].only(modalities)
        return part

    def __getitem__(self, request: Request) -> Sample | Failure:
        name, modalities, draw = request
        try:
            return self.part(name, modalities)[draw]
        except Exception as error:
            return Failure.of(error)


def _collate(samples: list[Sample | Failure]) -> Batch | Failure:
    for sample in samples:
        if isinstance(sample, Failure):
            return sample
    return collate(cast(list[Sample], samples))


def _pack(samples: list[Sample | Failure]) -> Parcel | Failure:
    batch = _collate(samples)
    return batch if isinstance(batch, Failure) else packed(batch)


def _begin(_: int) -> None:
    """What a loader process does first: one thread, and an end when its worker ends."""
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
