"""Which clips make a batch, and batches as they come to the network.

Which clip comes when is decided by (seed, stream, epoch) alone: not by the number of workers or loader processes, nor
by what was measured before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gblend.clip_dataset import Draw, Sample, WindowDataset


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Samples side by side, on the CPU."""

    position: Tensor
    """int64 (batch): place of each clip in its data set."""
    labels: dict[str, Tensor]
    """Per task key (`gblend.heads`), int64 (batch), or for several labels float32 (batch, classes) of 0 and 1; -1 where
    the clip is unlabelled."""
    arrays: dict[str, Tensor]
    """Per modality, (batch, ...), as `gblend.inputs.cut_window` makes them."""
    present: dict[str, Tensor]
    """Per modality, bool (batch)."""
    enlarged: Tensor
    """float32 (batch): by how much a clip's pictures, and displacements, are larger than those of central windows."""

    def pieces(self, count: int) -> list["Batch"]:
        """The batch cut into nearly equal ones, in order."""
        if count == 1:
            return [self]
        parts: list[dict[str, Any]] = [{} for _ in range(count)]
        for name in (each.name for each in fields(self)):
            value = getattr(self, name)
            if isinstance(value, dict):
                cut = {key: tensor.tensor_split(count) for key, tensor in value.items()}
                values: Sequence[Any] = [{key: tensors[at] for key, tensors in cut.items()} for at in range(count)]
            else:
                values = value.tensor_split(count)
            for part, piece in zip(parts, values, strict=True):
                part[name] = piece
        return [Batch(**part) for part in parts]


LEAST_CLIPS = 2
"""In one forward pass of a training step: of one clip whose map is a single position BatchNorm has no variance."""


def steps_of_epoch(count: int, batch_size: int) -> int:
    """Batches that ``count`` clips are cut into: nothing but these two numbers decides it.

    >>> steps_of_epoch(100, 16), steps_of_epoch(10, 16)
    (6, 1)
    """
    return max(1, round(count / batch_size))


def training_batches(
    count: int, *, batch_size: int, entropy: tuple[int, ...], rank: int, world: int, micro_batches: int = 1
) -> list[list[int]]:
    """One epoch of one worker: a permutation cut into nearly equal batches, each shared among the workers.

    Every clip comes once; no batch is more than one clip smaller than another, so none needs to be dropped. More
    workers get smaller shares of the same batches, never other batches.

    Raises:
        ValueError: A worker's share, or one of the ``micro_batches`` it is to be cut into, has fewer than two clips.

    >>> a = training_batches(10, batch_size=4, entropy=(1,), rank=0, world=2)
    >>> b = training_batches(10, batch_size=4, entropy=(1,), rank=1, world=2)
    >>> [len(x) + len(y) for x, y in zip(a, b)], sorted(sum(a + b, []))
    ([5, 5], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    steps = steps_of_epoch(count, batch_size)
    smallest = count // steps
    if smallest < LEAST_CLIPS * world * micro_batches:
        most = smallest // (LEAST_CLIPS * micro_batches)
        remedy = f"use at most {most} worker{'s' if most > 1 else ''}, or" if most else "use"
        pieces = f" with {micro_batches} micro-batches each" if micro_batches > 1 else ""
        raise ValueError(
            f"{count} training clips in batches of {smallest} (batch_size {batch_size}) are too few for {world} "
            f"workers{pieces}: a forward pass needs {LEAST_CLIPS} clips for BatchNorm, and batches are not made larger "
            f"than asked for; {remedy} {'fewer micro_batches or ' if pieces else ''}a larger batch_size"
        )
    order = np.random.default_rng(entropy).permutation(count)
    return [batch[rank::world].tolist() for batch in np.array_split(order, steps)]


def training_loader(
    data: WindowDataset, batches: list[list[int]], entropy: tuple[int, ...], *, processes: int = 0
) -> Iterator[Batch]:
    """Batches of random windows. Each window depends on ``entropy`` and on its clip alone."""
    draws: list[list[Draw]] = [[(i, (*entropy, i)) for i in batch] for batch in batches]
    return _load(data, draws, processes)


def measuring_loader(
    data: WindowDataset, positions: Sequence[int], *, batch_size: int, rank: int, world: int, processes: int = 0
) -> Iterator[Batch]:
    """Batches of central windows: this worker's share, no clip twice and none left out."""
    mine = positions[rank::world]
    draws: list[list[Draw]] = [
        [(i, None) for i in mine[at : at + batch_size]] for at in range(0, len(mine), batch_size)
    ]
    return _load(data, draws, processes)


def _load(data: WindowDataset, draws: list[list[Draw]], processes: int) -> Iterator[Batch]:
    # A generator of its own: a DataLoader otherwise draws its base seed from torch's global one.
    generator = torch.Generator().manual_seed(0)
    return iter(
        DataLoader(
            cast(Dataset, data), batch_sampler=draws, collate_fn=_collate, num_workers=processes, generator=generator
        )
    )


def _collate(samples: list[Sample]) -> Batch:
    names = samples[0]["arrays"]
    return Batch(
        position=torch.tensor([s["position"] for s in samples]),
        labels={key: torch.from_numpy(np.stack([s["labels"][key] for s in samples])) for key in samples[0]["labels"]},
        arrays={name: torch.from_numpy(np.stack([s["arrays"][name] for s in samples])) for name in names},
        present={name: torch.tensor([s["present"][name] for s in samples]) for name in names},
        enlarged=torch.tensor([s.get("enlarged", 1.0) for s in samples], dtype=torch.float32),
    )
