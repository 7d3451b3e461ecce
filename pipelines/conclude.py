"""The end of a preprocessing job: the ledger of all clips and, if the dataset can be used, ``dataset.json``."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from pipelines.column import columns_of, kept_columns
from pipelines.manifest import Manifest
from pipelines.plan import ShardPlan
from pipelines.settings import PreprocessConfig, PreprocessSummary
from pipelines.shards import skipped_ledger
from pipelines.store import Store
from schemas.features import FeatureSpec
from schemas.layout import DATASET_FILE, LEDGER_FILE, DatasetInfo, ShardDone, ShardEntry
from schemas.ledger import LEDGER_SCHEMA
from schemas.manifest import SPLITS

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""


class TooManyFailuresError(RuntimeError):
    """More clips failed than the job was told to accept. The ledger is written; there is no ``dataset.json``."""


@dataclass(slots=True)
class Tally:
    """What is known so far."""

    ledgers: dict[str, pa.Table] = field(default_factory=dict)
    done: dict[str, ShardDone] = field(default_factory=dict)
    status: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, ledger: pa.Table, done: ShardDone) -> None:
        """Count a finished shard."""
        self.ledgers[name], self.done[name] = ledger, done
        self.status.update(ledger["status"].to_pylist())
        self.reasons.update(reason for reason in ledger["reason"].to_pylist() if reason is not None)


def conclude(
    config: PreprocessConfig,
    features: FeatureSpec,
    manifest: Manifest,
    plans: list[ShardPlan],
    tally: Tally,
    store: Store,
    *,
    kept: int,
    wall_s: float,
) -> PreprocessSummary:
    """Write the ledger; then, if the dataset can be used, ``dataset.json``."""
    rows = manifest.table.num_rows
    failed, ok = tally.status["failed"], tally.status["ok"]
    stopped = failed > config.max_error_rate * rows
    message = f"the job stopped: {failed} of {rows} clips had failed"
    ledgers = [
        tally.ledgers[plan.name]
        if plan.name in tally.ledgers
        else skipped_ledger(manifest.table.take(plan.positions), reason="error-rate", message=message)
        for plan in plans
    ]
    ledger = _in_manifest_order(pa.concat_tables(ledgers), manifest)
    sink = pa.BufferOutputStream()
    pq.write_table(ledger, sink, compression="zstd")
    store.write(LEDGER_FILE, sink.getvalue().to_pybytes())
    why = ", ".join(f"{count} {reason}" for reason, count in tally.reasons.most_common()) or "none"
    if stopped:
        store.remove(DATASET_FILE)  # One of an earlier run that accepted more does not agree with this ledger.
        raise TooManyFailuresError(
            f"{failed} of {rows} clips failed ({why}), more than --max-error-rate {config.max_error_rate:g} allows; "
            f"{rows - failed - ok} were not tried; every clip's reason is in {store.path(LEDGER_FILE)}"
        )
    counts = {}
    for split in SPLITS:
        status = ledger["status"].filter(pc.equal(ledger["split"], split)).to_pylist()
        if status:
            counts[split] = {name: status.count(name) for name in ("ok", "failed", "skipped")}
            if not counts[split]["ok"]:
                raise ValueError(
                    f"none of the {len(status)} clips of split {split!r} could be stored ({why}); "
                    f"every clip's reason is in {store.path(LEDGER_FILE)}"
                )
    columns = kept_columns(store, tally.done)
    present = {
        split: {
            modality: sum(tally.done[plan.name].present[modality] for plan in plans if plan.split == split)
            for modality in (*features.modalities, *columns)
        }
        for split in counts
    }
    info = DatasetInfo(
        tasks=manifest.tasks,
        features=features,
        shards=tuple(
            ShardEntry(
                split=plan.split, name=plan.name, clips=tally.ledgers[plan.name]["status"].to_pylist().count("ok")
            )
            for plan in plans
        ),
        counts=counts,
        present=present,
        versions=_versions(tally.done.values()),
        columns=columns,
    )
    store.write(DATASET_FILE, info.dumps().encode())
    return PreprocessSummary(
        out=config.out,
        ok=ok,
        failed=failed,
        reasons=dict(tally.reasons),
        present={modality: sum(split[modality] for split in present.values()) for modality in features.modalities},
        lost_columns=tuple(sorted(columns_of(tally.done) - set(columns))),
        shards=len(plans),
        kept_shards=kept,
        wall_s=wall_s,
    )


def _in_manifest_order(ledger: pa.Table, manifest: Manifest) -> pa.Table:
    position = pc.index_in(ledger["clip_id"], value_set=manifest.table["clip_id"].combine_chunks())
    return ledger.take(pc.sort_indices(position)).cast(LEDGER_SCHEMA)


def _versions(documents: Iterable[ShardDone]) -> dict[str, str]:
    """Versions by library; several, in order, where shards were made with several."""
    found: dict[str, set[str]] = defaultdict(set)
    for document in documents:
        for library, version in document.versions.items():
            found[library].add(version)
    return {library: ", ".join(sorted(several)) for library, several in sorted(found.items())}
