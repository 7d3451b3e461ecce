"""A trial of a search: the training run of `gblend train`, as a function that Ray Tune calls.

Tune calls it in a process of the trial's own, which starts the workers and waits. Nothing of a trial lives in that
process: its directory says what is trained and how far it is, so that it can be called again, after the loss of a
machine or with the same command, and goes on where the run was last saved. To a search that goes on, trials that have
ended say again what they said before, because schedulers and searchers go by it.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
import ray.train
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.tune.integration.ray_train import TuneReportCallback

from gblend.candidate import Candidate
from gblend.config import BlendConfig, ComputeConfig, TrainConfig
from gblend.group import in_group
from gblend.judge import Judge, PauseError, without_test
from gblend.lines import reason_of
from gblend.methods import RunSpec, needed_runs
from gblend.runner import Runner
from gblend.space import Drawn, at
from gblend.trial_files import RUN_DIRECTORY, begin_trial, end_trial, load_trial, trial_place
from gblend.trials import Reached
from gblend.worker import open_data
from jobs.commons import Attempt, Entry
from jobs.spaces import SPACES

VALUE, EPOCH = "value", "epoch"
"""What Tune is told: the objective, and when."""

SHARED_DIRECTORY = "shared"


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What the trials of a search have in common."""

    data: str
    """Data set directory."""
    fingerprint: str
    """Of the data set."""
    modalities: tuple[str, ...]
    """Of the networks."""
    heads: tuple[str, ...]
    """Of the networks, in their order."""
    out: str
    """Directory of the search, storage that all nodes share."""
    recipe: TrainConfig
    """What candidates change."""
    space: str
    """A name of `jobs.spaces.SPACES`."""
    seed: int
    """Of every trial's training: what differs between trials is what was drawn."""
    compute: ComputeConfig
    """Of every trial."""

    def space_of(self, draw: Any) -> Candidate:
        """The space, for `gblend.space`."""
        return SPACES[self.space](draw, self.recipe, self.heads)

    def at(self, point: Mapping[str, Any]) -> Drawn:
        """The space at a point."""
        return at(self.space_of, point)


CarryOut = Callable[[Search, Attempt, Candidate, Any, int, int | None], None]
"""What `train` does."""


class ReportNew(TuneReportCallback):
    """Tells Tune of epochs that it has not been told of; of the last one it is told when the run is written."""

    def __init__(self, *, known: int, last: int) -> None:
        super().__init__()
        self._known, self._last = known, last

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """See `TuneReportCallback`."""
        epoch = metrics[0].get(EPOCH, 0)
        if self._known < epoch < self._last:
            self._known = epoch
            super().after_report(run_context, metrics, checkpoint)


def run_trial(settings: dict[str, Any], search: Search, commons: Any, carry_out: CarryOut) -> None:
    """Carry out a trial, or go on with it; called by Tune.

    Args:
        settings: ``trial``: its ``number`` and its ``point``, and ``until``, the epoch after which it pauses, or None.
        search: What it has in common with others.
        commons: `jobs.commons.Commons`, the actor.
        carry_out: `train`.

    Raises:
        RuntimeError: It has failed; its directory says why.
    """
    number, point, until = (settings["trial"][name] for name in ("number", "point", "until"))
    place = trial_place(search.out, number)
    attempt = Attempt(trial=number, key=uuid.uuid4().hex)
    again = ray.get(commons.begin.remote(attempt, ray.get_runtime_context().current_actor))
    trial = load_trial(place)
    if trial is not None and not again:
        running = trial.state == "running"
        for each in trial.reached:
            if not (running and each.epoch == search.recipe.epochs):
                tune.report(told(each))
    if trial is not None and trial.state == "failed":
        raise RuntimeError(trial.reason)
    if trial is not None and trial.state != "running":
        return
    try:
        found: Candidate = search.at(point).made if trial is None else trial.candidate
        if trial is None:
            begin_trial(place, number=number, point=point, found=found, seed=search.seed)
        known = trial.last.epoch if trial is not None and trial.last is not None else 0
        carry_out(search, attempt, found, commons, known, until)
        if until is None:
            end_trial(place, "finished")
    except (RuntimeError, ValueError, OSError, RayError) as error:
        if isinstance(error, RayError) and not isinstance(error, RayTaskError):
            raise  # What was lost is not this trial's own: Tune starts it again, or the driver gives it up.
        # A trial is a row of the search: it ends with a reason, and the search goes on.
        end_trial(place, "failed", reason_of(error))
        raise RuntimeError(reason_of(error)) from error
    ended = load_trial(place)
    assert ended is not None
    assert ended.last is not None
    tune.report(told(ended.last))


def train(search: Search, attempt: Attempt, found: Candidate, commons: Any, known: int, until: int | None) -> None:
    """The training run, on workers of its own, to its end or until an epoch; Tune knows of so many epochs."""
    place = trial_place(search.out, attempt.trial)
    config = found.config(search.recipe)
    # No trial is judged by a fused head that is trained anew.
    config = replace(config, blend=replace(config.blend, refit_epochs=0))
    run = RunSpec(method=found.method, seed=search.seed)
    needed = borrowed_runs(search, run, config, commons)
    in_group(
        work,
        {
            "data": search.data,
            "config": config,
            "run": run,
            "place": place,
            "needed": needed,
            "until": until,
            "compute": search.compute,
            "entry": Entry(commons=commons, attempt=attempt),
        },
        search.compute,
        storage=place,
        callbacks=[ReportNew(known=known, last=until or search.recipe.epochs)],
        freed_by="caller",
    )


def work(job: dict[str, Any]) -> None:
    """What every worker of a trial does."""
    compute: ComputeConfig = job["compute"]
    config: TrainConfig = job["config"]
    if ray.train.get_context().get_world_rank() == 0 and not job["entry"](ray.util.get_current_placement_group()):
        raise RuntimeError("the trial is over")
    here = ray.train.get_context().get_local_world_size()
    loaded, device = open_data(job["data"], config, compute, here=here, say=job["lines"].put)
    borrowed = len(job["needed"]) * config.epochs
    judge = Judge(place=job["place"], borrowed_epochs=borrowed, report=ray.train.report, until=job["until"])
    runner = Runner(
        data=without_test(loaded, job["data"]),
        config=config,
        data_path=job["data"],
        device=device,
        compute=compute,
        say=job["lines"].put,
        after_epoch=judge,
    )
    with suppress(PauseError):
        runner.run(job["run"], f"{job['place']}/{RUN_DIRECTORY}", job["needed"])


def borrowed_runs(search: Search, run: RunSpec, config: TrainConfig, commons: Any) -> dict[str, str]:
    """Directories of finished runs that it builds on, by head. They are trained once for all trials with the same
    settings, when the first one needs them.
    """
    needed = needed_runs(run, search.modalities, config)
    if not needed:
        return {}
    base = shared_config(config)
    place = f"{search.out}/{SHARED_DIRECTORY}/{address(base, search)}"
    ray.get(commons.ensure.remote(place, list(needed.values()), search.data, base, search.compute))
    return {head: f"{place}/{other.name}" for head, other in needed.items()}


def shared_config(config: TrainConfig) -> TrainConfig:
    """Of what a trial builds on: as the trial's, without what single modalities and naive runs do not read.

    Where T' is a part that probes train on, it is theirs as well.
    """
    blend, plain = config.blend, BlendConfig()
    kept = BlendConfig(
        holdout_share=blend.holdout_share,
        holdout_seed=blend.holdout_seed,
        probe_fraction=blend.probe_fraction,
        refit_epochs=plain.refit_epochs,
    )
    return replace(config, blend=kept, later=(), predict_by="fused")


def address(base: TrainConfig, search: Search) -> str:
    """A name that follows from all that decides these runs."""
    decides = [base.to_json(), search.data, search.fingerprint, search.seed, search.compute.workers]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def told(reached: Reached) -> dict[str, Any]:
    """What Tune is told of a value."""
    return {EPOCH: reached.epoch, VALUE: reached.value, "branch_epochs": reached.branch_epochs}


def trainable(search: Search, commons: Any, carry_out: CarryOut) -> Any:
    """For `ray.tune.Tuner`."""

    def trial(config: dict[str, Any]) -> None:
        run_trial(config, search, commons, carry_out)

    # It must hold something, and the cores are for its workers, which Tune does not see.
    return tune.with_resources(trial, tune.PlacementGroupFactory([{"memory": 1}]))
