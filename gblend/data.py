"""What a run trains and measures on: T, V, a slice T' of T as large as V, and the other splits."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from gblend.clip_choice import (
    apply_missing_policy,
    choose_part,
    choose_slice,
    require_bands,
    require_disjoint,
    require_resolution,
)
from gblend.clip_dataset import ClipDataset, WindowDataset
from gblend.clips import ClipIndex, ClipReader, read_dataset_info, read_index, resolve_modalities
from gblend.config import TrainConfig
from gblend.feeder import Feeder, Feeding
from gblend.heads import by_key
from gblend.holdout import hold_out
from gblend.inputs import window_spec
from gblend.labels import count_classes, leave_out_unlabelled, require_labels, strata
from gblend.run_inputs import RunInputs
from gblend.shard_files import ShardFiles
from schemas import FeatureSpec, Task, TensorSpec
from schemas.features import FORMAT_VERSION


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
    inputs: RunInputs | None = None
    """What the data set says of its clips, for the run directory; None: they are in none."""

    @property
    def tasks(self) -> Mapping[str, Task]:
        """Tasks by key (`gblend.heads`)."""
        return self.train.tasks

    @property
    def classes(self) -> dict[str, int]:
        """Number of classes per task key."""
        return {key: len(task.classes) for key, task in self.tasks.items()}


def load_run_data(data: str, config: TrainConfig, feeding: Feeding | None = None) -> RunData:
    """Open a data set directory for a configuration: train, and of val and test those that hold clips.

    Args:
        data: Data set directory.
        config: Which clips and modalities, and what of them.
        feeding: How batches get here; None: read on the spot.

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
    if "logmel" in modalities:
        require_bands(info.features, config)
    tasks = by_key(info.tasks)
    columns = {name: spec for name, spec in info.columns.items() if name in modalities}
    files = ShardFiles(data, None if feeding is None else feeding.cache)
    reader = ClipReader(files, info, modalities)
    excluded: dict[str, int] = {}
    unlabelled: dict[str, int] = {}

    def open_split(split: str) -> ClipIndex:
        index = read_index(files, info, split, modalities)
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
    sets = {"train": dataset(train), "heldout": dataset(heldout)}
    sets |= {split: dataset(index) for split, index in others.items()}
    if feeding is not None:
        feeder = Feeder(sets, feeding)
        for name, clips in sets.items():
            clips.feed = partial(feeder.batches, name)
    return RunData(
        train=sets["train"],
        train_slice=positions[chosen].tolist(),
        heldout=sets["heldout"],
        splits={split: sets[split] for split in others},
        modalities=modalities,
        spec=window_spec(info.features, config.input),
        heldout_ids=heldout.clip_ids,
        shapes={name: (spec.channels, *spec.shape[:-1]) for name, spec in columns.items()},
        fingerprint=fingerprint(info.features, [pool, *others.values()], columns=columns),
        excluded=excluded,
        unlabelled=unlabelled,
        probe_part=None if part.all() else positions.tolist(),
        class_counts={key: count_classes(train.labels[key], len(task.classes)) for key, task in tasks.items()},
        inputs=RunInputs.of(info, modalities),
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
