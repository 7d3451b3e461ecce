"""Preprocessing as a whole, on Ray Data: a manifest and a video root in, a dataset directory out.

The dataset that Ray sees has one row per shard, and the function mapped over it writes that shard and returns its
ledger. So Ray decides where and when a shard is made and nothing else: resuming, atomicity and the bytes themselves
depend on the plan alone, never on Ray's blocks, its retries or its own checkpoints, which lose rows under fan-out.

Run again, it keeps a finished shard unless one of its failed clips may do better now (`worth_another_try`).
"""

import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import ray
import ray.data
import torch
import torchaudio
from ray.exceptions import RayError, RayTaskError, UserCodeException

from pipelines.manifest import Manifest, read_manifest
from pipelines.plan import ShardPlan, from_bytes, is_shard_name, plan_shards, to_bytes
from pipelines.shards import (
    ShardJob,
    differences,
    find_done,
    read_ledger,
    skipped_ledger,
    worth_another_try,
    write_shard,
)
from pipelines.source import DecodeLimits
from pipelines.store import Store
from schemas.features import FeatureSpec
from schemas.layout import DATASET_FILE, DONE_FILE, LEDGER_FILE, DatasetInfo, ShardEntry
from schemas.ledger import LEDGER_SCHEMA
from schemas.manifest import SPLITS

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""

PROGRESS_S = 5.0
"""Least time between two progress lines."""

MAX_RETRIES = 3
"""How often a shard is tried again after its worker or node died; Ray's default is without end."""


class TooManyFailuresError(RuntimeError):
    """More clips failed than the job was told to accept. The ledger is written; there is no ``dataset.json``."""


class ShardError(RuntimeError):
    """A shard could not be written for a reason that lies in no clip: no space, no permission, workers that die."""


class ChangedDatasetError(ValueError):
    """What is already there was made from other rows or with other settings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessConfig:
    """What to preprocess, and how."""

    manifest: str
    """Path of the clip manifest (Parquet)."""
    videos: str
    """Root of the media files: local path or fsspec URL."""
    out: str
    """Dataset directory to write: local path or fsspec URL."""
    features: FeatureSpec = field(default_factory=FeatureSpec)
    """What to store."""
    max_error_rate: float = 0.05
    """The job stops and fails once more than this share of all clips has failed."""
    clips_per_shard: int = 256
    """Manifest rows per shard, the unit of work and of resuming."""
    on_change: Literal["refuse", "redo"] = "refuse"
    """What to do with finished shards made from other rows or with other settings."""
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    """What one clip may cost."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_error_rate <= 1:
            raise ValueError(f"max_error_rate must be in [0, 1], got {self.max_error_rate}")
        if self.clips_per_shard < 1:
            raise ValueError(f"clips_per_shard must be at least 1, got {self.clips_per_shard}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessSummary:
    """What came of it."""

    out: str
    """The dataset directory."""
    ok: int
    """Clips stored."""
    failed: int
    """Clips that could not be."""
    reasons: dict[str, int]
    """Failed clips by reason."""
    shards: int
    """Shards of the dataset."""
    kept_shards: int
    """Of these, finished by an earlier run."""
    wall_s: float
    """How long this run took."""


@dataclass(slots=True)
class _Tally:
    """What is known so far."""

    ledgers: dict[str, pa.Table] = field(default_factory=dict)
    status: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, ledger: pa.Table) -> None:
        self.ledgers[name] = ledger
        self.status.update(ledger["status"].to_pylist())
        self.reasons.update(reason for reason in ledger["reason"].to_pylist() if reason is not None)


def preprocess(config: PreprocessConfig, *, say: Callable[[str], None] | None = None) -> PreprocessSummary:
    """Make every shard that is not there yet, then the ledger, then ``dataset.json``. ``say`` receives progress."""
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    began_s = time.monotonic()
    versions = _versions()  # First: nothing may be found wrong with the installation once the work is done.
    manifest = read_manifest(config.manifest)
    store = Store(config.out)
    _require_directory(config.videos)
    plans = plan_shards(manifest, clips_per_shard=config.clips_per_shard)
    tally = _Tally()
    for name, ledger in _finished(store, manifest, plans, config):
        tally.add(name, ledger)
    kept = len(tally.ledgers)
    todo = [plan for plan in plans if plan.name not in tally.ledgers]
    say(f"preprocess: {manifest.table.num_rows} clips in {len(plans)} shards, {kept} already finished")

    allowed = config.max_error_rate * manifest.table.num_rows
    if todo and tally.status["failed"] <= allowed:
        store.remove(DATASET_FILE)  # While shards are made, there is no dataset for a reader.
        job = ShardJob(out=config.out, videos=config.videos, features=config.features, limits=config.limits)
        spoken_s = start_s = time.monotonic()
        already = sum(tally.status.values())
        for name, ledger in _run(manifest, todo, job):
            tally.add(name, ledger)
            now_s = time.monotonic()
            if now_s - spoken_s > PROGRESS_S or len(tally.ledgers) == len(plans):
                spoken_s = now_s
                rate = (sum(tally.status.values()) - already) / (now_s - start_s)
                say(
                    f"preprocess: {len(tally.ledgers)}/{len(plans)} shards, {tally.status['ok']} clips ok, "
                    f"{tally.status['failed']} failed, {rate:.1f} clips/s"
                )
            if tally.status["failed"] > allowed:
                break
    wall_s = time.monotonic() - began_s
    return _conclude(config, manifest, plans, tally, store, versions=versions, kept=kept, wall_s=wall_s)


def _require_directory(videos: str) -> None:
    root = Store(videos)
    if not root.fs.isdir(root.root or "/"):
        raise FileNotFoundError(f"there is no video root at {videos}")


def _finished(
    store: Store, manifest: Manifest, plans: list[ShardPlan], config: PreprocessConfig
) -> Iterator[tuple[str, pa.Table]]:
    """Shards an earlier run finished and this one can keep, with their ledgers. Others are refused or removed."""
    planned = {plan.name for plan in plans}
    with ThreadPoolExecutor(16) as pool:
        done = dict(zip(planned, pool.map(lambda name: find_done(store, name), planned), strict=True))
    changed: dict[str, list[str]] = {}
    for plan in plans:
        found = done[plan.name]
        if found is None:
            continue
        reasons = differences(found, manifest.table.take(plan.positions), config.features)
        if reasons:
            changed[plan.name] = reasons
            continue
        ledger = read_ledger(store, plan.name)
        if not worth_another_try(store, plan.name, ledger, config.videos):
            yield plan.name, ledger
    # What is there counts, not what dataset.json lists: a killed run has written none.
    present = [f"{split}/{name}" for split in SPLITS for name in store.directories(split)]
    for name in present:
        if is_shard_name(name) and name not in planned:
            changed[name] = [f"the manifest has no rows for it at --clips-per-shard {config.clips_per_shard}"]
    if not changed:
        return
    if config.on_change == "refuse":
        name, reasons = next(iter(changed.items()))
        more = f" (and {len(changed) - 1} more shards)" if len(changed) > 1 else ""
        raise ChangedDatasetError(
            f"{config.out} was made otherwise: shard {name}{more}: {'; '.join(reasons)}; "
            "write to another directory, or replace it with --on-change redo"
        )
    store.remove(DATASET_FILE)  # First: it lists what is about to go.
    for name in changed:
        store.remove(f"{name}/{DONE_FILE}")
        if name not in planned:
            store.remove(name)


def _run(manifest: Manifest, todo: list[ShardPlan], job: ShardJob) -> Iterator[tuple[str, pa.Table]]:
    """Ledgers of the shards, in the order in which they are finished."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Put one by one, so that the driver never holds the rows of millions of clips twice.
    refs: list[Any] = [ray.put(_shard_row(manifest, plan)) for plan in todo]
    shards = ray.data.from_arrow_refs(refs)
    with warnings.catch_warnings():
        # Deprecated from Ray 2.60 on, without another way to say how often a task is retried; removed in 2.64.
        warnings.filterwarnings("ignore", message="`ray_remote_args`", category=DeprecationWarning)
        ledgers = shards.map(partial(_write, job=job), num_cpus=1, max_retries=MAX_RETRIES)
    batches: Any = ledgers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    try:
        for batch in batches:
            for row in batch.to_pylist():
                if row["error"] is not None:
                    raise ShardError(f"shard {row['shard']} could not be written: {row['error']}")
                yield row["shard"], from_bytes(row["ledger"])
    except RayError as error:
        raise ShardError(f"workers died or failed, finished shards are kept: {_why(error)}") from error


def _why(error: BaseException) -> str:
    """What went wrong, in one line: of an error that a task raised, the error itself rather than Ray's traces."""
    cause = getattr(error, "cause", None) or error.__cause__
    if isinstance(error, RayTaskError | UserCodeException) and isinstance(cause, BaseException):
        return _why(cause)
    return f"{type(error).__name__}: {' '.join(str(error).split())[-500:]}"


def _shard_row(manifest: Manifest, plan: ShardPlan) -> pa.Table:
    """The row that stands for a shard: its name and its manifest rows, as Arrow IPC bytes."""
    rows = to_bytes(manifest.table.take(plan.positions))
    return pa.table({"shard": pa.array([plan.name]), "rows": pa.array([rows], pa.large_binary())})


def _write(row: dict[str, Any], *, job: ShardJob) -> dict[str, Any]:
    """The mapped function. The ledger is all that goes back through Ray; an error is a column, not an exception."""
    ledger, problem = b"", None
    try:
        ledger = to_bytes(write_shard(row["shard"], from_bytes(row["rows"]), job))
    except Exception as error:  # Through Ray it would arrive as a stack trace of several processes.
        problem = f"{type(error).__name__}: {error}"
    return {"shard": row["shard"], "ledger": ledger, "error": problem}


def _conclude(
    config: PreprocessConfig,
    manifest: Manifest,
    plans: list[ShardPlan],
    tally: _Tally,
    store: Store,
    *,
    versions: dict[str, str],
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
    info = DatasetInfo(
        tasks=manifest.tasks,
        features=config.features,
        shards=tuple(
            ShardEntry(
                split=plan.split, name=plan.name, clips=tally.ledgers[plan.name]["status"].to_pylist().count("ok")
            )
            for plan in plans
        ),
        counts=counts,
        versions=versions,
    )
    store.write(DATASET_FILE, info.dumps().encode())
    return PreprocessSummary(
        out=config.out,
        ok=ok,
        failed=failed,
        reasons=dict(tally.reasons),
        shards=len(plans),
        kept_shards=kept,
        wall_s=wall_s,
    )


def _in_manifest_order(ledger: pa.Table, manifest: Manifest) -> pa.Table:
    position = pc.index_in(ledger["clip_id"], value_set=manifest.table["clip_id"].combine_chunks())
    return ledger.take(pc.sort_indices(position)).cast(LEDGER_SCHEMA)


def _versions() -> dict[str, str]:
    """What decides the stored values besides the spec."""
    # Asked of the modules: OpenCV comes from any of four distributions.
    modules = {"av": av, "numpy": np, "opencv": cv2, "pyarrow": pa, "torch": torch, "torchaudio": torchaudio}
    codec = ".".join(str(part) for part in av.library_versions["libavcodec"])
    return {**{name: str(module.__version__) for name, module in modules.items()}, "libavcodec": codec}
