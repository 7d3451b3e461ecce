"""A search that is submitted, and writes to S3; its driver is killed on the way, and it is submitted again."""

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

import fsspec
import pytest

from benchmarks.processes import descendants
from gblend.candidate import read_schedule
from gblend.data import load_run_data
from gblend.judge import without_test
from gblend.methods import RunSpec
from gblend.runner import Runner
from gblend.runs import load_run
from gblend.trial_files import REACHED_FILE, load_trials
from gblend.trials import read_trials
from jobs.cli import main
from jobs.recipes import small_cpu
from tests.gblend.stops import assert_same_run
from tests.jobs.tuned import write_data

EPOCHS = 6
SEED = 17
"""The first two points of its grid are of `online` with probes in every super-epoch, and of `tracked`."""
RECIPE = replace(
    small_cpu(),
    modalities=("rgb", "logmel"),
    epochs=EPOCHS,
    batch_size=6,
    input=replace(small_cpu().input, frames=2, crop_px=8, scale_px=8, mel_frames=8),
    blend=replace(small_cpu().blend, refit_epochs=0),
    model=replace(small_cpu().model, visual_layers=(1,), visual_width=4, audio_layers=(1,), audio_width=4),
)
SEARCH = (
    f"--num-samples 2 --search grid --scheduler none --max-concurrent 1 --seed {SEED} --final-seeds 1 "
    f"--epochs {EPOCHS} --modalities rgb logmel --batch-size 6 --input.frames 2 --input.crop-px 8 --input.scale-px 8 "
    "--input.mel-frames 8 --model.visual-layers 1 --model.visual-width 4 --model.audio-layers 1 --model.audio-width 4 "
    "--workers 1 --restarts 0"
)
"""The same on the command line, and what is searched."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_data(tmp_path_factory.mktemp("clips") / "data")


@dataclass(frozen=True, kw_only=True, slots=True)
class Interrupted:
    """A search whose driver was killed, alone: the cluster lived on, and the search was submitted again."""

    line: str
    """What was submitted, both times."""
    before: dict[int, int]
    """Epochs that each trial had come to when the driver was killed."""
    status: int
    """With which the first `ray job submit` ended."""
    out: str
    """Where the search is, on S3."""
    copy: Path
    """What lies there in the end."""


def reached(s3_client) -> int:
    """Epochs that the first trial has come to, at the price of one request: its epochs take less than a second."""
    try:
        found = s3_client.get_object(Bucket="search", Key=f"out/trials/0000/{REACHED_FILE}")
    except s3_client.exceptions.NoSuchKey:
        return 0
    return len(json.loads(found["Body"].read())["reached"])


@pytest.fixture(scope="module")
def search(job_server, data, s3_client, tmp_path_factory) -> Interrupted:
    s3_client.create_bucket(Bucket="search")
    out = "s3://search/out"
    line = f"-m jobs.tune small-cpu --data {data} --out {out} {SEARCH}"
    client = job_server.submit(*line.split(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 500
    try:
        while reached(s3_client) < 1:
            assert client.poll() is None, "the search ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        for process in descendants(os.getpid()):
            if "jobs.tune" in process.command and process.kind == "driver" and process.pid != client.pid:
                os.kill(process.pid, signal.SIGKILL)
        said, _ = client.communicate()
        print(said)
    before = {trial.number: len(trial.reached) for trial in load_trials(out)}
    assert f"{out}/best.json" in job_server.done(line.removeprefix("-m "))
    copy = tmp_path_factory.mktemp("search")
    fsspec.filesystem("s3", use_listings_cache=False).get("search/out/", str(copy), recursive=True)
    return Interrupted(line=line, before=before, status=client.returncode, out=out, copy=copy)


def test_a_job_whose_driver_is_killed_has_failed(search):
    assert search.status != 0


def test_a_search_whose_driver_was_killed_goes_on_and_its_trials_end_as_if_nothing_had_been(search, data, tmp_path):
    trials = load_trials(search.out)
    assert [(trial.candidate.method, trial.state) for trial in trials] == [
        ("online", "finished"),
        ("tracked", "finished"),
    ]
    assert 0 < search.before[0] < EPOCHS
    for trial in trials:
        assert [each.epoch for each in trial.reached] == list(range(1, EPOCHS + 1))
        run, config = search.copy / "trials" / f"{trial.number:04d}" / "run", trial.candidate.config(RECIPE)
        loaded = without_test(load_run_data(data, config), data)
        alone = Runner(data=loaded, config=config, data_path=data)
        alone.run(RunSpec(method=trial.candidate.method, seed=SEED), str(tmp_path / str(trial.number)))
        assert_same_run(run, tmp_path / str(trial.number))


def test_nothing_of_rays_own_is_left_there(search):
    assert not list(search.copy.rglob("ray-*"))


def test_no_trial_is_scored_on_test_and_the_objective_is_what_the_run_reaches_on_val(search):
    for trial in read_trials(str(search.copy / "trials.parquet")):
        result = load_run(str(search.copy / "trials" / f"{trial.number:04d}" / "run")).result
        assert set(result.scores) == {"val"}
        assert result.judged("val").value == trial.objective
        assert result.branch_epochs == trial.branch_epochs


def test_the_winner_and_its_controls_are_scored_on_test_at_a_seed_that_the_search_has_not_seen(search):
    (table,) = json.loads((search.copy / "final.json").read_text())
    assert {row["method"] for row in table["rows"]} == {"found", "online (10, 5)", "equal"}
    assert table["split"] == "test"
    assert all(row["seeds"] == [1] for row in table["rows"])
    assert table["clips"] == 6


def test_the_report_shows_every_trial_and_asks_nothing_of_the_network(search):
    page = (search.copy / "report.html").read_text()
    assert 'data-trial="0"' in page
    assert 'data-trial="1"' in page
    assert 'data-method="online (10, 5)"' in page
    assert page.count("<svg") >= 3
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_schedule_that_was_found_is_trained_with_by_name_and_flags_come_last(search, monkeypatch):
    import jobs.train

    seen = {}

    def plan(data, config, methods, seeds, **_):
        seen.update(config=config, methods=methods)
        raise ValueError("seen")

    monkeypatch.setattr(jobs.train, "make_plan", plan)
    line = f"train small-cpu --data d --out o --schedule {search.out}/best.json --optim.learning-rate 0.5"
    assert main(line.split()) == 1
    found = read_schedule(f"{search.out}/best.json")
    assert seen["methods"] == [found.method]
    assert seen["config"].optim.learning_rate == 0.5
    assert seen["config"].blend.first_epochs == found.settings["blend.first_epochs"]


def test_another_search_in_the_same_directory_is_refused_with_the_difference(search, capsys):
    line = [*search.line.split()[1:], "--optim.learning-rate", "0.1"]
    assert main(["tune", *line[1:]]) == 1
    assert "holds another search (optim.learning_rate: 0.003 there, 0.1 now)" in capsys.readouterr().err
