"""What is there of a shard, and whether it can stay: read by a job before it begins and by the task that writes."""

import os
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipelines.plan import rows_hash
from pipelines.source import LIMIT_REASONS, TRANSIENT_REASONS, DecodeLimits
from pipelines.store import Store
from schemas.features import MODALITIES, FeatureSpec, FlowSpec, LogmelSpec, Modality, RgbSpec
from schemas.layout import CLIPS_FILE, DONE_FILE, SHARD_LEDGER_FILE, ShardDone

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""


def find_done(store: Store, name: str) -> ShardDone | None:
    """The shard's ``done.json``; None when the shard is not finished.

    A ``done.json`` that cannot be read, or a file that has not the size it says, is what a crash of the machine or a
    broken copy leaves: such a shard is not finished either.
    """
    text = store.read(f"{name}/{DONE_FILE}")
    if text is None:
        return None
    try:
        done = ShardDone.loads(text.decode())
    except ValueError:
        return None
    whole = all(store.size(f"{name}/{file}") == size for file, size in done.sizes.items())
    return done if whole and {CLIPS_FILE, SHARD_LEDGER_FILE} <= set(done.sizes) else None


def read_ledger(store: Store, name: str) -> pa.Table:
    """The ledger of a finished shard."""
    data = store.read(f"{name}/{SHARD_LEDGER_FILE}")
    if data is None:
        raise ValueError(f"shard {name} has a {DONE_FILE} but no {SHARD_LEDGER_FILE}; delete its directory and rerun")
    return pa.ipc.open_file(data).read_all()


def settled_modalities(done: ShardDone, features: FeatureSpec) -> tuple[Modality, ...]:
    """Modalities of a finished shard that are as wanted."""
    return tuple(m for m in features.modalities if done.fingerprints.get(m) == features.fingerprint(m))


def differences(done: ShardDone, rows: pa.Table, features: FeatureSpec) -> list[str]:
    """What contradicts keeping a finished shard, readable; empty when it can stay, with modalities added or not."""
    found = []
    if done.manifest != rows_hash(rows):
        found.append(f"its {done.clips + done.failed} manifest rows are not the {rows.num_rows} it should hold now")
    found += _changes(done.sampling, features.describe_clips())
    for modality in features.modalities:
        if modality in done.specs:
            changes = _changes(done.specs[modality], features.describe(modality))
            found += [change for change in changes if change not in found]
    return found


def with_stored(features: FeatureSpec, done: ShardDone) -> FeatureSpec:
    """What is asked for, and what a shard holds besides: a run never takes a modality away from a dataset."""
    stored: dict[str, dict[str, Any]] = {name: done.specs[name] for name in MODALITIES if name in done.specs}
    extra = [name for name in stored if name not in features.modalities]
    if "rgb" in extra:
        kept = RgbSpec(**{**stored["rgb"]["rgb"], "fixed_size_px": features.rgb.fixed_size_px})
        sampling = {"fps": features.rgb.fps, "short_side_px": features.rgb.short_side_px}
        features = replace(features, rgb=replace(kept, **sampling))
    if "flow" in extra:
        features = replace(features, flow=FlowSpec.from_description(stored["flow"]["flow"]))
    if "logmel" in extra:
        features = replace(features, logmel=LogmelSpec.from_description(stored["logmel"]["logmel"]))
    return replace(features, modalities=tuple(m for m in MODALITIES if m in features.modalities or m in extra))


def worth_another_try(
    store: Store, name: str, ledger: pa.Table, done: ShardDone, *, videos: str, limits: DecodeLimits
) -> bool:
    """Whether some clip that failed may do better now, so that the shard is made again.

    Four kinds may: the reason was of the moment; it was a limit, and the limits are others; the file was missing and is
    there; FFmpeg could not read the file and it has changed since. Other failures lie in what the file holds.
    """
    media = Store(videos)
    for row in ledger.filter(pc.equal(ledger["status"], "failed")).select(["uri", "reason"]).to_pylist():
        if row["reason"] in TRANSIENT_REASONS:
            return True
        if row["reason"] in LIMIT_REASONS and done.limits != asdict(limits):
            return True
        if row["reason"] == "missing-file":
            with suppress(OSError):
                if media.size(row["uri"]) is not None:
                    return True
        if row["reason"] == "unreadable" and media.is_local and store.is_local:
            # The time of a change is set by a rename, too; that of the contents travels with a copy.
            with suppress(OSError):
                if os.stat(media.path(row["uri"])).st_ctime > os.stat(store.path(f"{name}/{DONE_FILE}")).st_mtime:
                    return True
    return False


def _changes(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Settings that differ, as ``rgb.fps: 15.0 -> 8.0``.

    >>> _changes({"rgb": {"fps": 15.0}}, {"rgb": {"fps": 8.0}})
    ['rgb.fps: 15.0 -> 8.0']
    """
    found = []
    for key in [*old, *(k for k in new if k not in old)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _changes(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before} -> {after}")
    return found
