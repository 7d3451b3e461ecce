"""A search on a cluster by Ray Tune: which trials, how many side by side, which are stopped early, what is written.

Nothing of Tune's own state is kept. What was tried and what came of it is in the trials' directories, as documents; the
same command reads them back, so that it does not matter what was lost with the driver.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import ray
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gblend.config import ComputeConfig
from gblend.group import RAY_PREFIX, delete_ray_directories
from gblend.lines import PROCESS_LOST
from gblend.placement import resources_of, room
from gblend.population import generation_ends
from gblend.run_files import STATE_DIRECTORY
from gblend.space import Drawn, random_points, some_of_grid
from gblend.storage import delete, open_fs
from gblend.trial_files import RUN_DIRECTORY, load_trials, trial_place
from gblend.trials import Trial, write_trials
from jobs.book import TRIALS_FILE, Book, number_of
from jobs.cli import JobError
from jobs.commons import Commons
from jobs.evolve import evolve
from jobs.trial import EPOCH, VALUE, CarryOut, Search, train, trainable

SchedulerName = Literal["asha", "median", "pbt", "none"]
SearchName = Literal["random", "grid", "optuna"]

REDUCTION = 3
"""ASHA keeps a third of the trials at every rung."""

RUNGS = 3
"""So many rungs, the first at 1 / 9 of the epochs, the last at the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ways:
    """How a search searches."""

    search: SearchName
    """What is tried next."""
    scheduler: SchedulerName
    """What is stopped early."""
    samples: int
    """How many trials."""
    max_concurrent: int
    """How many side by side."""


def side_by_side(nodes: Sequence[Mapping[str, float]], compute: ComputeConfig, asked: int | None) -> tuple[int, str]:
    """How many trials run at a time, and why, in words.

    Tune does not see the workers of a trial, so their number follows from the cluster. More can be asked for where
    nodes are added on demand.

    >>> side_by_side([{"CPU": 4.0}, {"CPU": 5.0}], ComputeConfig(workers=2), None)
    (4, '4 trials side by side: the cluster has room for 9 workers of 1 CPU, and a trial has 2')
    """
    worker = resources_of(compute)
    each = " and ".join(f"{amount:g} {name}" for name, amount in worker.items())
    places = room(nodes, worker)
    has = f"the cluster has room for {places} workers of {each}, and a trial has {compute.workers}"
    fitting = places // compute.workers
    if asked is None and fitting < 1:
        raise ValueError(
            f"{has}: not one trial can run; use fewer --workers, or --max-concurrent where nodes are added on demand"
        )
    count = fitting if asked is None else asked
    return count, f"{count} trial{'s' if count > 1 else ''} side by side: {has}{' (as asked for)' if asked else ''}"


def scheduler_of(name: SchedulerName, epochs: int) -> TrialScheduler:
    """Of Ray Tune. A trial is never stopped after its last epoch: by then it has cost what it costs."""
    if name in ("none", "pbt") or epochs < 2:  # a population pauses by itself
        return FIFOScheduler()
    first = math.ceil(epochs / REDUCTION ** (RUNGS - 1))  # rounded down, there would be a rung just before the end
    if name == "median":
        return MedianStoppingRule(time_attr=EPOCH, grace_period=first, min_samples_required=3)
    return ASHAScheduler(time_attr=EPOCH, max_t=epochs, grace_period=first, reduction_factor=REDUCTION)


def known_points(search: Search, known: Sequence[Trial]) -> dict[int, Drawn]:
    """Points of trials that have begun, as they are in the space of today.

    Raises:
        ValueError: The space has changed.
    """
    found = {}
    for trial in known:
        try:
            found[trial.number] = search.at(trial.point)
        except ValueError as error:
            raise ValueError(
                f"{trial.directory} is of another space ({error}); choose another --out or delete it"
            ) from None
    return found


def planned_points(search: Search, ways: Ways, known: Mapping[int, Drawn]) -> list[Drawn]:
    """All points of a search that does not go by results: first those that have begun, by number.

    Raises:
        ValueError: They are not those of this search.
    """
    draw = some_of_grid if ways.search == "grid" else random_points
    points = draw(search.space_of, seed=search.seed, count=ways.samples)
    for number, drawn in known.items():
        if ways.scheduler != "pbt" and number < len(points) and points[number].point != drawn.point:
            raise ValueError(
                f"{trial_place(search.out, number)} is not trial {number} of this search; choose another --out"
            )
    return points


def carry_out(
    search: Search,
    ways: Ways,
    *,
    say: Callable[[str], object],
    step: Callable[[float, float, str], object] | None = None,
    by: CarryOut = train,
) -> list[Trial]:
    """Carry out all trials that have not ended, on the cluster this process is connected to.

    Args:
        search: What is searched.
        ways: How.
        say: Told in a line what goes on.
        step: Told how many epochs of how many are done, and of trials in words.
        by: How a trial is carried out.

    Returns:
        All trials, by number; all of them have ended.

    Raises:
        ValueError: There are trials of another search.
        JobError: Some have not ended.
    """
    # With its own handler of Ctrl-C, Tune would return as if it were done.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    # Tune would print tables, and write what it is told into several files a trial.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # of a trial that fails, `Book` says why in a line
    trials = {trial.number: trial for trial in load_trials(search.out)}
    known = known_points(search, list(trials.values()))
    points, searcher, samples = _ahead(search, ways, known)
    if samples < ways.samples:
        say(f"this space has no more than {samples} different points: {samples} trials instead of {ways.samples}")
    ended = [number for number, trial in trials.items() if trial.state != "running"]
    if trials:
        say(f"{len(trials)} trials have begun before, {len(ended)} of them have ended")
    if not set(ended) >= set(range(samples)):
        _carry_out(search, ways, points, searcher, say=say, step=step, by=by, samples=samples, trials=trials)
    return _concluded(search, samples)


def _carry_out(
    search: Search,
    ways: Ways,
    points: Sequence[Drawn],
    searcher: Searcher | None,
    *,
    say: Callable[[str], object],
    step: Callable[[float, float, str], object] | None,
    by: CarryOut,
    samples: int,
    trials: dict[int, Trial],
) -> None:
    ended = [number for number, trial in trials.items() if trial.state != "running"]
    commons = _here(Commons, threads=4 + 4 * ways.max_concurrent)
    book = Book(search=search, commons=commons, say=say, step=step, samples=samples, trials=trials)
    try:
        if ways.scheduler == "pbt":
            _generations(search, ways, points, book, by)
        else:
            # A scheduler goes by what ended trials were like, so they tell it again.
            again = ways.scheduler != "none"
            left = [number for number in range(len(points)) if again or number not in ended]
            _fit(search, ways, {number: points[number] for number in left}, book, by, searcher=searcher)
        book.wait()
    finally:
        ray.kill(commons)


def _concluded(search: Search, samples: int) -> list[Trial]:
    """All trials, once what they no longer need is deleted and ``trials.parquet`` is written."""
    found = load_trials(search.out)
    write_trials(f"{search.out}/{TRIALS_FILE}", found)
    delete_ray_directories(search.out)
    for trial in found:
        if trial.state in ("stopped", "failed"):
            delete_ray_directories(trial.directory)
        # One that lost its machine too often may be gone on with by hand.
        if trial.state == "stopped" or (trial.state == "failed" and trial.reason != PROCESS_LOST):
            delete(f"{trial.directory}/{RUN_DIRECTORY}/{STATE_DIRECTORY}")
    left = samples - sum(trial.state != "running" for trial in found if trial.number < samples)
    if left:
        raise JobError(f"{left} of {samples} trials have not ended; the same command goes on with them")
    return found


def _generations(search: Search, ways: Ways, points: Sequence[Drawn], book: Book, by: CarryOut) -> None:
    """A population, generation by generation; all members wait for the last one."""
    ends = generation_ends(search.recipe.epochs)
    for generation, end in enumerate(ends):
        book.until = end if end < search.recipe.epochs else None
        there = {trial.number: trial for trial in load_trials(search.out)}
        left = {
            number: drawn
            for number, drawn in enumerate(points)
            if (trial := there.get(number)) is None
            or (trial.state == "running" and (book.until is None or trial.last is None or trial.last.epoch < end))
        }
        if left:
            _fit(search, ways, left, book, by)
        _require_at(search, end, len(points))
        if book.until is not None:
            evolve(search, generation=generation, epoch=end, say=book.say)


def _require_at(search: Search, epoch: int, samples: int) -> None:
    """Raise `JobError` where a member of a population has not come so far: it cannot be compared with others."""
    there = {trial.number: trial for trial in load_trials(search.out)}
    left = [
        number
        for number in range(samples)
        if (trial := there.get(number)) is None
        or (trial.state == "running" and (trial.last is None or trial.last.epoch < epoch))
    ]
    if left:
        raise JobError(f"{len(left)} trials have not come to epoch {epoch}; the same command goes on with them")


def _fit(
    search: Search,
    ways: Ways,
    points: Mapping[int, Drawn],
    book: Book,
    by: CarryOut,
    *,
    searcher: Searcher | None = None,
) -> None:
    """Have Tune carry out trials, given by number or suggested by a searcher, to their end or until they pause."""
    fs, root = open_fs(search.out)
    given = [{"number": number, "point": dict(each.point), "until": book.until} for number, each in points.items()]
    tuner = tune.Tuner(
        trainable(search, book.commons, by),
        param_space={} if searcher is not None else {"trial": tune.grid_search(cast(list, given))},
        tune_config=tune.TuneConfig(
            metric=VALUE,
            mode="max",
            scheduler=scheduler_of(ways.scheduler, search.recipe.epochs),
            search_alg=searcher,
            num_samples=ways.samples if searcher is not None else 1,
            max_concurrent_trials=ways.max_concurrent,
            trial_name_creator=lambda trial: f"trial-{number_of(trial):04d}",
        ),
        run_config=tune.RunConfig(
            name=f"{RAY_PREFIX}{time.time_ns()}",
            storage_path=root,
            storage_filesystem=PyFileSystem(FSSpecHandler(fs)),
            failure_config=tune.FailureConfig(max_failures=search.compute.restarts),
            callbacks=[book],
            verbose=0,
        ),
    )
    tuner.fit()


def _ahead(search: Search, ways: Ways, known: Mapping[int, Drawn]) -> tuple[list[Drawn], Searcher | None, int]:
    """What is tried, or who suggests it, and how many trials there will be."""
    if ways.search == "optuna":
        from jobs.optuna_search import searcher_of

        return [], searcher_of(search, known), ways.samples
    points = planned_points(search, ways, known)
    return points, None, len(points)


def _here(kind: type, *, threads: int) -> Any:
    """An actor on the machine of this process, with whose loss the search is lost anyway."""
    place = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(kind).options(num_cpus=0, max_concurrency=threads, scheduling_strategy=place).remote()
