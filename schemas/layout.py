"""The dataset directory: names of its files, and the two JSON documents that make it trustworthy.

``done.json`` is written last in a shard: without one, the shard does not exist for a reader. ``dataset.json`` is
written last of all.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from schemas.features import FORMAT_VERSION, FeatureSpec
from schemas.task import Task, tasks_from_json
from schemas.tensor import TensorSpec

DATASET_FILE = "dataset.json"
LEDGER_FILE = "ledger.parquet"
DONE_FILE = "done.json"
CLIPS_FILE = "clips.arrow"
SHARD_LEDGER_FILE = "ledger.arrow"


def feature_file(modality: str) -> str:
    """File name of a modality, a user's own too, inside a shard.

    >>> feature_file("rgb")
    'rgb.arrow'
    """
    return f"{modality}.arrow"


def shard_name(split: str, index: int) -> str:
    """Directory of a shard, relative to the dataset.

    >>> shard_name("train", 12)
    'train/00012'
    """
    return f"{split}/{index:05d}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardDone:
    """``done.json``: what a finished shard holds and what it was made from."""

    clips: int
    """Clips stored."""
    failed: int
    """Manifest rows of this shard that gave no clip; its ``ledger.arrow`` says why."""
    manifest: str
    """SHA-256 of the shard's manifest rows, tasks included."""
    present: dict[str, int]
    """Per modality, how many of the clips have it."""
    sampling: dict[str, Any]
    """`FeatureSpec.describe_clips`: what ``clips.arrow`` depends on besides the manifest rows."""
    fingerprints: dict[str, str]
    """Per modality, `FeatureSpec.fingerprint`."""
    specs: dict[str, dict[str, Any]]
    """Per modality, `FeatureSpec.describe`: what a fingerprint stands for, to say what differs."""
    checksums: dict[str, str]
    """SHA-256 of every file of the shard, by name."""
    sizes: dict[str, int]
    """Bytes of every file of the shard, by name: what a resumed job compares, since checksums need whole reads."""
    limits: dict[str, Any]
    """What a clip was allowed to cost, which decides some failures."""
    versions: dict[str, str]
    """Versions of the libraries that decide the stored values."""

    def dumps(self) -> str:
        """Deterministic JSON."""
        return json.dumps(asdict(self), sort_keys=True, indent=1) + "\n"

    @classmethod
    def loads(cls, text: str) -> "ShardDone":
        """The inverse of `dumps`; a ValueError when the text is anything else."""
        values = json.loads(text)
        if not isinstance(values, dict) or set(values) != {f.name for f in fields(cls)}:
            raise ValueError(f"not a {DONE_FILE} of this version")
        counts = [values["clips"], values["failed"]]
        maps = [
            values[name] for name in ("sampling", "fingerprints", "specs", "checksums", "sizes", "limits", "versions")
        ]
        if not all(isinstance(c, int) for c in counts) or not all(isinstance(m, dict) for m in maps):
            raise ValueError(f"not a {DONE_FILE} of this version")
        return cls(**values)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry:
    """One finished shard, as listed in ``dataset.json``."""

    split: str
    """train, val or test."""
    name: str
    """Directory relative to the dataset."""
    clips: int
    """Clips stored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """``dataset.json``: all a reader must know before it opens a shard."""

    tasks: tuple[Task, ...]
    """Label columns and their classes."""
    features: FeatureSpec
    """Modalities and how they were computed."""
    shards: tuple[ShardEntry, ...]
    """Every shard, in order."""
    counts: dict[str, dict[str, int]]
    """Per split: ok, failed, skipped."""
    present: dict[str, dict[str, int]]
    """Per split and modality, how many clips have it."""
    versions: dict[str, str]
    """Versions of the libraries that decide the stored values; several where shards were made with several."""
    columns: dict[str, TensorSpec] = field(default_factory=dict)
    """Modalities of the user's own, by name (`gblend column`)."""
    format_version: int = FORMAT_VERSION
    """Layout version."""

    def dumps(self) -> str:
        """Deterministic JSON."""
        values = {**asdict(self), "features": self.features.without_places().to_json()}
        if not self.columns:
            del values["columns"]
        return json.dumps(values, sort_keys=True, indent=1) + "\n"

    @classmethod
    def loads(cls, text: str, *, what: str) -> "DatasetInfo":
        """The inverse of `dumps`; ``what`` names the file in errors."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{what} is not JSON ({error}); rerun `gblend preprocess`") from None
        if not isinstance(values, dict):
            raise ValueError(f"{what} must hold a JSON object; rerun `gblend preprocess`")
        if values.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{what} has format_version {values.get('format_version')}, this version reads {FORMAT_VERSION}; "
                "rerun `gblend preprocess`"
            )
        tasks = tasks_from_json(values.get("tasks"), what=what)
        try:
            return cls(
                tasks=tasks,
                features=FeatureSpec.from_json(values["features"]),
                shards=tuple(ShardEntry(**entry) for entry in values["shards"]),
                counts=values["counts"],
                present=values["present"],
                versions=values["versions"],
                columns={name: TensorSpec.from_json(spec) for name, spec in values.get("columns", {}).items()},
            )
        except KeyError as error:
            raise ValueError(f"{what} lacks {error}; rerun `gblend preprocess`") from None
        except (TypeError, ValueError, AttributeError) as error:
            # TypeError: an entry has keys that its dataclass does not have, or lacks some.
            raise ValueError(f"{what} is not as this version writes it ({error}); rerun `gblend preprocess`") from None

    @property
    def modalities(self) -> tuple[str, ...]:
        """All that is stored of clips: the known modalities, then the user's own by name."""
        return (*self.features.modalities, *sorted(self.columns))

    def require_split(self, split: str) -> tuple[ShardEntry, ...]:
        """The split's shards; an empty split is an error."""
        found = tuple(shard for shard in self.shards if shard.split == split and shard.clips > 0)
        if not found:
            filled = sorted({shard.split for shard in self.shards if shard.clips > 0})
            raise ValueError(
                f"the dataset has no clip in split {split!r}; splits with clips: {', '.join(filled) or 'none'}"
            )
        return found
