"""What a data set holds, for the report: counts per split, why clips are missing, classes, how features were made."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gblend.clips import read_dataset_info
from gblend.storage import read_bytes
from schemas import LEDGER_SCHEMA, SPLITS, Task, require_schema
from schemas.layout import LEDGER_FILE

STATUSES = ("ok", "failed", "skipped")


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """Clips of one split that are not in the shards, for one reason."""

    split: str
    """train, val or test."""
    status: str
    """failed or skipped."""
    stage: str
    """Step that ended them."""
    reason: str
    """Short name of the reason."""
    clips: int
    """How many."""
    clip_id: str
    """The first of them."""
    example: str
    """Its message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSummary:
    """A data set in numbers."""

    path: str
    """Where it was read."""
    tasks: tuple[Task, ...]
    """Label columns and classes."""
    counts: dict[str, dict[str, int]]
    """Per split: ok, failed, skipped."""
    losses: tuple[Loss, ...]
    """Most frequent first."""
    features: dict[str, dict[str, Any]]
    """Per stored modality, its settings."""
    shards: int
    """Number of shards."""
    versions: dict[str, str]
    """Of the libraries that decided the stored values."""

    @property
    def complete(self) -> bool:
        """No clip of the manifest is missing in the shards."""
        return not any(counts["failed"] + counts["skipped"] for counts in self.counts.values())


def summarize_dataset(data: str) -> DatasetSummary:
    """Read ``dataset.json`` and the ledger; without a ledger there are counts and no reasons."""
    info = read_dataset_info(data)
    specs = info.features.to_json()
    order = [*SPLITS, *sorted(set(info.counts) - set(SPLITS))]
    return DatasetSummary(
        path=data,
        tasks=info.tasks,
        counts={split: {s: info.counts[split].get(s, 0) for s in STATUSES} for split in order if split in info.counts},
        losses=_losses(f"{data.rstrip('/')}/{LEDGER_FILE}"),
        features={
            **{name: specs[name] for name in info.features.modalities},
            **{name: {"shape": "x".join(map(str, spec.shape))} for name, spec in sorted(info.columns.items())},
        },
        shards=len(info.shards),
        versions=info.versions,
    )


def _losses(path: str) -> tuple[Loss, ...]:
    try:
        ledger = pq.read_table(pa.BufferReader(read_bytes(path)))
    except FileNotFoundError:
        return ()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file ({error}); rerun `gblend preprocess`") from None
    require_schema(ledger.schema, LEDGER_SCHEMA, what=path, remedy="rerun `gblend preprocess`")
    counted: Counter[tuple[str, str, str, str]] = Counter()
    example: dict[tuple[str, str, str, str], tuple[str, str]] = {}
    lost = ledger.filter(pc.not_equal(ledger["status"], "ok"))  # pyright: ignore[reportAttributeAccessIssue]
    for row in lost.select(["clip_id", "split", "status", "stage", "reason", "message"]).to_pylist():
        key = (row["split"], row["status"], row["stage"] or "", row["reason"] or "")
        counted[key] += 1
        example.setdefault(key, (row["clip_id"], row["message"] or ""))
    return tuple(
        Loss(
            split=key[0],
            status=key[1],
            stage=key[2],
            reason=key[3],
            clips=clips,
            clip_id=example[key][0],
            example=example[key][1],
        )
        for key, clips in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    )
