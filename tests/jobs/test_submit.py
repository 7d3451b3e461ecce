"""The README's way onto a cluster: `ray start` of a head and of a second node, and `ray job submit`, each a process of
its own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.processes import descendants
from gblend.candidate import read_schedule
from gblend.runs import load_run
from gblend.trials import read_trials
from jobs.manifest import manifest
from tests.media import ordinary_clip

ROOT = Path(__file__).resolve().parents[2]
SMALL = "--modalities rgb logmel --input.frames 4 --blend.refit-epochs 0"
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """Address of the job server of a cluster started like a user's, and the environment for its clients."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with tempfile.TemporaryDirectory(prefix="gb-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        dashboard, port = free_port(), free_port()
        nodes: list[subprocess.Popen] = []

        def start(*arguments: str) -> None:
            line = [RAY, "start", "--block", "--num-cpus=1", "--object-store-memory=200000000", *arguments]
            # A node empties the directory of uploaded packages when it starts: two on a host must not share it.
            line += [f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={scratch}/{len(nodes)}"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            nodes.append(subprocess.Popen(line, env=environment, start_new_session=True, **quiet))

        try:
            start("--head", f"--port={port}", "--include-dashboard=true", f"--dashboard-port={dashboard}")
            deadline = time.monotonic() + 120
            while not answers(f"http://127.0.0.1:{dashboard}/api/jobs/"):
                assert nodes[0].poll() is None, "ray start --head ended by itself"
                assert time.monotonic() < deadline, "the job server did not come up"
                time.sleep(0.2)
            start(f"--address=127.0.0.1:{port}")
            # The first job waits for it: asking the cluster from here would cost another process.
            yield f"http://127.0.0.1:{dashboard}", environment
        finally:
            # Asked to end, `ray start --block` takes half a minute to take leave of its parts.
            for node in nodes:
                for process in descendants(node.pid):
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)
                node.kill()
                node.wait()


def submit(cluster: tuple[str, dict[str, str]], *command: str) -> subprocess.CompletedProcess[str]:
    address, environment = cluster
    line = [RAY, "job", "submit", f"--address={address}", "--working-dir=.", "--", sys.executable, *command]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def done(cluster: tuple[str, dict[str, str]], line: str) -> str:
    """What a submitted job prints that ends well."""
    ended = submit(cluster, "-m", *line.split())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


WHERE = """
import json, os, runpy, sys, time, ray, schemas
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from jobs.session import connect

def where():
    import schemas
    return [os.getcwd(), schemas.__file__]

with connect():
    while len(nodes := [node["NodeID"] for node in ray.nodes() if node["Alive"]]) < 2:
        time.sleep(0.2)
    on = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    print(json.dumps([where(), *ray.get([ray.remote(where).options(scheduling_strategy=s).remote() for s in on])]))
runpy.run_module("jobs.compare", run_name="__main__")
"""
"""Prints the working directory and where `schemas` comes from, of the driver and of a task on each of two nodes. Then
it is `python -m jobs.compare`.
"""


@pytest.fixture(scope="module")
def failed(cluster, tmp_path_factory) -> subprocess.CompletedProcess[str]:
    """A submitted job that says where its packages are, and then compares without a data set."""
    place = tmp_path_factory.mktemp("failed")
    return submit(cluster, "-c", WHERE, *f"small-cpu --data {place}/none --out {place}/out".split())


@pytest.mark.slow
def test_driver_and_workers_of_both_nodes_import_the_packages_that_were_uploaded(failed):
    # The packages are also installed in the interpreter that runs the job, so that it works proves nothing.
    # Of a job that fails, the last lines are printed once more.
    line = next(line for line in failed.stdout.splitlines() if line.startswith("[["))
    places = json.loads(line)
    assert len(places) == 3
    for directory, file in places:
        assert "working_dir_files" in directory
        assert Path(file) == Path(directory) / "schemas" / "__init__.py"


@pytest.mark.slow
def test_a_submitted_job_that_fails_says_why_and_exits_with_an_error(failed):
    assert failed.returncode == 1
    assert "is not a finished data set; rerun `gblend preprocess`" in failed.stdout + failed.stderr


@pytest.fixture(scope="module")
def data(cluster, tmp_path_factory) -> Path:
    """A data set that a submitted job made."""
    root = tmp_path_factory.mktemp("submitted")
    for split, count in (("train", 6), ("val", 1), ("test", 1)):
        for label in ("a", "b"):
            for number in range(count):
                ordinary_clip(root / "videos" / split / label / f"{number}.mp4")
    clips = manifest["folder"](videos=str(root / "videos"), out=str(root / "clips.parquet"))
    line = f"jobs.preprocess --manifest {clips} --videos {root}/videos --out {root}/data --rgb.short-side-px 36"
    assert f"{root}/data" in done(cluster, line)
    return root / "data"


@pytest.mark.slow
def test_a_submitted_preprocess_job_writes_the_data_set(data):
    counts = json.loads((data / "dataset.json").read_text())["counts"]
    assert {split: counts[split]["ok"] for split in counts} == {"train": 12, "val": 2, "test": 2}


@pytest.mark.slow
def test_a_submitted_training_of_two_workers_on_two_nodes_writes_its_run(cluster, data):
    """A node has one core and a worker takes one, so they cannot be on the same node."""
    out = data.parent / "run"
    line = f"jobs.train small-cpu --data {data} --out {out} --method equal --epochs 1 --workers 2"
    line += f" {SMALL}"
    assert str(out) in done(cluster, line)
    result = load_run(str(out)).result
    assert (result.method, result.workers, result.train_clips + result.heldout_clips) == ("equal", 2, 12)
    assert result.scores["test"]["fused"].count == 2
    assert (out / "report.html").is_file()


@pytest.mark.slow
def test_a_submitted_search_writes_a_schedule_and_its_report(cluster, data):
    out = data.parent / "search"
    line = f"jobs.tune small-cpu --data {data} --out {out} --num-samples 1 --space weights --scheduler none --epochs 1"
    line += f" {SMALL} --final-seeds 1"
    assert f"{out}/best.json" in done(cluster, line)
    assert read_schedule(str(out / "best.json")).method == "fixed"
    (trial,) = read_trials(str(out / "trials.parquet"))
    assert trial.state == "finished"
    assert (out / "report.html").is_file()
