"""Searches whose trials train on a few clips, on a private cluster; what is refused before anything starts."""

import json
import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from benchmarks.processes import descendants
from gblend.candidate import Candidate
from gblend.contest import contestants
from gblend.data import load_run_data
from gblend.heads import by_key
from gblend.judge import Judge, PauseError, without_test
from gblend.methods import RunSpec
from gblend.model_config import EncodersConfig
from gblend.runner import Runner
from gblend.space import random_points
from gblend.trial_files import trial_place
from jobs import sweep
from jobs.cli import main
from jobs.final import plan_rows
from jobs.recipes import small_cpu
from jobs.search_checks import require_not_drawn, require_readers_of
from jobs.sweep import Ways, carry_out
from schemas import Task
from tests.gblend.stops import assert_same_run
from tests.jobs.test_sweep import search_of
from tests.jobs.tuned import COMPUTE, CONFIG, write_data

SMALL = "--modalities rgb logmel --input.crop-px 8 --input.scale-px 8 --input.frames 2 --input.mel-frames 8 --workers 1"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_data(tmp_path_factory.mktemp("clips") / "data")


def train_here(search, attempt, found, commons, known, until) -> None:
    """In place of a training on workers of its own: the same in the process of the trial."""
    place, config = trial_place(search.out, attempt.trial), found.config(search.recipe)
    loaded = without_test(load_run_data(search.data, config), search.data)
    judge = Judge(place=place, borrowed_epochs=0, report=lambda reached: None, until=until)
    runner = Runner(data=loaded, config=config, data_path=search.data, after_epoch=judge)
    with suppress(PauseError):
        runner.run(RunSpec(method=found.method, seed=search.seed), f"{place}/run")


@pytest.mark.slow
def test_in_a_population_the_worse_trial_goes_on_from_the_better_one_and_each_is_a_run_from_the_start(
    data, tmp_path, ray_session
):
    config = replace(CONFIG, epochs=2)
    assert sweep.generation_ends(config.epochs) == [1, 2]
    out = tmp_path / "population"
    search = search_of(out, data=data, recipe=config, space="weights")
    ways = Ways(search="random", scheduler="pbt", samples=2, max_concurrent=2)
    trials = carry_out(search, ways, say=[].append, by=train_here)
    assert [trial.state for trial in trials] == ["finished", "finished"]
    (generation,) = json.loads((out / "generations.json").read_text())
    (taken,) = generation["taken_over"]
    values = [generation["objectives"][str(number)] for number in (0, 1)]
    assert taken["from"] == max((0, 1), key=lambda number: (values[number], -number)) != taken["trial"]
    assert trials[taken["trial"]].candidate.settings["later"]
    loaded = without_test(load_run_data(data, config), data)
    for trial in trials:
        alone = Runner(data=loaded, config=trial.candidate.config(config), data_path=data)
        alone.run(RunSpec(method="fixed", seed=0), str(tmp_path / str(trial.number)))
        assert_same_run(Path(trial.directory) / "run", tmp_path / str(trial.number))


class StopAll(FIFOScheduler):
    """Stops a trial as soon as it says anything."""

    def on_trial_result(self, tune_controller, trial, result):
        return TrialScheduler.STOP


@pytest.mark.slow
def test_trials_that_are_stopped_free_their_workers_for_what_follows(data, tmp_path, monkeypatch, ray_session):
    """A worker of two cores is all that the cluster has room for: were it kept, the second trial could never start."""
    monkeypatch.setattr(sweep, "scheduler_of", lambda name, epochs: StopAll())
    config = replace(CONFIG, epochs=10)
    compute = replace(COMPUTE, cpus_per_worker=2.0)
    fingerprint = load_run_data(data, config).fingerprint
    search = search_of(tmp_path, data=data, fingerprint=fingerprint, recipe=config, space="weights", compute=compute)
    ways = Ways(search="random", scheduler="asha", samples=2, max_concurrent=1)
    first, second = carry_out(search, ways, say=[].append)
    for trial in (first, second):
        assert trial.state == "stopped"
        assert 0 < len(trial.reached) < config.epochs
        assert not (Path(trial.directory) / "run" / "state").exists()
        assert not list(Path(trial.directory).glob("ray-*"))
    assert not [each for each in descendants(os.getpid()) if "PlacementGroupCleaner" in each.command]
    deadline = time.monotonic() + 10  # for Ray to count what it has been given back
    while ray.available_resources().get("CPU", 0) < 2:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.2)


def test_a_search_that_goes_on_may_find_another_winner(data, tmp_path):
    """Its runs have directories of their own, and so have those of controls with another learning rate."""

    def places(rate: float) -> dict[str, str]:
        found = Candidate(method="tracked", settings={"blend.first_epochs": 1, "optim.learning_rate": rate})
        rows = plan_rows(found, CONFIG, (1,), data=data, out=str(tmp_path), compute=COMPUTE)
        return {row.name: str(Path(*row.plan.places.values())) for row in rows}

    first, other = places(0.05), places(0.1)
    assert first == places(0.05)
    assert len({*first.values(), *other.values()}) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "weights", "--blend.smoothing", "0.3"], "blend.smoothing is read by tracked, online only, not by"),
        (
            ["--name", "mine", "--blend.first-epochs", "2"],
            "--blend.first-epochs 2 would not be used: --space blends draws it",
        ),
        (["--blend.first-epochs", "2"], "--blend.first-epochs 2 would not be used: --space blends draws it"),
        (["--later", "1 optim.learning_rate 0.1"], "--later is not for a search"),
        (
            ["--final-seeds", "0"],
            "--final-seeds must be one or more, not negative and not hold the seed of the search (0)",
        ),
        (["--final-seeds", "-1", "2"], "--final-seeds must be one or more, not negative and not hold"),
        (["--scheduler", "pbt", "--num-samples", "1"], "--scheduler pbt needs a population of --num-samples 2 or more"),
    ],
)
def test_what_no_search_could_use_is_one_line_before_anything_starts(data, tmp_path, capsys, arguments, message):
    line = f"tune small-cpu --data {data} --out {tmp_path} {SMALL}".split()
    assert main([*line, *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


TOUCH = EncodersConfig(other={"touch": "mine:encoder"})


def test_a_search_may_train_probes_one_after_another_though_some_of_its_trials_have_none(tmp_path):
    """Where they train changes no bit: whoever is short of memory for the trials is so for the control with probes."""
    recipe = replace(small_cpu(), blend=replace(small_cpu().blend, probes="sequential"))
    search = search_of(tmp_path, recipe=recipe)
    points = random_points(search.space_of, seed=0, count=8)
    assert {drawn.made.method for drawn in points} == {"online", "tracked"}
    require_readers_of(search, 8, by_key((Task(name="action", kind="single", classes=("a", "b")),)))
    for drawn in points:
        rows = contestants(drawn.made)
        trained = {name: row.config(recipe).blend.probes for name, row in rows.items()}
        found = "sequential" if drawn.made.method == "online" else "shared"
        assert trained == {"found": found, "online (10, 5)": "sequential", "equal": "shared"}


def test_a_modality_of_ones_own_may_be_searched(tmp_path):
    recipe = small_cpu()
    touched = replace(recipe, model=replace(recipe.model, encoders=TOUCH))
    require_not_drawn(search_of(tmp_path, recipe=touched), 3, recipe=recipe)


def test_a_recipe_of_ones_own_keeps_what_the_space_draws_anyway(tmp_path):
    mine = replace(CONFIG, name="mine", blend=replace(CONFIG.blend, first_epochs=2))
    require_not_drawn(search_of(tmp_path, recipe=mine), 3, recipe=mine)


def test_a_data_set_without_a_test_split_is_refused_before_anything_starts(tmp_path, capsys):
    data = write_data(tmp_path / "data", splits=("train", "val"))
    assert main(f"tune small-cpu --data {data} --out {tmp_path}/out {SMALL}".split()) == 1
    assert "has no clip in split 'test', on which the winner of a search is compared" in capsys.readouterr().err
