r"""One run of one method.

ray job submit --working-dir . -- \
    python -m jobs.train small-cpu --data s3://b/data --out s3://b/runs/online --method online --workers 8
"""

import sys
from collections.abc import Sequence

from gblend.candidate import read_schedule
from gblend.config import ComputeConfig, TrainConfig
from gblend.cost import BRANCH_EPOCH
from gblend.group import delete_ray_directories
from gblend.records import RunResult, to_json
from gblend.runs import load_run
from gblend.worker import Plan, describe, make_plan, train_runs
from jobs.cache import with_cache
from jobs.cli import Flat, JobError, run
from jobs.commands import command_line
from jobs.places import absolute
from jobs.progress import progress
from jobs.recipes import RECIPES
from jobs.report import write_page
from jobs.session import connect
from jobs.terminal import Result, say

COMPUTE = ComputeConfig()


def train(
    *,
    config: Flat[TrainConfig],
    data: str,
    out: str,
    method: str | None = None,
    seed: int = 0,
    schedule: str = "",
    compute: Flat[ComputeConfig] = COMPUTE,
) -> Result:
    """Train one network and write its run directory.

    Args:
        config: The recipe; every field is a flag.
        data: Data set directory, as `gblend preprocess` writes it.
        out: Run directory; runs the method builds on go to OUT/probes. On several nodes, storage they share.
        method: uni:<modality>, naive, dropout, early-stop, pretrain, ogm-ge, equal, fixed, uncertainty, tracked,
            offline, online, ensemble or ensemble+naive. None means that of the schedule, or online.
        seed: Decides initialisation, batches, windows and dropout.
        schedule: `best.json` of a search: its settings take the place of the recipe's, and flags that of both.
        compute: Workers and what each of them holds.
    """
    data, out = absolute(data), absolute(out)
    compute = with_cache(compute, data)
    method = method or (read_schedule(schedule).method if schedule else "online")
    plan = make_plan(
        data,
        config,
        [method],
        [seed],
        compute=compute,
        place=lambda run: out if run.method == method else f"{out}/probes/{run.name}",
    )
    carry_out(plan, compute, storage=out)
    finished = load_run(out, config.predict_by)
    if not plan.pending:  # else the worker group has said so
        say(describe(finished.result))
    page = f"{out}/report.html"
    write_page([finished], out=page, title=f"{method} on {data}", data=data, command=command_line())
    return Result(place=out, numbers={"report": page, **numbers_of(finished.result)})


def numbers_of(result: RunResult) -> dict[str, object]:
    """What a run has come to, for programs; ``result.json`` has every head and every way of predicting."""
    judged = {split: score for split in result.scores if (score := result.judged(split)) is not None}
    return {
        "method": result.method,
        "seed": result.seed,
        "predict_by": result.primary,
        "scores": {split: to_json(score) for split, score in judged.items()},
        "branch_epochs": result.branch_epochs,
        "seconds": result.seconds,
    }


def carry_out(plan: Plan, compute: ComputeConfig, *, storage: str, more: Sequence[Plan] = ()) -> None:
    """Train what plans still lack, on one worker group; finished plans ask for no cluster."""
    plans = [each for each in (plan, *more) if each.pending]
    if plans:
        pending = sum(each.pending for each in plans)
        runs = "1 run" if pending == 1 else f"{pending} runs"
        cost = sum(each.branch_epochs for each in plans)
        say(f"to train: {runs}, {cost:.4g} branch-epochs ({BRANCH_EPOCH})")
        with progress("train", "network epochs", total=sum(each.network_epochs for each in plans)) as shown, connect():
            step = shown.step if shown.live else None
            try:
                train_runs(plans[0], compute, storage=storage, more=plans[1:], say=say, step=step)
            except RuntimeError as error:
                raise JobError(f"training failed: {error}") from error
    else:
        delete_ray_directories(storage)  # of a driver that was killed, and whose workers finished


if __name__ == "__main__":
    sys.exit(run(train, prog="python -m jobs.train", recipes=RECIPES))
