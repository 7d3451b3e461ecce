"""`gblend tune` over a data set of a few clips, on a private cluster: killed on the way, gone on with, used."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from benchmarks.processes import descendants
from gblend.candidate import Candidate, read_schedule
from gblend.data import load_run_data
from gblend.judge import Judge, PauseError, without_test
from gblend.methods import RunSpec
from gblend.runner import Runner
from gblend.runs import load_run
from gblend.trial_files import load_trials, trial_place
from gblend.trials import read_trials
from jobs import sweep
from jobs.cli import main
from jobs.final import plan_rows
from jobs.sweep import Ways, carry_out
from tests.gblend.stops import assert_same_run
from tests.jobs.test_sweep import search_of
from tests.jobs.tuned import COMPUTE, CONFIG, SEED, searched, write_data

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 6
SMALL = "--modalities rgb logmel --input.crop-px 8 --input.scale-px 8 --input.frames 2 --input.mel-frames 8 --workers 1"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_data(tmp_path_factory.mktemp("clips") / "data")


@pytest.fixture(scope="module")
def killed(data, tmp_path_factory) -> Path:
    """A search of two trials whose driver is killed when the first is some epochs far."""
    out = tmp_path_factory.mktemp("killed") / "search"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    line = [sys.executable, "-m", "tests.jobs.tuned", data, str(out), str(EPOCHS)]
    driver = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    try:
        while not any(len(trial.reached) >= 2 for trial in load_trials(str(out))):
            assert driver.poll() is None, "the search ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        parts = descendants(driver.pid)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        for process in parts:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    return out


@pytest.fixture(scope="module")
def before(killed) -> dict[int, int]:
    """Epochs that each trial had come to when the driver was killed."""
    return {trial.number: len(trial.reached) for trial in load_trials(str(killed))}


@pytest.fixture(scope="module")
def finished(killed, before, data, ray_session) -> Path:
    """The same search by the same command again."""
    assert searched(data, str(killed), config=replace(CONFIG, epochs=EPOCHS), search="grid") == f"{killed}/best.json"
    return killed


@pytest.mark.slow
def test_a_search_whose_driver_was_killed_goes_on_and_its_trials_end_as_if_nothing_had_been(
    finished, before, data, tmp_path
):
    trials = load_trials(str(finished))
    assert [(trial.candidate.method, trial.state) for trial in trials] == [
        ("online", "finished"),
        ("tracked", "finished"),
    ]
    assert 0 < before[0] < EPOCHS
    for trial in trials:
        assert [each.epoch for each in trial.reached] == list(range(1, EPOCHS + 1))
        config = trial.candidate.config(replace(CONFIG, epochs=EPOCHS))
        loaded = without_test(load_run_data(data, config), data)
        alone = Runner(data=loaded, config=config, data_path=data)
        alone.run(RunSpec(method=trial.candidate.method, seed=SEED), str(tmp_path / str(trial.number)))
        assert_same_run(Path(trial.directory) / "run", tmp_path / str(trial.number))


@pytest.mark.slow
def test_no_trial_is_scored_on_test_and_the_objective_is_what_the_run_reaches_on_val(finished):
    for trial in read_trials(str(finished / "trials.parquet")):
        result = load_run(f"{trial.directory}/run").result
        assert set(result.scores) == {"val"}
        assert result.judged("val").value == trial.objective
        assert result.branch_epochs == trial.branch_epochs


@pytest.mark.slow
def test_the_winner_and_its_controls_are_scored_on_test_at_a_seed_that_the_search_has_not_seen(finished):
    (table,) = json.loads((finished / "final.json").read_text())
    assert {row["method"] for row in table["rows"]} == {"found", "online (10, 5)", "equal"}
    assert table["split"] == "test"
    assert all(row["seeds"] == [1] for row in table["rows"])
    assert table["clips"] == 6


@pytest.mark.slow
def test_the_report_shows_every_trial_and_asks_nothing_of_the_network(finished):
    page = (finished / "report.html").read_text()
    assert 'data-trial="0"' in page
    assert 'data-trial="1"' in page
    assert 'data-method="online (10, 5)"' in page
    assert page.count("<svg") >= 3
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.slow
def test_a_schedule_that_was_found_is_trained_with_by_name_and_flags_come_last(finished, monkeypatch):
    import jobs.train

    seen = {}

    def plan(data, config, methods, seeds, **_):
        seen.update(config=config, methods=methods)
        raise ValueError("seen")

    monkeypatch.setattr(jobs.train, "make_plan", plan)
    line = f"train small-cpu --data d --out o --schedule {finished}/best.json --optim.learning-rate 0.5"
    assert main(line.split()) == 1
    found = read_schedule(f"{finished}/best.json")
    assert seen["methods"] == [found.method]
    assert seen["config"].optim.learning_rate == 0.5
    assert seen["config"].blend.first_epochs == found.settings["blend.first_epochs"]


@pytest.mark.slow
def test_another_search_in_the_same_directory_is_refused_with_the_difference(finished, data):
    config = replace(CONFIG, epochs=EPOCHS, optim=replace(CONFIG.optim, learning_rate=0.1))
    with pytest.raises(ValueError, match=r"holds another search \(optim.learning_rate: 0.05 there, 0.1 now\)"):
        searched(data, str(finished), config=config, search="grid")


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
        (["--later", "1 optim.learning_rate 0.1"], "--later is not for a search"),
        (["--final-seeds", "0"], "--final-seeds must be one or more and not hold the seed of the search (0)"),
        (["--scheduler", "pbt", "--num-samples", "1"], "--scheduler pbt needs a population of --num-samples 2 or more"),
    ],
)
def test_what_no_search_could_use_is_one_line_before_anything_starts(data, tmp_path, capsys, arguments, message):
    line = f"tune small-cpu --data {data} --out {tmp_path} {SMALL}".split()
    assert main([*line, *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_a_data_set_without_a_test_split_is_refused_before_anything_starts(tmp_path, capsys):
    data = write_data(tmp_path / "data", splits=("train", "val"))
    assert main(f"tune small-cpu --data {data} --out {tmp_path}/out {SMALL}".split()) == 1
    assert "has no clip in split 'test', on which the winner of a search is compared" in capsys.readouterr().err
