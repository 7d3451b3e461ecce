"""A run that is stopped, wherever that is, and carried out again ends as the run that nobody stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gblend import runner
from gblend.config import BlendConfig, ComputeConfig, OptimConfig, TrainConfig
from gblend.data import RunData
from gblend.methods import RunSpec, needed_runs
from gblend.records import read_json
from gblend.runner import Runner
from gblend.state_files import StateFiles
from tests.gblend.stops import SAVED, assert_same_run, stop_again_and_again, stop_before, stopping
from tests.gblend.tiny import EVENT, TASK, VERB, tiny_config, tiny_data

MODALITIES = ("rgb", "logmel")
ROOT = Path(__file__).resolve().parents[2]

BLEND = BlendConfig(first_epochs=2, next_epochs=1, refit_epochs=1)
OVERSHOOTING = OptimConfig(learning_rate=0.5, schedule="constant")
"""The second of three epochs is the best one."""

WAYS: dict[str, dict[str, Any]] = {
    "uni:rgb": {},
    "naive": {},
    "early-stop": {"optim": OVERSHOOTING},
    "pretrain": {},
    "ogm-ge": {},
    "equal": {"optim": OptimConfig(name="adamw", learning_rate=0.02)},
    "uncertainty": {},
    "tracked, two tasks": {"blend": replace(BLEND, smoothing=0.5)},
    "offline": {},
    "online": {"blend": replace(BLEND, probe_end="best-v")},
    "online, one probe after another": {
        "blend": replace(BLEND, probes="sequential"),
        "optim": OptimConfig(learning_rate=0.05, clip_norm=0.5),
        "micro_batches": 2,
        "precision": "bf16",
    },
}
"""Methods and settings that differ in what a state holds."""


def config_of(way: str, **changes: Any) -> TrainConfig:
    return tiny_config(**{"blend": BLEND, **WAYS.get(way, {}), **changes})


def spec_of(way: str) -> RunSpec:
    return RunSpec(method=way.partition(",")[0], seed=0)


def data_of(way: str) -> RunData:
    """Three steps an epoch, two for probes. Of two tasks, one is of several labels."""
    tasks = (VERB, EVENT) if "two tasks" in way else (TASK,)
    found = tiny_data(train=18, heldout=6, tasks=tasks)
    return replace(found, modalities=MODALITIES, probe_part=list(range(12)))


def carry_out(way: str, place: Path, *, needed=None, every: int = 1, said: list[str] | None = None, **changes):
    carrying = Runner(
        data=data_of(way),
        config=config_of(way, **changes),
        data_path="memory",
        compute=ComputeConfig(checkpoint_every=every),
        say=[].append if said is None else said.append,
    )
    return carrying.run(spec_of(way), str(place), needed)


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """Runs that nobody stopped, made when first asked for."""

    root: Path

    def run(self, way: str) -> Path:
        place = self.root / way
        if not place.exists():
            carry_out(way, place, needed=self.needed(way))
        return place

    def needed(self, way: str) -> dict[str, str]:
        needed = needed_runs(spec_of(way), MODALITIES, config_of(way))
        return {head: str(self.run(spec.method)) for head, spec in needed.items()}


@pytest.fixture(scope="module")
def undisturbed_runs(tmp_path_factory) -> Undisturbed:
    return Undisturbed(root=tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("way", list(WAYS))
def test_a_run_stopped_at_every_kind_of_moment_ends_as_the_one_that_was_not(tmp_path, undisturbed_runs, way):
    needed = undisturbed_runs.needed(way)
    with stopping(lambda _: False) as moments:
        carry_out(way, tmp_path / "whole", needed=needed)
    stops = stop_again_and_again(lambda: carry_out(way, tmp_path / "stopped", needed=needed))
    assert set(stops) >= {moment for moment in moments if not moment.endswith(SAVED)}
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    assert_same_run(tmp_path / "whole", undisturbed_runs.run(way))


def test_the_epoch_that_early_stopping_keeps_is_one_that_states_must_hold(undisturbed_runs):
    assert read_json(str(undisturbed_runs.run("early-stop") / "result.json"))["kept_epoch"] == 2


def test_a_process_killed_in_a_probe_leaves_a_run_that_goes_on(tmp_path, undisturbed_runs):
    command = [sys.executable, "-m", "tests.gblend.killed", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    said: list[str] = []
    carry_out("online", tmp_path / "run", every=2, said=said)
    assert said[0] == "online seed 0 was stopped and goes on: 0 of 3 epochs, probes 1 of 2 epochs"
    assert_same_run(tmp_path / "run", undisturbed_runs.run("online"))


@pytest.mark.parametrize(
    ("every", "left"),
    [(0, "1 of 3 epochs"), (2, "1 of 3 epochs and 2 steps"), (3, "1 of 3 epochs"), (4, "1 of 3 epochs")],
)
def test_no_more_steps_are_lost_than_was_asked_for(tmp_path, every, left):
    """Of three steps an epoch, each of which ends with a save, the sixth is never done."""
    stop_before(lambda: carry_out("equal", tmp_path / "run", every=every), "epochs: step", times=6)
    said: list[str] = []
    carry_out("equal", tmp_path / "run", said=said)
    assert said == [f"equal seed 0 was stopped and goes on: {left}"]


def test_how_often_a_run_is_saved_changes_nothing_about_it(tmp_path, undisturbed_runs):
    carry_out("online", tmp_path / "seldom", every=0)
    assert_same_run(tmp_path / "seldom", undisturbed_runs.run("online"))


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory) -> Path:
    """Stopped in the second epoch; two states lie there."""
    place = tmp_path_factory.mktemp("stopped") / "run"
    stop_before(lambda: carry_out("equal", place), "epochs: step", times=6)
    return place


@pytest.fixture
def stopped(stopped_run, tmp_path) -> Path:
    return Path(shutil.copytree(stopped_run, tmp_path / "run"))


def test_a_run_that_was_stopped_has_written_its_history_so_far(stopped, undisturbed_runs):
    whole = (undisturbed_runs.run("equal") / "history.jsonl").read_text()
    so_far = (stopped / "history.jsonl").read_text()
    assert whole.startswith(so_far)
    assert 0 < len(so_far.splitlines()) < len(whole.splitlines())


def states_in(run: Path) -> list[Path]:
    return sorted((run / "state").iterdir())


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_a_damaged_state_is_named_and_the_one_before_it_is_gone_on_from(stopped, undisturbed_runs):
    newest = states_in(stopped)[-1]
    cut_short(newest / "shared.pt")
    said: list[str] = []
    carry_out("equal", stopped, said=said)
    assert said[0].startswith(f"{newest} is not used: shared.pt has ")
    assert said[1:] == ["equal seed 0 was stopped and goes on: 1 of 3 epochs and 1 step"]
    assert_same_run(stopped, undisturbed_runs.run("equal"))


def test_without_a_whole_state_the_run_starts_anew_and_says_so(stopped, undisturbed_runs):
    for state in states_in(stopped):
        cut_short(state / "worker-0.pt")
    said: list[str] = []
    carry_out("equal", stopped, said=said)
    assert said[2:] == [f"{stopped}/state holds no state that can be used: the run starts anew"]
    assert_same_run(stopped, undisturbed_runs.run("equal"))


def test_a_run_that_was_stopped_is_refused_with_other_settings(stopped):
    with pytest.raises(ValueError, match=r"an unfinished run with other settings \(epochs: 3 there, 4 now\); choose"):
        carry_out("equal", stopped, epochs=4)
    assert len(states_in(stopped)) == 2


def test_a_run_that_was_stopped_goes_on_when_it_is_to_be_judged_by_another_way_of_predicting(stopped):
    said: list[str] = []
    assert carry_out("equal", stopped, said=said, predict_by="stack").predict_by == "stack"
    assert said == ["equal seed 0 was stopped and goes on: 1 of 3 epochs and 2 steps"]


def test_a_run_begun_before_there_were_some_settings_goes_on_whatever_its_states_call_them(tmp_path, monkeypatch):
    """The first process is of an older version: its settings lack two, and so do those its states are marked with."""
    place = tmp_path / "run"
    with monkeypatch.context() as older:
        known = runner.run_settings

        def fewer(*given):
            settings = known(*given)
            del settings["micro_batches"], settings["optim"]["clip_norm"]
            return settings

        older.setattr(runner, "run_settings", fewer)
        stop_before(lambda: carry_out("equal", place), "epochs: step", times=6)
    assert "micro_batches" not in read_json(str(place / "config.json"))
    said: list[str] = []
    for _ in range(2):
        stop_before(lambda: carry_out("equal", place, said=said), "epochs: step", times=2)
    places = ("1 of 3 epochs and 2 steps", "2 of 3 epochs")
    assert said == [f"equal seed 0 was stopped and goes on: {place}" for place in places]


def test_states_of_other_settings_are_not_used_even_without_the_document_that_names_them(stopped):
    (stopped / "config.json").unlink()
    said: list[str] = []
    carry_out("equal", stopped, epochs=4, said=said)
    assert [line.partition(": ")[2] for line in said[:2]] == ["it was made with other settings"] * 2
    assert read_json(str(stopped / "result.json"))["epochs"] == 4


def test_the_time_before_the_stop_counts(stopped, monkeypatch):
    newest = StateFiles.newest

    def an_hour_later(self):
        state = newest(self)
        return state | {"records": json.dumps({**json.loads(state["records"]), "seconds": 3600.0})}

    monkeypatch.setattr(StateFiles, "newest", an_hour_later)
    carry_out("equal", stopped)
    assert read_json(str(stopped / "result.json"))["seconds"] > 3600.0


def test_a_finished_run_keeps_no_state(stopped):
    carry_out("equal", stopped)
    assert not (stopped / "state").exists()


def test_a_state_left_beside_a_result_is_deleted_when_the_run_is_read_back(stopped):
    stop_before(lambda: carry_out("equal", stopped), "scores: delete states", times=2)
    assert (stopped / "result.json").exists()
    assert states_in(stopped)
    carry_out("equal", stopped)
    assert not (stopped / "state").exists()


def test_the_default_saves_seldom_enough_and_a_negative_number_is_refused():
    assert ComputeConfig().checkpoint_every == 200
    with pytest.raises(ValueError, match="checkpoint_every must be at least 0, got -1"):
        ComputeConfig(checkpoint_every=-1)
