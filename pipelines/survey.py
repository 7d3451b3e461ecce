"""What an earlier run has left of a dataset: which shards stay, grow, are made again or contradict the job."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from pipelines.manifest import Manifest
from pipelines.plan import ShardPlan, is_shard_name
from pipelines.settings import PreprocessConfig
from pipelines.state import differences, find_done, read_ledger, settled_modalities, with_stored, worth_another_try
from pipelines.store import Store
from schemas.features import FeatureSpec
from schemas.layout import DATASET_FILE, DONE_FILE, ShardDone
from schemas.manifest import SPLITS


class ChangedDatasetError(ValueError):
    """What is already there was made from other rows or with other settings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """What an earlier run has left."""

    features: FeatureSpec
    """What the dataset is to hold: what is asked for now and what it holds already."""
    done: dict[str, ShardDone]
    """Documents of the planned shards that are finished."""
    kept: dict[str, pa.Table]
    """Ledgers of those that need nothing more."""
    growing: list[str]
    """Those that only lack modalities."""
    again: list[str]
    """Those to be made again because a failed clip may do better now."""
    stray: list[str]
    """Shards that are not planned, to be removed."""


def survey(store: Store, manifest: Manifest, plans: list[ShardPlan], config: PreprocessConfig) -> Before:
    """Look at every shard and touch none. What contradicts the job is refused here, unless it is to be redone."""
    names = [plan.name for plan in plans]
    with ThreadPoolExecutor(16) as pool:
        found = dict(zip(names, pool.map(lambda name: find_done(store, name), names), strict=True))
    done = {name: document for name, document in found.items() if document is not None}
    features = config.features
    for document in done.values():
        features = with_stored(features, document)
    before = Before(features=features, done=done, kept={}, growing=[], again=[], stray=[])
    changed: dict[str, list[str]] = {}
    for plan in plans:
        document = done.get(plan.name)
        if document is None:
            continue
        reasons = differences(document, manifest.table.take(plan.positions), features)
        if reasons:
            changed[plan.name] = reasons
            continue
        if settled_modalities(document, features) != features.modalities:
            before.growing.append(plan.name)  # Whatever has failed there: what is stored must not be touched for it.
            continue
        ledger = read_ledger(store, plan.name)
        if worth_another_try(store, plan.name, ledger, document, videos=config.videos, limits=config.limits):
            before.again.append(plan.name)
        else:
            before.kept[plan.name] = ledger
    # What is there counts, not what dataset.json lists: a killed run has written none.
    planned = set(names)
    present = [f"{split}/{name}" for split in SPLITS for name in store.directories(split)]
    before.stray.extend(name for name in present if is_shard_name(name) and name not in planned)
    for name in before.stray:
        changed[name] = [f"the manifest has no rows for it at --clips-per-shard {config.clips_per_shard}"]
    if changed and config.on_change == "refuse":
        name, reasons = next(iter(changed.items()))
        more = f" (and {len(changed) - 1} more shards)" if len(changed) > 1 else ""
        raise ChangedDatasetError(
            f"{config.out} was made otherwise: shard {name}{more}: {'; '.join(reasons)}; "
            "repeat the settings it was made with, write to another directory, or replace it with --on-change redo"
        )
    return before


def clear(store: Store, before: Before, todo: list[ShardPlan]) -> None:
    """Make way for the shards to be made."""
    if before.stray or len(before.growing) < len(todo):
        # While shards are made, there is no dataset for a reader; one that only grows stays what it is till then.
        store.remove(DATASET_FILE)
    for name in before.again:
        store.remove(f"{name}/{DONE_FILE}")
    for name in before.stray:
        store.remove(f"{name}/{DONE_FILE}")
        store.remove(name)
