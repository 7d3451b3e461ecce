r"""A finished run on a split, by the multi-clip protocol.

ray job submit --working-dir . -- \
    python -m jobs.evaluate --run s3://b/runs/online --data s3://b/data --split test --workers 8
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from gblend.config import ComputeConfig
from gblend.evaluation import open_evaluation
from gblend.records import HeadScore, read_json, read_scores
from gblend.runs import load_run
from gblend.scores import metric_words
from gblend.table_text import aligned, decimal
from gblend.views import Crops, Views
from gblend.worker import EvaluationJob, evaluate_run
from jobs.cache import with_cache
from jobs.cli import JobError
from jobs.cli import run as run_job
from jobs.places import absolute
from jobs.progress import progress
from jobs.session import connect
from jobs.terminal import Result, say

COMPUTE = ComputeConfig()


def evaluate(
    *,
    run: str,
    data: str = "",
    split: Literal["train", "val", "test"] = "test",
    clips: int = 10,
    crops: Crops = "centre",
    out: str = "",
    workers: int = COMPUTE.workers,
    gpus_per_worker: float = COMPUTE.gpus_per_worker,
    cpus_per_worker: float = COMPUTE.cpus_per_worker,
    loader_processes: int = COMPUTE.loader_processes,
    cache_dir: str | None = COMPUTE.cache_dir,
    cache_gib: float = COMPUTE.cache_gib,
) -> Result:
    """Score every head of a finished run, and every way of predicting with them, on several windows of every clip.

    Args:
        run: Run directory, as `gblend train` writes it.
        data: Data set directory of the same tasks and features; the one that the run was trained on when not given.
        split: Which of its splits.
        clips: Windows of every clip, spread evenly in time; 1 is the central one that runs are scored on.
        crops: Of every window: the centre, or three places along the longer side of the picture.
        out: JSON file to write; RUN/evaluation/SPLIT-<clips>x<crops>.json when not given, before that the name of the
            data set where it is another one than the run's.
        workers: Processes that share the clips.
        gpus_per_worker: GPUs each of them holds; 0 computes on the CPU.
        cpus_per_worker: CPU cores each of them holds; also its threads.
        loader_processes: Processes of each of them that decode clips while it computes, on its cores; 0: between
            batches.
        cache_dir: Where each node keeps copies of a data set that is not on a path, as for `gblend train`.
        cache_gib: What all copies in it may take together.
    """
    run, out = absolute(run), absolute(out) if out else ""
    own = str(load_run(run).config.get("data", ""))
    own = absolute(own) if own else ""
    if not (data or own):
        raise ValueError(f"{run} does not say which data set it was trained on; name one with --data")
    data, views = absolute(data) if data else own, Views(clips=clips, crops=crops)
    compute = replace(
        COMPUTE,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        cpus_per_worker=cpus_per_worker,
        loader_processes=loader_processes,
        cache_dir=cache_dir,
        cache_gib=cache_gib,
    )
    compute = with_cache(compute, data)
    other = "" if data == own else f"{data.rpartition('/')[2]}-"
    out = out or f"{run}/evaluation/{other}{split}-{views.name}.json"
    open_evaluation(run, data, split, views)  # What does not fit must not cost the start of a worker group.
    with progress("evaluate", "clips") as shown, connect():
        step = shown.step if shown.live else None
        try:
            job = EvaluationJob(run=run, data=data, split=split, views=views, out=out)
            evaluate_run(job, compute, storage=out.rpartition("/")[0], say=say, step=step)
        except RuntimeError as error:
            raise JobError(f"evaluation failed: {error}") from error
    found = read_json(out)
    say(
        f"{found['method']} seed {found['seed']}: {found['clips']} clips of {split}, {clips} windows of each, "
        f"{'three crops' if crops == 'three' else 'centre crop'}; judged by {found['predict_by']}\n"
    )
    say(table(read_scores(found["heads"]) | ways_that_add(found)))
    return Result(place=out, numbers=found)


def ways_that_add(found: Mapping) -> dict[str, HeadScore]:
    """The ways of predicting that are no head by themselves."""
    return {name: score for name, score in read_scores(found["ways"]).items() if name not in found["heads"]}


def table(scores: Mapping[str, HeadScore]) -> str:
    """Heads and ways of predicting, a line each, all their metrics and the loss."""
    metrics = list(dict.fromkeys(name for score in scores.values() for name in score.metrics))
    titles = ["", *map(metric_words, metrics), "loss", "clips"]
    lines = [
        [
            name,
            *(decimal(score.metrics[metric]) if metric in score.metrics else "" for metric in metrics),
            decimal(score.loss_nats),
            str(score.count),
        ]
        for name, score in scores.items()
    ]
    return aligned(titles, lines)


if __name__ == "__main__":
    sys.exit(run_job(evaluate, prog="python -m jobs.evaluate"))
