r"""A search for a schedule of loss weights: the best one, all trials, a report.

ray job submit --working-dir . -- \
    python -m jobs.tune small-cpu --data s3://b/data --out s3://b/sweep --num-samples 64 --workers 2
"""

import sys
from collections import Counter
from typing import Literal

from gblend.candidate import write_schedule
from gblend.cluster import nodes, require_room
from gblend.config import ComputeConfig, TrainConfig
from gblend.data import load_run_data
from gblend.heads import FUSED, head_names
from gblend.importance import importance, why_not
from gblend.judge import without_test
from gblend.run_files import flat
from gblend.runs import load_run
from gblend.scores import metric_words
from gblend.search_files import require_same_search, write_search
from gblend.table_text import aligned, decimal, to_text
from gblend.trial_files import RUN_DIRECTORY
from gblend.trials import Trial, best_trial, worth_their_cost
from gblend.tuning_page import write_tuning_page
from gblend.worker import make_plan
from jobs.cache import with_cache
from jobs.cli import Flat, JobError, Unchanged, run
from jobs.commands import command_line
from jobs.final import compare_rows, plan_rows, train_rows
from jobs.places import absolute
from jobs.progress import progress
from jobs.recipes import RECIPES
from jobs.search_checks import require_not_drawn, require_readers_of, require_usable
from jobs.session import connect
from jobs.sweep import Ways, carry_out, side_by_side
from jobs.terminal import Result, say, terminal_columns
from jobs.trial import Search

COMPUTE = ComputeConfig()


def tune(
    *,
    config: Flat[TrainConfig],
    data: str,
    out: str,
    num_samples: int = 16,
    max_concurrent: int | None = None,
    scheduler: Literal["asha", "median", "pbt", "none"] = "asha",
    search: Literal["random", "grid", "optuna"] = "random",
    space: Literal["blends", "schedules", "weights"] = "blends",
    seed: int = 0,
    final_seeds: tuple[int, ...] = (1, 2, 3),
    compute: Flat[ComputeConfig] = COMPUTE,
    recipe: Unchanged[TrainConfig] = None,
) -> Result:
    """Search schedules of loss weights, and train the best one anew beside the paper's and equal weights.

    A trial is one training run; it is judged on the validation split after every epoch. The test split is read once, by
    the winner and its controls. The same command goes on with what was stopped.

    Args:
        config: The recipe; every field that the space does not draw is a flag, and learning rate and weight decay are
            drawn around it.
        data: Data set directory, as `gblend preprocess` writes it; it must have a validation split.
        out: Directory of the search: OUT/best.json, OUT/trials.parquet, OUT/report.html, OUT/trials/, OUT/final/.
            On several nodes, storage they share.
        num_samples: How many trials; with more, the same command goes on to try more.
        max_concurrent: Trials side by side; as many as the cluster has room for when not given.
        scheduler: What becomes of trials that fall behind: they are stopped by asha (successive halving) or median, or
            go on from the best, with its settings a little changed, by pbt (population based training); or none.
        search: What is tried next: at random, the points of a grid, or what Optuna suggests (gblend[tune]).
        space: What is searched: blends (schedules, estimators, their rules, optimiser), schedules (with probes, and
            nothing else), or weights (given by hand, and the learning rate).
        seed: Of the search, and of every trial's training.
        final_seeds: Of the trainings that are compared in the end; the search has not seen them.
        compute: Workers of each trial and what each of them holds.
        recipe: What ``config`` was before its flags; None: it is a recipe itself.
    """
    data, out = absolute(data), absolute(out)
    compute = with_cache(compute, data)
    require_usable(num_samples, max_concurrent, scheduler, search, seed, final_seeds, config, compute)
    whole = load_run_data(data, config)
    loaded = without_test(whole, data)
    if "test" not in whole.splits:
        raise ValueError(
            f"{data} has no clip in split 'test', on which the winner of a search is compared; hold some clips out as "
            "'test' in the manifest and run `gblend preprocess` again"
        )
    # What cannot be trained at all is said before any trial fails of it.
    make_plan(data, config, ["online", "equal"], [seed], compute=compute, place=lambda run: f"{out}/final/{run.name}")
    searched = Search(
        data=data,
        fingerprint=loaded.fingerprint,
        modalities=loaded.modalities,
        heads=head_names(loaded.tasks, (*loaded.modalities, FUSED)),
        out=out,
        recipe=config,
        space=space,
        seed=seed,
        compute=compute,
    )
    require_readers_of(searched, num_samples, loaded.tasks)
    require_not_drawn(searched, num_samples, recipe=recipe or config)
    settings = {
        **config.to_json(),
        "space": space,
        "search": search,
        "scheduler": scheduler,
        "seed": seed,
        "data": data,
        "data_fingerprint": loaded.fingerprint,
        "workers": compute.workers,
    }
    if scheduler == "pbt":
        settings["num_samples"] = num_samples  # one that joined later would never take over
    require_same_search(out, flat(settings))
    with connect():
        require_room(compute, spread=False)
        count, why = side_by_side(nodes(), compute, max_concurrent)
        require_same_search(out, flat(settings))  # again: another one may have begun meanwhile
        write_search(out, flat(settings))  # not before it is known that this one can run
        say(why)
        ways = Ways(search=search, scheduler=scheduler, samples=num_samples, max_concurrent=count)
        with progress("tune", "epochs", total=num_samples * config.epochs) as shown:
            trials = carry_out(searched, ways, say=say, step=shown.step if shown.live else None)
        best = best_of(trials)
        write_schedule(f"{out}/best.json", best.candidate, about=about(best, searched))
        say(f"\n{in_table(worth_their_cost(trials))}\n")
        rows = plan_rows(best.candidate, config, final_seeds, data=data, out=out, compute=compute)
        train_rows(rows, compute, out=out)
    tables, _ = compare_rows(rows, config, out=out)
    for table in tables:
        say(to_text(table, columns=terminal_columns()))
    missing = why_not(trials, search)
    domains = {trial.number: searched.at(trial.point).domains for trial in trials}
    write_tuning_page(
        trials,
        out=f"{out}/report.html",
        title=f"Search of {config.name} on {data}",
        tables=tables,
        best_run=load_run(f"{best.directory}/{RUN_DIRECTORY}", config.predict_by),
        shares={} if missing else importance(trials, domains, seed=seed),
        why_no_shares=missing,
        config={**settings, "final_seeds": final_seeds},
        command=command_line(),
    )
    return Result(
        place=f"{out}/best.json",
        numbers={
            "report": f"{out}/report.html",
            "trials": len(trials),
            "ended": dict(Counter(trial.state for trial in trials)),
            **about(best, searched),
            **best.candidate.to_json(),
            "test": [table.to_json() for table in tables],
        },
    )


def best_of(trials: list[Trial]) -> Trial:
    """The winner.

    Raises:
        JobError: There is none.
    """
    best = best_trial(trials)
    if best is None:
        reasons = list(dict.fromkeys(trial.reason for trial in trials if trial.state == "failed"))
        raise JobError(f"no trial was finished; {len(reasons)} reasons, the first: {reasons[0] if reasons else 'none'}")
    return best


def about(best: Trial, search: Search) -> dict:
    """Where a schedule comes from."""
    return {
        "recipe": search.recipe.name,
        "trial": best.number,
        "val": {best.metric: best.objective},
        "branch_epochs": best.branch_epochs,
        "seed": best.seed,
        "data": search.data,
        "data_fingerprint": search.fingerprint,
        "command": command_line(),
    }


def in_table(trials: list[Trial]) -> str:
    """Trials that are worth their cost, as text: what a cheaper schedule loses."""
    top = best_trial(trials)
    lines = [
        [
            str(trial.number),
            trial.candidate.method,
            decimal(trial.objective),
            "" if top is None or trial is top else decimal(trial.objective - top.objective, signed=True),
            f"{trial.branch_epochs:g}",
            f"{trial.last.estimation_epochs if trial.last else 0:g}",
            f"{trial.last.seconds if trial.last else 0:.0f}",
        ]
        for trial in trials
    ]
    metric = metric_words(top.metric) if top is not None else "objective"
    return aligned(["trial", "method", f"val {metric}", "to the best", "branch epochs", "estimates", "s"], lines)


if __name__ == "__main__":
    sys.exit(run(tune, prog="python -m jobs.tune", recipes=RECIPES))
