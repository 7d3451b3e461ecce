"""`gblend evaluate`: what it writes, prints and refuses; two workers say what one process says."""

import json
import os
import signal
from pathlib import Path

import pytest

from benchmarks.processes import descendants
from gblend.evaluation import evaluate, open_evaluation
from gblend.lines import ARRIVED, Listener
from gblend.records import to_json
from gblend.views import Views
from jobs.cli import main
from tests.gblend.evaluated import train_on, write_noisy


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_noisy(tmp_path_factory.mktemp("noisy"))


@pytest.fixture(scope="module")
def equal(data, tmp_path_factory) -> str:
    return train_on(data, tmp_path_factory.mktemp("equal"), "equal")


@pytest.fixture
def killed(monkeypatch) -> list[int]:
    """Of the first group of workers that begins its work, one is killed at that."""
    pids: list[int] = []
    hear = Listener.hear

    def kill_and_hear(self: Listener, line: str) -> None:
        if line == ARRIVED and not pids:
            worker = next(p for p in descendants(os.getpid()) if p.command.startswith("ray::RayTrainWorker"))
            os.kill(worker.pid, signal.SIGKILL)
            pids.append(worker.pid)
        hear(self, line)

    monkeypatch.setattr(Listener, "hear", kill_and_hear)
    return pids


@pytest.mark.slow
def test_two_workers_one_of_which_is_killed_write_and_print_what_one_process_finds(
    ray_session, equal, data, capsys, killed
):
    assert main(["evaluate", "--run", equal, "--clips", "3", "--workers", "2"]) == 0
    assert len(killed) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("failed: its process was lost" in line for line in lines)
    assert lines[-1] == f"{equal}/evaluation/test-3xcentre.json"
    found = json.loads(Path(lines[-1]).read_text())
    alone = to_json(evaluate(*open_evaluation(equal, data, "test", Views(clips=3))))
    for part in ("heads", "ways"):
        losses = {name: score.pop("loss_nats") for name, score in found[part].items()}
        assert losses == pytest.approx({name: score.pop("loss_nats") for name, score in alone[part].items()}, rel=1e-5)
    assert found == alone
    table = {line.split()[0] for line in lines if line}
    assert table >= {"rgb", "flow", "logmel", "fused", "best-head", "mean", "stack", "refit"}
    assert [path.name for path in (Path(equal) / "evaluation").iterdir()] == ["test-3xcentre.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clips", "0"], "clips must be at least 1, got 0"),
        (["--data", "nowhere"], "nowhere is not a finished data set"),
        (["--workers", "0"], "workers must be at least 1, got 0"),
    ],
)
def test_a_wrong_setting_costs_one_line_and_no_cluster(equal, capsys, arguments, message):
    assert main(["evaluate", "--run", equal, *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_a_split_without_clips_and_a_directory_that_is_no_run_are_named(equal, tmp_path, capsys):
    from tests.gblend.evaluated import SPEC, noisy_clip
    from tests.gblend.shards import write_dataset

    train_only = write_dataset(tmp_path / "train", {"train": [noisy_clip("a", 0)]}, spec=SPEC)
    assert main(["evaluate", "--run", equal, "--data", train_only]) == 1
    assert "has no clip in split 'test'; splits with clips: train" in capsys.readouterr().err
    assert main(["evaluate", "--run", str(tmp_path)]) == 1
    assert "holds no result.json" in capsys.readouterr().err
