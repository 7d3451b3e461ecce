"""Write one shard, or add modalities to one.

A shard is a pure function of its manifest rows and the feature spec: clips are computed source by source in the order
of the plan and streamed into Arrow files under temporary names, which are then renamed; ``done.json`` comes last, and
without one the shard does not exist. Killed at any moment, the next run makes the same bytes again.

A modality that is added later, or made with other settings, changes its own file and ``done.json`` only.
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from pipelines.decoder import Answer, DecodeJob, StoredClip, shared_decoder
from pipelines.messages import ClipFailure, ClipRequest, SourceRequest
from pipelines.plan import rows_hash
from pipelines.source import DecodeLimits
from pipelines.state import find_done, read_ledger, settled_modalities, worth_another_try
from pipelines.store import Store, sha256_of
from schemas.features import FeatureSpec, Modality
from schemas.layout import CLIPS_FILE, DONE_FILE, SHARD_LEDGER_FILE, ShardDone, feature_file
from schemas.ledger import LEDGER_SCHEMA
from schemas.shards import clips_schema, feature_schema
from schemas.task import decode_tasks


class LostClipError(RuntimeError):
    """A clip that is stored gives nothing any more, so a modality cannot be added to it."""


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
    on_change: Literal["refuse", "redo"] = "refuse"
    """What to do when a stored clip cannot be had any more while a modality is added: fail, or make the shard anew."""

    @property
    def decoding(self) -> DecodeJob:
        """The part of it that a decoder needs."""
        return DecodeJob(videos=self.videos, features=self.features, limits=self.limits)


def write_shard(name: str, rows: pa.Table, job: ShardJob) -> pa.Table:
    """Compute and publish what a shard lacks; returns its ledger.

    One that is finished is left as it is, unless it was made from other rows or a failed clip of it may do better now:
    a task of a job that has been stopped may finish its shard after the next job has looked at it.
    """
    store = Store(job.out)
    store.clear_unfinished(name)
    done = find_done(store, name)
    if done is None or done.manifest != rows_hash(rows) or done.sampling != job.features.describe_clips():
        return _write_all(store, name, rows, job)
    settled = settled_modalities(done, job.features)
    missing: tuple[Modality, ...] = tuple(m for m in job.features.modalities if m not in settled)
    if missing:
        try:
            _add(store, name, missing, done, job)
        except LostClipError:
            if job.on_change == "refuse":
                raise
            return _write_all(store, name, rows, job)
        return read_ledger(store, name)
    ledger = read_ledger(store, name)
    if worth_another_try(store, name, ledger, done, videos=job.videos, limits=job.limits):
        return _write_all(store, name, rows, job)
    return ledger


def _write_all(store: Store, name: str, rows: pa.Table, job: ShardJob) -> pa.Table:
    """The whole shard. Replaces whatever is there under its name."""
    store.remove(f"{name}/{DONE_FILE}")  # First: while its files change, the shard does not exist.
    tasks = decode_tasks(rows.schema.metadata, what="manifest rows")
    modalities = job.features.modalities
    files = [*map(feature_file, modalities), CLIPS_FILE, SHARD_LEDGER_FILE]
    clips: list[dict[str, Any]] = []
    ledger: list[dict[str, Any]] = []
    with store.publish([f"{name}/{file}" for file in files]) as paths:
        with ExitStack() as stack:
            writers = _writers(stack, name, modalities, paths, job.features)
            for row, made in _decoded(rows.to_pylist(), modalities, job):
                if isinstance(made, ClipFailure):
                    ledger.append(_entry(row, "failed", made.stage, made.reason, made.message))
                    continue
                for modality in modalities:
                    writers[modality].write_batch(made.batches[modality])
                ledger.append(_entry(row, "ok", None, None, made.note, shard=name, position=len(clips)))
                clips.append({**row, **made.presence})
        _write_table(paths[f"{name}/{CLIPS_FILE}"], pa.Table.from_pylist(clips, clips_schema(tasks)))
        ledger_table = pa.Table.from_pylist(ledger, LEDGER_SCHEMA)
        _write_table(paths[f"{name}/{SHARD_LEDGER_FILE}"], ledger_table)
        done = ShardDone(
            clips=len(clips),
            failed=len(ledger) - len(clips),
            manifest=rows_hash(rows),
            present={m: sum(_expected(clip, m, job.features) for clip in clips) for m in modalities},
            sampling=job.features.describe_clips(),
            fingerprints={m: job.features.fingerprint(m) for m in modalities},
            specs={m: job.features.describe(m) for m in modalities},
            checksums={file: sha256_of(paths[f"{name}/{file}"]) for file in files},
            sizes={file: os.path.getsize(paths[f"{name}/{file}"]) for file in files},
            limits=asdict(job.limits),
            versions=shared_decoder().versions(),
        )
    store.write(f"{name}/{DONE_FILE}", done.dumps().encode())
    return ledger_table


def _add(store: Store, name: str, modalities: tuple[Modality, ...], done: ShardDone, job: ShardJob) -> None:
    """Compute modalities for the clips that a finished shard holds."""
    data = store.read(f"{name}/{CLIPS_FILE}")
    assert data is not None, "a finished shard has this file"
    clips = pa.ipc.open_file(data).read_all().to_pylist()
    files = [feature_file(modality) for modality in modalities]
    if any(file in done.sizes for file in files):
        # A file that is about to be replaced must not be taken for the finished one should this be the last we do.
        done = without(done, modalities)
        store.write(f"{name}/{DONE_FILE}", done.dumps().encode())
    with store.publish([f"{name}/{file}" for file in files]) as paths:
        with ExitStack() as stack:
            writers = _writers(stack, name, modalities, paths, job.features)
            for row, made in _decoded(clips, modalities, job):
                if isinstance(made, ClipFailure):
                    raise _lost(name, row, f"{made.reason}: {made.message}")
                for modality in modalities:
                    batch = made.batches[modality]
                    if (batch.column(1)[0].as_py() is not None) != _expected(row, modality, job.features):
                        raise _lost(name, row, f"{modality} does not agree with what is stored of it")
                    writers[modality].write_batch(batch)
        done = replace(
            done,
            present={**done.present, **{m: sum(_expected(c, m, job.features) for c in clips) for m in modalities}},
            fingerprints={**done.fingerprints, **{m: job.features.fingerprint(m) for m in modalities}},
            specs={**done.specs, **{m: job.features.describe(m) for m in modalities}},
            checksums={**done.checksums, **{file: sha256_of(paths[f"{name}/{file}"]) for file in files}},
            sizes={**done.sizes, **{file: os.path.getsize(paths[f"{name}/{file}"]) for file in files}},
            versions=shared_decoder().versions(),
        )
    store.write(f"{name}/{DONE_FILE}", done.dumps().encode())


def without(done: ShardDone, modalities: tuple[str, ...]) -> ShardDone:
    """A shard's document without some modalities."""
    gone = {*modalities, *map(feature_file, modalities)}

    def kept(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name not in gone}

    return replace(
        done,
        present=kept(done.present),
        fingerprints=kept(done.fingerprints),
        specs=kept(done.specs),
        checksums=kept(done.checksums),
        sizes=kept(done.sizes),
    )


def _expected(row: dict[str, Any], modality: Modality, features: FeatureSpec) -> bool:
    """Whether a stored clip must have a modality."""
    if modality == "logmel":
        return row["has_audio"]
    return row["frames"] > (features.flow.stride if modality == "flow" else 0)


def _lost(name: str, row: dict[str, Any], why: str) -> LostClipError:
    return LostClipError(
        f"clip {row['clip_id']!r} of shard {name} is stored and cannot be had now ({why}); "
        "put its file back, or make such shards anew with --on-change redo"
    )


def _decoded(
    rows: list[dict[str, Any]], modalities: tuple[Modality, ...], job: ShardJob
) -> Iterator[tuple[dict[str, Any], StoredClip | ClipFailure]]:
    """Every row with what came of it, in order; the rows of one source file are decoded together."""
    for uri, found in itertools.groupby(rows, key=lambda row: row["uri"]):
        group = list(found)
        clips = tuple(
            ClipRequest(
                clip_id=row["clip_id"], start_s=row["start_s"], end_s=row["end_s"], duration_s=row.get("duration_s")
            )
            for row in group
        )
        answers = shared_decoder().clips(SourceRequest(uri=uri, clips=clips, modalities=modalities), job.decoding)
        for index, answer in enumerate(_in_order(answers)):
            yield group[index], answer.made


def _in_order(answers: Iterator[Answer]) -> Iterator[Answer]:
    """Answers by index. The plan sorts clips as they become complete, so hardly any has to wait."""
    early: dict[int, Answer] = {}
    due = 0
    for answer in answers:
        early[answer.index] = answer
        while due in early:
            yield early.pop(due)
            due += 1
    assert not early, "every clip has one answer"


def _writers(
    stack: ExitStack, name: str, modalities: tuple[Modality, ...], paths: dict[str, str], features: FeatureSpec
) -> dict[Modality, Any]:
    """An open file for each modality. One clip, one record batch: a shuffled reader touches only what it asks for."""
    return {
        modality: stack.enter_context(
            pa.ipc.new_file(paths[f"{name}/{feature_file(modality)}"], feature_schema(modality, features))
        )
        for modality in modalities
    }


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


def _write_table(path: str, table: pa.Table) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
