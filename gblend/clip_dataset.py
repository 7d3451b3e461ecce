"""Windows of stored clips, as a map-style torch data set.

Which window is cut is part of the index (`Draw`): reading a clip takes no random number from anywhere else, so it makes
no difference which process reads it, and when.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch.utils.data import Dataset

from gblend.clips import ClipIndex, ClipReader
from gblend.config import TrainConfig
from gblend.inputs import choose_window, cut_window, enlargement
from gblend.labels import label_value
from schemas import FeatureSpec, Task, TensorSpec

Draw = tuple[int, tuple[int, ...] | None]
"""Position of a clip, and the entropy of its random window; None for the central window."""

Sample = dict[str, Any]
"""``position`` int, ``labels`` per task key (`gblend.labels.label_value`), ``arrays`` and ``present`` (bool) per
modality; where pictures are not all of one size, ``enlarged`` (`gblend.inputs.enlargement`)."""

Feed = Callable[[tuple[str, ...], Sequence[Sequence[Draw]]], Iterator[Any]]
"""Batches (`gblend.batches.Batch`) of these windows, with these modalities."""


@runtime_checkable
class WindowDataset(Protocol):
    """What training and measuring ask of a set of clips."""

    @property
    def tasks(self) -> Mapping[str, Task]:
        """Tasks by key (`gblend.heads`)."""
        ...

    def __len__(self) -> int:
        """Number of clips."""
        ...

    def __getitem__(self, draw: Draw) -> Sample:
        """A window of one clip."""
        ...

    def only(self, modalities: tuple[str, ...]) -> "WindowDataset":
        """The same clips and windows, bringing no other modality than these."""
        ...


class ClipDataset(Dataset):
    """Windows of stored clips, indexed by `Draw`."""

    feed: Feed | None = None
    """Where its batches come from; None: it is read on the spot."""

    def __init__(
        self,
        index: ClipIndex,
        reader: ClipReader,
        *,
        config: TrainConfig,
        spec: FeatureSpec,
        tasks: Mapping[str, Task],
        modalities: tuple[str, ...],
        columns: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        self.index = index
        self.tasks = tasks
        self.reader = reader
        self._config = config
        self._spec = spec
        self.modalities = modalities
        self._columns = columns or {}

    def only(self, modalities: tuple[str, ...]) -> "ClipDataset":
        """Decode these modalities only. Windows stay where they are for the full set: branches see the same moments."""
        fewer = copy.copy(self)
        fewer.modalities = tuple(name for name in self.modalities if name in modalities)
        return fewer

    @property
    def reads(self) -> tuple[str, ...]:
        """Modalities that a window takes: those it brings, and pictures and motion, which say where it may lie."""
        return tuple(name for name in self.reader.modalities if name in self.modalities or name in ("rgb", "flow"))

    def shard_of(self, position: int) -> str:
        """Where a clip is stored."""
        return self.index.shards[position]

    def to_read(self) -> "ClipDataset":
        """The same clips without what only people read of them: what travels to another process."""
        lean = copy.copy(self)
        lean.feed, lean.index = None, replace(self.index, clip_ids=(), groups=(), uris=(), present={})
        return lean

    def __len__(self) -> int:
        return len(self.index.rows)

    def __getitem__(self, draw: Draw) -> Sample:
        position, entropy = draw
        clip = self.reader.read(self.index.shards[position], int(self.index.rows[position]), self.reads)
        rng = None if entropy is None else np.random.default_rng(entropy)
        window = choose_window(clip, self._config.input, rng)
        return {
            "position": position,
            "labels": {
                key: label_value(self.index.labels[key][position].as_py(), task) for key, task in self.tasks.items()
            },
            "arrays": cut_window(clip, window, self._config.input, self._spec, self.modalities, columns=self._columns),
            # What the file holds, not what the index says: a clip of one frame has a picture, but no flow.
            "present": {name: clip.has(name) for name in self.modalities},
            "enlarged": enlargement(window, self._spec, self._config.input),
        }
