"""Searches by Ray Tune whose trials say what they are told to instead of training: schedulers, searchers, failures."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import ray
from ray import tune
from ray.exceptions import RayActorError
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule

from gblend.candidate import Candidate
from gblend.config import ComputeConfig
from gblend.lines import PROCESS_LOST
from gblend.methods import RunSpec
from gblend.space import random_point, random_points
from gblend.trial_files import END_FILE, begin_trial, end_trial, load_trials, trial_place, write_reached
from gblend.trials import Reached, read_trials
from gblend.worker import Plan
from jobs import sweep
from jobs.book import Book
from jobs.cli import JobError
from jobs.commons import Commons
from jobs.sweep import Ways, carry_out, scheduler_of, side_by_side
from jobs.trial import Search, address, run_trial, shared_config, told
from tests.jobs.tuned import COMPUTE, CONFIG

EPOCHS = 9


def search_of(out: Path, **changes) -> Search:
    given = {
        "data": "nowhere",
        "fingerprint": "",
        "modalities": ("rgb", "logmel"),
        "heads": ("rgb", "logmel", "fused"),
        "out": str(out),
        "recipe": replace(CONFIG, epochs=EPOCHS),
        "space": "blends",
        "seed": 0,
        "compute": COMPUTE,
    }
    return Search(**{**given, **changes})


def saying(values: list[float | None]):
    """In place of a training: trial n ends every epoch at its value; None: it fails in the second."""

    def by(search, attempt, found, commons, known, until) -> None:
        place, value = trial_place(search.out, attempt.trial), values[attempt.trial]
        reached: list[Reached] = []
        for epoch in range(1, search.recipe.epochs + 1):
            if value is None and epoch == 2:
                raise RuntimeError("step 7:\nout of memory")
            now = Reached(epoch=epoch, super_epoch=1, value=value or 0.99, branch_epochs=float(epoch), seconds=0.1)
            reached.append(now)
            write_reached(place, "accuracy", reached)
            if known < epoch < search.recipe.epochs:
                tune.report(told(now))

    return by


@pytest.mark.slow
def test_asha_stops_a_trial_that_falls_behind_and_one_that_fails_does_not_end_the_search(tmp_path, ray_session):
    said: list[str] = []
    ways = Ways(search="random", scheduler="asha", samples=4, max_concurrent=1)
    trials = carry_out(search_of(tmp_path), ways, say=said.append, by=saying([0.9, 0.2, None, 0.95]))
    assert [trial.state for trial in trials] == ["finished", "stopped", "failed", "finished"]
    assert [trial.last.epoch for trial in trials] == [EPOCHS, 1, 1, EPOCHS]
    assert trials[2].reason == "out of memory"
    assert read_trials(str(tmp_path / "trials.parquet")) == trials
    assert any("trial 2 failed after 1 epochs" in line and "out of memory" in line for line in said)
    assert not list(tmp_path.glob("ray-*"))


@pytest.mark.slow
def test_a_trial_that_lost_its_machines_too_often_has_failed_and_goes_on_when_its_end_is_deleted(tmp_path, ray_session):
    def lost(*_) -> None:
        raise RuntimeError("failed:\nThe actor died because its node has died. Node Id: 3f\n\tit was preempted")

    ways = Ways(search="random", scheduler="none", samples=1, max_concurrent=1)
    (failed,) = carry_out(search_of(tmp_path), ways, say=[].append, by=lost)
    assert (failed.state, failed.reason) == ("failed", PROCESS_LOST)
    Path(failed.directory, END_FILE).unlink()
    (trial,) = carry_out(search_of(tmp_path), ways, say=[].append, by=saying([0.9]))
    assert (trial.state, trial.last.epoch, trial.point) == ("finished", EPOCHS, failed.point)


@pytest.mark.slow
def test_the_median_rule_stops_early_and_optuna_goes_on_from_what_a_search_found_before(tmp_path, ray_session):
    pytest.importorskip("optuna")
    ways = Ways(search="optuna", scheduler="median", samples=4, max_concurrent=1)
    by = saying([0.9, 0.8, 0.85, 0.1, 0.7])
    first = carry_out(search_of(tmp_path), ways, say=[].append, by=by)
    assert [trial.state for trial in first] == ["finished", "finished", "finished", "stopped"]
    assert first[3].last.epoch == 1
    more = carry_out(search_of(tmp_path), replace(ways, samples=5), say=[].append, by=by)
    assert more[:4] == first
    assert more[4].state in ("finished", "stopped")
    assert len({str(trial.point) for trial in more}) == 5


def test_a_search_whose_trials_have_all_ended_asks_the_cluster_for_nothing(tmp_path, monkeypatch):
    search = search_of(tmp_path)
    for number, drawn in enumerate(random_points(search.space_of, seed=0, count=2)):
        place = trial_place(search.out, number)
        begin_trial(place, number=number, point=drawn.point, found=drawn.made, seed=0)
        end_trial(place, "finished")
    monkeypatch.setattr(ray, "remote", None)
    ways = Ways(search="random", scheduler="asha", samples=2, max_concurrent=1)
    found = carry_out(search, ways, say=[].append)
    assert found == load_trials(str(tmp_path)) == read_trials(str(tmp_path / "trials.parquet"))


def test_trials_that_never_began_are_left_to_do_and_not_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_carry_out", lambda *_, **__: None)
    ways = Ways(search="random", scheduler="asha", samples=3, max_concurrent=1)
    with pytest.raises(JobError, match="3 of 3 trials have not ended; the same command goes on with them"):
        carry_out(search_of(tmp_path), ways, say=[].append)


def begin(search: Search, points, *, reached: list[int]) -> None:
    """Trials as they are after so many epochs each."""
    for number, (drawn, epochs) in enumerate(zip(points, reached, strict=True)):
        place = trial_place(search.out, number)
        begin_trial(place, number=number, point=drawn.point, found=drawn.made, seed=0)
        values = [
            Reached(epoch=epoch, super_epoch=1, value=0.5, branch_epochs=float(epoch), seconds=0.1)
            for epoch in range(1, epochs + 1)
        ]
        write_reached(place, "accuracy", values)


def test_a_population_of_which_a_member_is_behind_decides_nothing(tmp_path, monkeypatch):
    search = search_of(tmp_path, space="weights")
    points = random_points(search.space_of, seed=0, count=2)
    begin(search, points, reached=[2, 1])
    monkeypatch.setattr(sweep, "_fit", lambda *_, **__: None)  # as if it had been stopped
    book = Book(search=search, commons=None, say=[].append, samples=2)
    ways = Ways(search="random", scheduler="pbt", samples=2, max_concurrent=1)
    with pytest.raises(JobError, match="1 trials have not come to epoch 2; the same command goes on with them"):
        sweep._generations(search, ways, points, book, by=saying([]))
    assert not (tmp_path / "generations.json").exists()


def test_a_population_that_goes_on_passes_over_generations_that_its_members_have_left_behind(tmp_path, monkeypatch):
    search = search_of(tmp_path, space="weights")
    points = random_points(search.space_of, seed=0, count=2)
    begin(search, points, reached=[3, 4])
    generations: list[int] = []
    monkeypatch.setattr(sweep, "evolve", lambda *_, generation, **__: generations.append(generation))
    monkeypatch.setattr(sweep, "_fit", lambda *_, **__: None)  # as if it had been stopped again
    ways = Ways(search="random", scheduler="pbt", samples=2, max_concurrent=1)
    book = Book(search=search, commons=None, say=[].append, samples=2)
    with pytest.raises(JobError, match="1 trials have not come to epoch 4"):
        sweep._generations(search, ways, points, book, by=saying([]))
    assert generations == [0]


def test_a_trial_whose_driver_or_machine_is_lost_has_not_failed(tmp_path, monkeypatch):
    search = search_of(tmp_path)
    (drawn,) = random_points(search.space_of, seed=0, count=1)
    monkeypatch.setattr("jobs.trial.ray", SimpleNamespace(get=lambda _: False, get_runtime_context=MagicMock()))

    def lost(*_) -> None:
        raise RayActorError

    settings = {"trial": {"number": 0, "point": dict(drawn.point), "until": None}}
    with pytest.raises(RayActorError):
        run_trial(settings, search, MagicMock(), lost)
    assert [trial.state for trial in load_trials(str(tmp_path))] == ["running"]


def test_runs_that_trials_share_are_not_scored_on_test_and_tried_again_when_they_failed(monkeypatch):
    plans: list[dict] = []

    def plan(*_, **options):
        plans.append(options)
        if len(plans) == 1:
            raise ValueError("out of memory")
        return SimpleNamespace(pending=0)

    monkeypatch.setattr("jobs.commons.make_plan", plan)
    commons = Commons()
    given = ("place", [RunSpec(method="naive", seed=0)], "data", CONFIG, COMPUTE)
    with pytest.raises(RuntimeError, match="of runs that trials share: out of memory"):
        commons.ensure(*given)
    commons.ensure(*given)
    commons.ensure(*given)
    assert [each["test"] for each in plans] == ["hidden", "hidden"]


@pytest.mark.parametrize(("search", "said"), [("random", "is not trial 0 of this search"), ("optuna", "another space")])
def test_trials_of_another_search_are_refused(tmp_path, search, said):
    found = Candidate(method="online", settings={})
    point = {"method": "online"} if search == "optuna" else random_other(search_of(tmp_path))
    begin_trial(trial_place(str(tmp_path), 0), number=0, point=point, found=found, seed=0)
    ways = Ways(search=search, scheduler="none", samples=2, max_concurrent=1)
    with pytest.raises(ValueError, match=said):
        carry_out(search_of(tmp_path), ways, say=[].append)


def random_other(search: Search) -> dict:
    """A point of the space that another seed gives."""
    return random_point(search.space_of, seed=5, number=3).point


@pytest.mark.parametrize("epochs", [2, 3, 9, 10, 45])
def test_schedulers_let_a_trial_train_for_a_ninth_of_its_epochs_and_end_none_after_the_last(epochs):
    asha, median = scheduler_of("asha", epochs), scheduler_of("median", epochs)
    assert isinstance(asha, ASHAScheduler)
    assert isinstance(median, MedianStoppingRule)
    (bracket,) = asha._brackets
    ninth = -(-epochs // 9)
    assert sorted(rung for rung, _ in bracket._rungs if rung < epochs) == [e for e in (ninth, 3 * ninth) if e < epochs]
    assert median._grace_period == ninth


def test_runs_that_trials_share_wait_for_machines_that_are_being_replaced(monkeypatch):
    """Their actor cannot tell whether nodes may come; the driver has asked for room when the search began."""
    asked = []
    monkeypatch.setattr("gblend.worker.require_room", lambda *_, **__: asked.append("room"))
    monkeypatch.setattr("gblend.worker.hint", lambda _: None)
    monkeypatch.setattr("gblend.worker.in_group", lambda *_, **__: asked.append("workers"))
    run = RunSpec(method="naive", seed=0)
    plan = Plan(data="data", config=CONFIG, places={run: "place"}, costs={run: 1.0}, times={run: 1.0})
    monkeypatch.setattr("jobs.commons.make_plan", lambda *_, **__: plan)
    Commons().ensure("place", [run], "data", CONFIG, COMPUTE)
    assert asked == ["workers"]


@pytest.mark.parametrize(("reason", "kept"), [(PROCESS_LOST, True), ("CUDA out of memory", False)])
def test_a_failed_trial_keeps_its_state_where_the_machine_may_be_to_blame(tmp_path, reason, kept):
    search = search_of(tmp_path)
    (drawn,) = random_points(search.space_of, seed=0, count=1)
    place = trial_place(search.out, 0)
    begin_trial(place, number=0, point=drawn.point, found=drawn.made, seed=0)
    end_trial(place, "failed", reason)
    state = Path(place, "run", "state")
    state.mkdir(parents=True)
    assert [trial.state for trial in sweep._concluded(search, 1)] == ["failed"]
    assert state.exists() == kept


def test_how_many_trials_run_at_a_time_follows_from_the_cluster():
    two = ComputeConfig(workers=2, cpus_per_worker=2.0)
    assert side_by_side([{"CPU": 8.0}, {"CPU": 3.0}], two, None)[0] == 2
    count, why = side_by_side([{"CPU": 2.0}], two, 4)
    assert count == 4
    assert why == (
        "4 trials side by side: the cluster has room for 1 workers of 2 CPU, and a trial has 2 (as asked for)"
    )
    with pytest.raises(ValueError, match="not one trial can run; use fewer --workers, or --max-concurrent"):
        side_by_side([{"CPU": 2.0}], two, None)


def test_what_trials_share_depends_on_nothing_that_it_does_not_read(tmp_path):
    search = search_of(tmp_path)

    def place(**blend) -> str:
        return address(shared_config(replace(CONFIG, blend=replace(CONFIG.blend, **blend))), search)

    assert place(first_epochs=2, shrinkage=0.5, smoothing=0.3, probe_end="best-v", reuse="offline") == place()
    assert place(probe_fraction=0.5) != place()
    assert place(holdout_seed=1) != place()
    other = replace(CONFIG, optim=replace(CONFIG.optim, learning_rate=0.1))
    assert address(shared_config(other), search) != place()
    assert address(shared_config(CONFIG), replace(search, seed=1)) != place()
