"""Preprocessing as a whole, on Ray Data: a manifest and a video root in, a dataset directory out.

The dataset that Ray sees has one row per shard, and the function mapped over it writes that shard and returns its
ledger. So Ray decides where and when a shard is made and nothing else: resuming, atomicity and the bytes themselves
depend on the plan alone, never on Ray's blocks, its retries or its own checkpoints, which lose rows under fan-out.

Run again, it keeps a finished shard unless one of its failed clips may do better now (`worth_another_try`), and adds
modalities that shards lack.
"""

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError, RayTaskError, UserCodeException

from pipelines.conclude import Tally, TooManyFailuresError, conclude
from pipelines.manifest import Manifest, read_manifest
from pipelines.plan import ShardPlan, from_bytes, plan_shards, to_bytes
from pipelines.settings import PreprocessConfig, PreprocessSummary
from pipelines.shards import LostClipError, ShardJob, write_shard
from pipelines.state import find_done, settled_modalities
from pipelines.store import Store, StoreError
from pipelines.survey import Before, ChangedDatasetError, clear, survey
from schemas.features import FeatureSpec
from schemas.layout import ShardDone

__all__ = [
    "ChangedDatasetError",
    "PreprocessConfig",
    "PreprocessSummary",
    "ShardError",
    "TooManyFailuresError",
    "preprocess",
]

PROGRESS_S = 5.0
"""Least time between two progress lines."""

MAX_RETRIES = 3
"""How often a shard is tried again after its worker or node died; Ray's default is without end."""


GPU_SHARE = 0.25
"""Of a GPU, for flow by a network: decoding on a CPU core takes longer than a GPU needs for what one core decodes."""


class ShardError(RuntimeError):
    """A shard could not be written for a reason that lies in no clip: no space, no permission, workers that die."""


def preprocess(
    config: PreprocessConfig,
    *,
    say: Callable[[str], object] | None = None,
    step: Callable[[float, float, str], object] | None = None,
) -> PreprocessSummary:
    """Make every shard that is not there yet, then the ledger, then ``dataset.json``.

    Args:
        config: What to make of what.
        say: Told in a line what goes on, and how far it is where ``step`` is not given.
        step: Told how many clips of how many are done, and more in words, after every shard.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    began_s = time.monotonic()
    manifest = read_manifest(config.manifest)
    store = Store(config.out)
    _require_directory(config.videos)
    plans = plan_shards(manifest, clips_per_shard=config.clips_per_shard)
    tally = Tally()
    before = survey(store, manifest, plans, config)
    for name, ledger in before.kept.items():
        tally.add(name, ledger, before.done[name])
    todo = [plan for plan in plans if plan.name not in before.kept]
    say(
        f"preprocess: {manifest.table.num_rows} clips in {len(plans)} shards, {len(before.kept)} already finished"
        + (f", {len(before.growing)} to get more modalities" if before.growing else "")
    )
    allowed = config.max_error_rate * manifest.table.num_rows
    if todo and tally.status["failed"] <= allowed:
        features = _prepared(before, todo)
        clear(store, before, todo)
        job = ShardJob(
            out=config.out,
            videos=config.videos,
            features=features,
            limits=config.limits,
            on_change=config.on_change,
        )
        spoken_s = start_s = time.monotonic()
        already = sum(tally.status.values())
        for name, ledger, done in _run(manifest, todo, job):
            tally.add(name, ledger, done)
            now_s = time.monotonic()
            if step is not None:
                step(sum(tally.status.values()), manifest.table.num_rows, f"{tally.status['failed']} failed")
            elif now_s - spoken_s > PROGRESS_S or len(tally.ledgers) == len(plans):
                spoken_s = now_s
                rate = (sum(tally.status.values()) - already) / (now_s - start_s)
                left_s = (manifest.table.num_rows - sum(tally.status.values())) / rate
                say(
                    f"preprocess: {len(tally.ledgers)}/{len(plans)} shards, {tally.status['ok']} clips ok, "
                    f"{tally.status['failed']} failed, {rate:.1f} clips/s{_left(left_s)}"
                )
            if tally.status["failed"] > allowed:
                break
    wall_s = time.monotonic() - began_s
    summary = conclude(config, before.features, manifest, plans, tally, store, kept=len(before.kept), wall_s=wall_s)
    for modality, count in summary.present.items():
        if count == 0:
            say(f"preprocess: warning: not one clip has {modality}")
    return summary


def _left(seconds: float) -> str:
    """What a line about progress ends with.

    >>> _left(600.0), _left(119.0), _left(0.0)
    (', 10 min left', ', 119 s left', '')
    """
    if seconds < 0.5:
        return ""
    return f", {seconds:.0f} s left" if seconds < 120 else f", {seconds / 60:.0f} min left"


def _prepared(before: Before, todo: list[ShardPlan]) -> FeatureSpec:
    """What is to be computed; flow that a dataset holds and is not asked for now may still be missing in a shard."""
    from pipelines.flow import prepared  # Workers import this module and never compute flow.

    features = before.features
    if "flow" not in features.modalities:
        return features
    settled = [name for name, done in before.done.items() if "flow" in settled_modalities(done, features)]
    lacking = {plan.name for plan in todo} - (set(settled) - set(before.again))
    return replace(features, flow=prepared(features.flow)) if lacking else features


def _require_directory(videos: str) -> None:
    if not Store(videos).is_directory():
        raise FileNotFoundError(f"there is no video root at {videos}")


def _run(manifest: Manifest, todo: list[ShardPlan], job: ShardJob) -> Iterator[tuple[str, pa.Table, ShardDone]]:
    """Ledgers and documents of the shards, in the order in which they are finished."""
    for row in _written(manifest, todo, job):
        if row["error"] is not None:
            raise ShardError(f"shard {row['shard']} could not be written: {row['error']}")
        yield row["shard"], from_bytes(row["ledger"]), ShardDone.loads(row["done"])


def _written(manifest: Manifest, todo: list[ShardPlan], job: ShardJob) -> Iterator[dict[str, Any]]:
    """What `_write` returns for the shards, each called by Ray wherever there is a free core."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = -1  # A shard may take an hour; what hangs is ended clip by clip.
    # Put one by one, so that the driver never holds the rows of millions of clips twice.
    refs: list[Any] = [ray.put(_shard_row(manifest, plan)) for plan in todo]
    shards = ray.data.from_arrow_refs(refs)
    with warnings.catch_warnings():
        # Deprecated from Ray 2.60 on, without another way to say how often a task is retried; removed in 2.64.
        warnings.filterwarnings("ignore", message="`ray_remote_args`", category=DeprecationWarning)
        ledgers = shards.map(
            partial(_write, job=job), num_cpus=1, num_gpus=_gpus(job.features), max_retries=MAX_RETRIES
        )
    batches: Any = ledgers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    try:
        for batch in batches:
            yield from batch.to_pylist()
    except RayError as error:
        raise ShardError(f"workers died or failed, finished shards are kept: {_why(error)}") from error


def _gpus(features: FeatureSpec) -> float | None:
    """The share of a GPU that a shard's task asks for; none where the cluster has none."""
    wanted = "flow" in features.modalities and features.flow.wants_gpu
    return GPU_SHARE if wanted and ray.cluster_resources().get("GPU", 0) > 0 else None


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
    ledger, done, problem = b"", "", None
    try:
        ledger = to_bytes(write_shard(row["shard"], from_bytes(row["rows"]), job))
        document = find_done(Store(job.out), row["shard"])
        if document is None:
            raise ValueError("it was written, and is not there")
        done = document.dumps()
    except Exception as error:  # Through Ray it would arrive as a stack trace of several processes.
        told = isinstance(error, StoreError | LostClipError)
        problem = str(error) if told else f"{type(error).__name__}: {error}"
    return {"shard": row["shard"], "ledger": ledger, "done": done, "error": problem}
