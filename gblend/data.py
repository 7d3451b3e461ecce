"""What a run trains and measures on: T, V, a slice T' of T as large as V, and the other splits.

A map-style torch data set over the shards; which clip comes when is decided by (seed, stream, epoch) alone: not by the
number of workers or loader processes, nor by what was measured before.
"""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gblend.clips import ClipIndex, ClipReader, read_dataset_info, read_index, resolve_modalities
from gblend.config import TrainConfig
from gblend.heads import by_key
from gblend.holdout import hold_out
from gblend.inputs import choose_window, cut_window, window_spec
from gblend.labels import count_classes, label_value, leave_out_unlabelled, require_labels, strata
from schemas import FeatureSpec, Task, TensorSpec
from schemas.features import FORMAT_VERSION

Draw = tuple[int, tuple[int, ...] | None]
"""Position of a clip, and the entropy of its random window; None for the central window."""

Sample = dict[str, Any]
"""``position`` int, ``labels`` per task key (`gblend.labels.label_value`), ``arrays`` and ``present`` (bool) per
modality."""


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
        self._reader = reader
        self._config = config
        self._spec = spec
        self._modalities = modalities
        self._columns = columns or {}

    def only(self, modalities: tuple[str, ...]) -> "ClipDataset":
        """Decode these modalities only. Windows stay where they are for the full set: branches see the same moments."""
        fewer = copy.copy(self)
        fewer._modalities = tuple(name for name in self._modalities if name in modalities)
        return fewer

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, draw: Draw) -> Sample:
        position, entropy = draw
        clip = self._reader.read(self.index.shards[position], int(self.index.rows[position]))
        rng = None if entropy is None else np.random.default_rng(entropy)
        window = choose_window(clip, self._config.input, rng)
        return {
            "position": position,
            "labels": {
                key: label_value(self.index.labels[key][position].as_py(), task) for key, task in self.tasks.items()
            },
            "arrays": cut_window(clip, window, self._config.input, self._spec, self._modalities, columns=self._columns),
            # What the file holds, not what the index says: a clip of one frame has a picture, but no flow.
            "present": {name: clip.has(name) for name in self._modalities},
        }


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The sets of one configuration; the same for every method and seed."""

    train: WindowDataset
    """T: what runs and probes train on."""
    train_slice: Sequence[int]
    """T': positions in ``train`` on which training loss is measured; as many as V, fixed."""
    heldout: WindowDataset
    """V: held out of the training split."""
    splits: dict[str, WindowDataset]
    """The other splits (val, test), read only for scores."""
    modalities: tuple[str, ...]
    """Of the joint network, in the order of its heads."""
    spec: FeatureSpec
    """How the windows' arrays are to be read (`gblend.inputs.window_spec`)."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Per modality of the user's own, the shape of a clip's input, the channels first."""
    heldout_ids: tuple[str, ...] = ()
    """Clip ids of V."""
    fingerprint: str = ""
    """Of clip ids, labels and feature specs: data sets that differ in these are not the same data."""
    excluded: dict[str, int] | None = None
    """Clips left out by the missing-modality policy, per split."""
    unlabelled: dict[str, int] | None = None
    """Clips left out because no task has a label for them, per split."""
    probe_part: Sequence[int] | None = None
    """Positions in ``train`` that short probes train on, ``train_slice`` among them; None: all."""
    class_counts: Mapping[str, Sequence[int]] | None = None
    """Per task key, clips of T per class, for class weights in proportion to them."""

    @property
    def tasks(self) -> Mapping[str, Task]:
        """Tasks by key (`gblend.heads`)."""
        return self.train.tasks

    @property
    def classes(self) -> dict[str, int]:
        """Number of classes per task key."""
        return {key: len(task.classes) for key, task in self.tasks.items()}


def training_batches(
    count: int, *, batch_size: int, entropy: tuple[int, ...], rank: int, world: int
) -> list[list[int]]:
    """One epoch of one worker: a permutation cut into nearly equal batches, each shared among the workers.

    Every clip comes once; no batch is more than one clip smaller than another, so none needs to be dropped.

    >>> a = training_batches(10, batch_size=4, entropy=(1,), rank=0, world=2)
    >>> b = training_batches(10, batch_size=4, entropy=(1,), rank=1, world=2)
    >>> [len(x) + len(y) for x, y in zip(a, b)], sorted(sum(a + b, []))
    ([5, 5], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    if count < 2 * world:
        raise ValueError(f"{count} training clips are too few for {world} workers; use at most {max(1, count // 2)}")
    order = np.random.default_rng(entropy).permutation(count)
    steps = max(1, min(round(count / batch_size), count // (2 * world)))
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


def load_run_data(data: str, config: TrainConfig) -> RunData:
    """Open a data set directory for a configuration: train, and of val and test those that hold clips.

    Raises:
        ValueError: Not a finished data set, no clip to train on or none to score on, a source video in train and in
            another split, a modality it lacks, a task without labels, stored frames smaller than the network's.
    """
    info = read_dataset_info(data)
    splits = [split for split in ("val", "test") if any(s.split == split and s.clips > 0 for s in info.shards)]
    if not splits:
        raise ValueError(f"{data} has no clip in split 'val' or 'test': there is nothing to score on")
    require_resolution(info.features, config)
    modalities = resolve_modalities(info, config.modalities)
    tasks = by_key(info.tasks)
    columns = {name: spec for name, spec in info.columns.items() if name in modalities}
    reader = ClipReader(data, info, modalities)
    excluded: dict[str, int] = {}
    unlabelled: dict[str, int] = {}

    def open_split(split: str) -> ClipIndex:
        index = read_index(data, info, split, modalities)
        index, unlabelled[split] = leave_out_unlabelled(index, split)
        kept, excluded[split] = apply_missing_policy(index, config, split)
        return kept

    def dataset(index: ClipIndex) -> ClipDataset:
        return ClipDataset(
            index, reader, config=config, spec=info.features, tasks=tasks, modalities=modalities, columns=columns
        )

    pool = open_split("train")
    others = {split: open_split(split) for split in splits}
    for split, index in others.items():
        require_disjoint(pool, index, split)
    held = hold_out(strata(pool), pool.groups, config.blend.holdout_share, seed=config.blend.holdout_seed)
    train, heldout = pool.take(~held), pool.take(held)
    require_labels({"training": train, "held-out": heldout, **others}, tasks)
    part = choose_part(train, config.blend.probe_fraction, seed=config.blend.holdout_seed)
    chosen = choose_slice(train.take(part), len(heldout), seed=config.blend.holdout_seed)
    positions = np.flatnonzero(part)
    return RunData(
        train=dataset(train),
        train_slice=positions[chosen].tolist(),
        heldout=dataset(heldout),
        splits={split: dataset(index) for split, index in others.items()},
        modalities=modalities,
        spec=window_spec(info.features, config.input),
        heldout_ids=heldout.clip_ids,
        shapes={name: (spec.channels, *spec.shape[:-1]) for name, spec in columns.items()},
        fingerprint=fingerprint(info.features, [pool, *others.values()], columns=columns),
        excluded=excluded,
        unlabelled=unlabelled,
        probe_part=None if part.all() else positions.tolist(),
        class_counts={key: count_classes(train.labels[key], len(task.classes)) for key, task in tasks.items()},
    )


def fingerprint(
    features: FeatureSpec, indexes: Sequence[ClipIndex], *, columns: Mapping[str, TensorSpec] | None = None
) -> str:
    """SHA-256 of what was computed from which clips, with which labels and groups, and of the user's own tensors."""
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, features.to_json()], sort_keys=True).encode())
    for index in indexes:
        labels = {key: column.to_pylist() for key, column in index.labels.items()}
        digest.update(json.dumps([index.clip_ids, labels.get("", labels), index.groups]).encode())
    if columns:
        digest.update(json.dumps({name: spec.describe() for name, spec in columns.items()}, sort_keys=True).encode())
    return digest.hexdigest()


def require_disjoint(train: ClipIndex, other: ClipIndex, split: str) -> None:
    """Raise ``ValueError`` when clips of one source video are in train and in ``split``."""
    shared = set(train.uris) & set(other.uris)
    if shared:
        raise ValueError(
            f"{len(shared)} source videos are both in train and in {split}, for example {min(shared)!r}: scores there "
            "would not be of unseen data; give every video one split in the manifest"
        )


def require_resolution(features: FeatureSpec, config: TrainConfig) -> None:
    """Raise ``ValueError`` when frames would have to be enlarged to fit the network."""
    stored_px = min(features.rgb.fixed_size_px or (features.rgb.short_side_px,))
    wanted_px = config.input.scale_px or config.input.crop_px
    if stored_px < wanted_px:
        raise ValueError(
            f"stored frames have a short side of {stored_px} px, the recipe wants {wanted_px}; preprocess with "
            f"--rgb.short-side-px {wanted_px}, or lower --input.scale-px and --input.crop-px"
        )


def apply_missing_policy(index: ClipIndex, config: TrainConfig, split: str) -> tuple[ClipIndex, int]:
    """Clips a run may use, and how many were left out. A clip that has none of the modalities is no use to any head."""
    names, masks = ", ".join(index.present), list(index.present.values())
    usable = np.any(masks, axis=0) if config.missing == "zero" else np.all(masks, axis=0)
    if not usable.any():
        if config.missing == "zero":
            raise ValueError(f"no clip of split {split!r} has any of {names}; choose other modalities")
        raise ValueError(f"no clip of split {split!r} has all of {names}; use --missing zero or fewer modalities")
    return index.take(usable), int((~usable).sum())


def choose_part(train: ClipIndex, fraction: float, *, seed: int) -> Bool[np.ndarray, " clips"]:
    """Clips that short probes train on: about ``fraction`` of every class, groups whole, as V is chosen."""
    if fraction == 1.0:
        return np.ones(len(train), dtype=bool)
    try:
        return hold_out(strata(train), train.groups, fraction, seed=seed)
    except ValueError:
        raise ValueError(
            f"blend.probe_fraction ({fraction:g}) of {len(train)} training clips in {len(set(train.groups))} groups is "
            "none or all of them; use more clips, or 1"
        ) from None


def choose_slice(train: ClipIndex, size: int, *, seed: int) -> list[int]:
    """T': ``size`` clips of T, the classes in proportion, the same for every run."""
    if size >= len(train):
        return list(range(len(train)))
    # Every clip is a group of its own: T' is not held out from anything.
    chosen = hold_out(strata(train), range(len(train)), size / len(train), seed=seed)
    return np.flatnonzero(chosen).tolist()


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
    )
