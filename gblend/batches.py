"""Which clips make a batch, and batches as they come to the network.

Which clip comes when is decided by (seed, stream, epoch) alone: not by the number of workers or loader processes, nor
by what was measured before.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gblend.clip_dataset import ClipDataset, Draw, Sample, WindowDataset
from gblend.viewed import ViewedClips

_BY_NAME = ("labels", "arrays", "present")


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Samples side by side."""

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

    def pin_memory(self) -> "Batch":
        """In memory from which a GPU copies by itself; `torch.utils.data.DataLoader` asks for it by this name."""
        return self._each(Tensor.pin_memory)

    def on(self, device: torch.device) -> "Batch":
        """On a device, but for ``present``, which decides what is computed there (`gblend.model.BlendModel.forward`).

        From pinned memory the copy goes on while this process does other things.
        """
        return replace(self._each(lambda values: values.to(device, non_blocking=True)), present=self.present)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        parts = {name: {key: change(values) for key, values in getattr(self, name).items()} for name in _BY_NAME}
        return Batch(position=change(self.position), enlarged=change(self.enlarged), **parts)


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
            f"workers{pieces}: a forward pass needs {LEAST_CLIPS} clips for BatchNorm, and batches stay as near to "
            f"batch_size as their number allows; {remedy} {'fewer micro_batches or ' if pieces else ''}a larger "
            "batch_size"
        )
    order = np.random.default_rng(entropy).permutation(count)
    return [batch[rank::world].tolist() for batch in np.array_split(order, steps)]


def training_loader(data: WindowDataset, batches: list[list[int]], entropy: tuple[int, ...]) -> Iterator[Batch]:
    """Batches of random windows. Each window depends on ``entropy`` and on its clip alone."""
    return _load(data, [[(i, (*entropy, i)) for i in batch] for batch in batches])


def measuring_loader(
    data: WindowDataset, positions: Sequence[int], *, batch_size: int, rank: int, world: int
) -> Iterator[Batch]:
    """Batches of central windows: this worker's share, no clip twice and none left out."""
    mine = positions[rank::world]
    return _load(data, [[(i, None) for i in mine[at : at + batch_size]] for at in range(0, len(mine), batch_size)])


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of the same modalities, side by side."""
    names = samples[0]["arrays"]
    return Batch(
        position=torch.tensor([s["position"] for s in samples]),
        labels={key: torch.from_numpy(np.stack([s["labels"][key] for s in samples])) for key in samples[0]["labels"]},
        arrays={name: torch.from_numpy(np.stack([s["arrays"][name] for s in samples])) for name in names},
        present={name: torch.tensor([s["present"][name] for s in samples]) for name in names},
        enlarged=torch.tensor([s.get("enlarged", 1.0) for s in samples], dtype=torch.float32),
    )


def _load(data: WindowDataset, draws: list[list[Draw]]) -> Iterator[Batch]:
    if isinstance(data, ClipDataset | ViewedClips) and data.feed is not None:
        return data.feed(data.modalities, draws)
    return (collate([data[draw] for draw in batch]) for batch in draws)
