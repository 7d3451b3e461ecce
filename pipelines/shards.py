"""Write one shard, or see that it is already there.

A shard is a pure function of its manifest rows and the feature spec: clips are computed one after another in manifest
order and streamed into Arrow files under temporary names, which are then renamed; ``done.json`` comes last, and without
one the shard does not exist. Killed at any moment, the next run makes the same bytes again.
"""

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipelines.clip import ClipFailure, make_clip
from pipelines.plan import rows_hash
from pipelines.source import TRANSIENT_REASONS, DecodeLimits
from pipelines.store import Store, sha256_of
from schemas.features import MODALITIES, FeatureSpec, Modality
from schemas.layout import CLIPS_FILE, DONE_FILE, SHARD_LEDGER_FILE, ShardDone, feature_file
from schemas.ledger import LEDGER_SCHEMA
from schemas.shards import clips_schema, feature_schema
from schemas.task import decode_tasks

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardJob:
    """What every shard of a dataset has in common."""

    out: str
    """Dataset directory: path or fsspec URL."""
    videos: str
    """Root of the media files: path or fsspec URL."""
    features: FeatureSpec
    """What to compute."""
    limits: DecodeLimits
    """What one clip may cost."""


def write_shard(name: str, rows: pa.Table, job: ShardJob) -> pa.Table:
    """Compute and publish one shard; returns its ledger. Replaces whatever is there under its name."""
    store = Store(job.out)
    store.remove(f"{name}/{DONE_FILE}")  # First: while its files change, the shard does not exist.
    store.clear_unfinished(name)
    tasks = decode_tasks(rows.schema.metadata, what="manifest rows")
    modalities: list[Modality] = [m for m in MODALITIES if m in job.features.modalities]
    schemas = {feature_file(m): feature_schema(m, job.features) for m in modalities}
    names = [*schemas, CLIPS_FILE, SHARD_LEDGER_FILE]
    clips, ledger = [], []
    with store.publish([f"{name}/{file}" for file in names]) as paths:
        with ExitStack() as files:
            writers = {
                file: files.enter_context(pa.ipc.new_file(paths[f"{name}/{file}"], schema))
                for file, schema in schemas.items()
            }
            for row in rows.to_pylist():
                made = make_clip(row, videos=job.videos, features=job.features, limits=job.limits)
                if isinstance(made, ClipFailure):
                    ledger.append(_entry(row, "failed", made.stage, made.reason, made.message))
                    continue
                for modality in modalities:
                    file = feature_file(modality)
                    writers[file].write_batch(_batch(made.features[modality], schemas[file]))
                ledger.append(_entry(row, "ok", None, None, made.note, shard=name, position=len(clips)))
                clips.append({**row, **made.presence})
        _write_table(paths[f"{name}/{CLIPS_FILE}"], pa.Table.from_pylist(clips, clips_schema(tasks)))
        ledger_table = pa.Table.from_pylist(ledger, LEDGER_SCHEMA)
        _write_table(paths[f"{name}/{SHARD_LEDGER_FILE}"], ledger_table)
        done = ShardDone(
            clips=len(clips),
            failed=len(ledger) - len(clips),
            manifest=rows_hash(rows),
            fingerprints={m: job.features.fingerprint(m) for m in modalities},
            checksums={file: sha256_of(paths[f"{name}/{file}"]) for file in names},
            sizes={file: os.path.getsize(paths[f"{name}/{file}"]) for file in names},
            specs={m: job.features.describe(m) for m in modalities},
        )
    store.write(f"{name}/{DONE_FILE}", done.dumps().encode())
    return ledger_table


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


def worth_another_try(store: Store, name: str, ledger: pa.Table, videos: str) -> bool:
    """Whether some clip that failed may do better now, so that the shard is made again.

    Three kinds may: the reason was of the moment; the file was missing and is there; FFmpeg could not read the file
    and it has changed since. Other failures lie in what the file holds, and nothing is touched for them.
    """
    media = Store(videos)
    for row in ledger.filter(pc.equal(ledger["status"], "failed")).select(["uri", "reason"]).to_pylist():
        if row["reason"] in TRANSIENT_REASONS:
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


def read_ledger(store: Store, name: str) -> pa.Table:
    """The ledger of a finished shard."""
    data = store.read(f"{name}/{SHARD_LEDGER_FILE}")
    if data is None:
        raise ValueError(f"shard {name} has a {DONE_FILE} but no {SHARD_LEDGER_FILE}; delete its directory and rerun")
    return pa.ipc.open_file(data).read_all()


def differences(done: ShardDone, rows: pa.Table, features: FeatureSpec) -> list[str]:
    """What keeps a finished shard from being kept, readable; empty when it can be."""
    found = []
    if done.manifest != rows_hash(rows):
        found.append(f"its {done.clips + done.failed} manifest rows are not the {rows.num_rows} it should hold now")
    for modality in MODALITIES:
        wanted = modality in features.modalities
        if wanted and modality not in done.fingerprints:
            found.append(f"it holds no {modality}")
        elif modality in done.fingerprints and done.fingerprints[modality] != features.fingerprint(modality):
            changes = _changes(done.specs.get(modality, {}), features.describe(modality))
            found.append(f"{modality}: {', '.join(changes) or 'made with other settings'}")
    return found


def skipped_ledger(rows: pa.Table, *, reason: str, message: str) -> pa.Table:
    """Ledger rows of clips that were never tried."""
    entries = [_entry(row, "skipped", "plan", reason, message) for row in rows.to_pylist()]
    return pa.Table.from_pylist(entries, LEDGER_SCHEMA)


def _entry(
    row: dict[str, Any],
    status: str,
    stage: str | None,
    reason: str | None,
    message: str | None,
    *,
    shard: str | None = None,
    position: int | None = None,
) -> dict[str, Any]:
    identity = {name: row[name] for name in ("clip_id", "uri", "split")}
    said = {"status": status, "stage": stage, "reason": reason, "message": message}
    return {**identity, **said, "shard": shard, "row": position}


def _batch(values: dict[str, Any], schema: pa.Schema) -> pa.RecordBatch:
    """One clip, one record batch: a shuffled reader touches only the clips it asks for."""
    return pa.record_batch([pa.array([values.get(f.name)], type=f.type) for f in schema], schema=schema)


def _write_table(path: str, table: pa.Table) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


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
