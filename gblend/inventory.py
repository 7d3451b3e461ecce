"""What a data set holds, counted: splits, classes, what became of every clip, bytes on disk, how far splits lie apart.

Counts are of all clips; what pictures and sound are like is measured on some (`gblend.content`). Bytes are those of the
files that are there, not what documents say of them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from gblend.clips import ClipIndex, read_dataset_info, read_index
from gblend.content import Content, look_at, spread
from gblend.drift import Drift, class_drift, number_drift
from gblend.heads import by_key
from gblend.shard_files import ShardFiles
from gblend.storage import asked, open_fs
from gblend.summary import DatasetSummary, Loss, summarize_dataset
from schemas import SPLITS, DatasetInfo, Task, feature_file
from schemas.layout import CLIPS_FILE


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCounts:
    """One split."""

    split: str
    """train, val or test."""
    ok: int
    """Clips in its shards."""
    failed: int
    """Clips of the manifest that gave none."""
    skipped: int
    """Clips of the manifest that were not tried."""
    shards: int
    """Shards with clips."""
    groups: int
    """Different groups (videos, participants)."""
    seconds: float
    """Of all clips together."""
    duration_s: Mapping[str, float]
    """`gblend.content.spread` of the clips' durations; nothing without clips."""
    present: dict[str, int]
    """Per modality, clips that have it."""
    silent: int
    """Clips with sound that is (nearly) zero throughout."""
    still: int
    """Clips whose pictures are all the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCounts:
    """The classes of one task."""

    task: str
    """Its name."""
    kind: str
    """single or multi: one label a clip, or several."""
    classes: tuple[str, ...]
    """Names."""
    counts: dict[str, tuple[int, ...]]
    """Per split, clips of every class."""
    unlabelled: dict[str, int]
    """Per split, clips without a label for this task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """Files of one kind."""

    name: str
    """A modality; ``clips``: identity and labels; ``other``: documents, ledgers, and whatever else lies there."""
    files: int
    """How many."""
    bytes: int
    """In all."""
    clips: int | None
    """Clips that have it; None: not of clips."""

    @property
    def bytes_per_clip(self) -> float | None:
        """Of a clip that has it."""
        return self.bytes / self.clips if self.clips else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """A data set in numbers."""

    summary: DatasetSummary
    """Where it is, tasks, how features were made, reasons in the ledger."""
    splits: tuple[SplitCounts, ...]
    """In the order of `schemas.SPLITS`."""
    classes: tuple[ClassCounts, ...]
    """Per task."""
    storage: tuple[Storage, ...]
    """Modalities, then the rest."""
    contents: dict[str, Content]
    """Per split with clips, what some of them are like."""
    drifts: tuple[Drift, ...]
    """Per quantity, every pair of splits."""
    shared_groups: dict[tuple[str, str], int]
    """Per pair of splits, groups that have clips in both."""
    notes: tuple[str, ...]
    """Where documents disagree with each other."""

    @property
    def losses(self) -> tuple[Loss, ...]:
        """Clips that are not in the shards, by reason."""
        return self.summary.losses

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "data": self.summary.path,
            "splits": [asdict(split) for split in self.splits],
            "tasks": [asdict(classes) for classes in self.classes],
            "ledger": [asdict(loss) for loss in self.losses],
            "storage": [{**asdict(kind), "bytes_per_clip": kind.bytes_per_clip} for kind in self.storage],
            "features": self.summary.features,
            "content": {
                split: {
                    "clips": content.clips,
                    "sizes": content.sizes,
                    **{name: dict(spread(values)) for name, values in content.values.items()},
                }
                for split, content in self.contents.items()
            },
            "drift": [{**asdict(drift), "beyond_chance": drift.beyond_chance} for drift in self.drifts],
            "shared_groups": [{"splits": list(pair), "groups": groups} for pair, groups in self.shared_groups.items()],
            "versions": self.summary.versions,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What ``clips.arrow`` says beside labels; one entry a clip."""

    duration_s: Float[np.ndarray, " clips"]
    """Of the span."""
    silent: int
    """Clips."""
    still: int
    """Clips."""


def take_inventory(data: str) -> Inventory:
    """Read the documents, every ``clips.arrow``, the sizes of all files, and some clips of every split.

    Raises:
        ValueError: It is no finished data set, or a file is missing or damaged.
    """
    info, summary = read_dataset_info(data), summarize_dataset(data)
    filled = [split for split in SPLITS if any(shard.split == split and shard.clips for shard in info.shards)]
    indexes = {split: read_index(data, info, split, info.modalities) for split in filled}
    found = {split: _found(data, info, split) for split in filled}
    contents = {split: look_at(data, info, index) for split, index in indexes.items()}
    classes = tuple(_classes(key, task, indexes) for key, task in by_key(info.tasks).items())
    pairs = list(combinations(filled, 2))
    splits = tuple(
        _counts(split, info, indexes.get(split), found.get(split))
        for split in SPLITS
        if split in filled or split in info.counts
    )
    return Inventory(
        summary=summary,
        splits=splits,
        classes=classes,
        storage=_storage(data, info, indexes),
        contents=contents,
        drifts=tuple(drift for pair in pairs for drift in _drifts(pair, classes, found, contents)),
        shared_groups={pair: len(set(indexes[pair[0]].groups) & set(indexes[pair[1]].groups)) for pair in pairs},
        notes=tuple(_disagreements(info, summary, splits)),
    )


def _found(data: str, info: DatasetInfo, split: str) -> Found:
    """The columns of all shards of a split that has clips."""
    files, tables = ShardFiles(data), []
    for shard in info.require_split(split):
        schema = files.open(shard.name, CLIPS_FILE).schema
        wanted = sorted(schema.get_field_index(name) for name in ("duration_s", "silent", "still"))
        tables.append(files.open(shard.name, CLIPS_FILE, fields=wanted).read_all())
    table = pa.concat_tables(tables)
    silent, still = (int(table[name].to_numpy().sum()) for name in ("silent", "still"))
    return Found(duration_s=table["duration_s"].to_numpy(), silent=silent, still=still)


def _counts(split: str, info: DatasetInfo, index: ClipIndex | None, found: Found | None) -> SplitCounts:
    said = info.counts.get(split, {})
    return SplitCounts(
        split=split,
        ok=0 if index is None else len(index),
        failed=said.get("failed", 0),
        skipped=said.get("skipped", 0),
        shards=sum(shard.split == split and shard.clips > 0 for shard in info.shards),
        groups=0 if index is None else len(set(index.groups)),
        seconds=0.0 if found is None else float(found.duration_s.sum()),
        duration_s={} if found is None else dict(spread(found.duration_s)),
        present=dict.fromkeys(info.modalities, 0)
        if index is None
        else {name: int(mask.sum()) for name, mask in index.present.items()},
        silent=0 if found is None else found.silent,
        still=0 if found is None else found.still,
    )


def _classes(key: str, task: Task, indexes: Mapping[str, ClipIndex]) -> ClassCounts:
    labels = {split: index.labels[key] for split, index in indexes.items()}
    return ClassCounts(
        task=task.name,
        kind=task.kind,
        classes=task.classes,
        counts={split: tuple(count_labels(column, len(task.classes)).tolist()) for split, column in labels.items()},
        unlabelled={split: column.null_count for split, column in labels.items()},
    )


def count_labels(column: pa.Array, classes: int) -> Int[np.ndarray, " classes"]:
    """Clips of every class; of several labels a clip, each is counted.

    >>> count_labels(pa.array([[0, 2], None, [2]]), 3).tolist()
    [1, 0, 2]
    """
    flat = column.flatten() if pa.types.is_list(column.type) else column
    return np.bincount(flat.drop_null().to_numpy(), minlength=classes)


def _storage(data: str, info: DatasetInfo, indexes: Mapping[str, ClipIndex]) -> tuple[Storage, ...]:
    """By the listing of the directory."""
    place = open_fs(data)[1]
    listed = asked(data, lambda fs, place: fs.find(place, detail=True))
    kinds = {feature_file(name): name for name in info.modalities} | {CLIPS_FILE: "clips"}
    shards = {shard.name for shard in info.shards}
    sizes: dict[str, list[int]] = {name: [] for name in (*info.modalities, "clips", "other")}
    for path, about in listed.items():
        shard, _, file = path[len(place.rstrip("/")) + 1 :].rpartition("/")
        sizes[kinds.get(file, "other") if shard in shards else "other"].append(about["size"])
    clips: dict[str, int] = {
        name: sum(int(index.present[name].sum()) for index in indexes.values()) for name in info.modalities
    }
    clips["clips"] = sum(map(len, indexes.values()))
    return tuple(
        Storage(name=name, files=len(found), bytes=sum(found), clips=clips.get(name)) for name, found in sizes.items()
    )


def _drifts(
    pair: tuple[str, str],
    classes: tuple[ClassCounts, ...],
    found: Mapping[str, Found],
    contents: Mapping[str, Content],
) -> list[Drift]:
    drifts = []
    for task in classes:
        counts = [np.array(task.counts[split]) for split in pair]
        if all(count.sum() for count in counts):
            drifts.append(class_drift(f"classes of {task.task}", pair, *counts))
    drifts.append(number_drift("duration_s", pair, *(found[split].duration_s for split in pair)))
    measured = [contents[split].values for split in pair]
    return drifts + [
        number_drift(name, pair, *(values[name] for values in measured)) for name in measured[0] if name in measured[1]
    ]


def _disagreements(info: DatasetInfo, summary: DatasetSummary, splits: tuple[SplitCounts, ...]) -> list[str]:
    """Every clip has one fate, so that three countings agree: of the shards, of ``dataset.json``, of the ledger."""
    notes = []
    for split in splits:
        said = info.counts.get(split.split, {}).get("ok")
        if said is not None and said != split.ok:
            notes.append(f"{split.split}: shards hold {split.ok} clips, dataset.json says {said}")
        for status, clips in (("failed", split.failed), ("skipped", split.skipped)):
            listed = sum(loss.clips for loss in summary.losses if (loss.split, loss.status) == (split.split, status))
            if listed != clips:
                notes.append(f"{split.split}: the ledger has {listed} {status} clips, dataset.json says {clips}")
    return notes
