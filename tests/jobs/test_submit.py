"""The README's way onto a cluster: `ray start` of a head and of a second node, and `ray job submit`, each a process of
its own.
"""

import json
import subprocess
from pathlib import Path

import pytest

from gblend.runs import load_run
from jobs.manifest import manifest
from tests.media import ordinary_clip

SMALL = "--modalities rgb logmel --input.frames 4 --blend.refit-epochs 0"

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
def failed(job_server, tmp_path_factory) -> subprocess.CompletedProcess[str]:
    """A submitted job that says where its packages are, and then compares without a data set."""
    place = tmp_path_factory.mktemp("failed")
    return job_server.ended("-c", WHERE, *f"small-cpu --data {place}/none --out {place}/out".split())


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
def data(job_server, tmp_path_factory) -> Path:
    """A data set that a submitted job made."""
    root = tmp_path_factory.mktemp("submitted")
    for split, count in (("train", 6), ("val", 1), ("test", 1)):
        for label in ("a", "b"):
            for number in range(count):
                ordinary_clip(root / "videos" / split / label / f"{number}.mp4")
    clips = manifest["folder"](videos=str(root / "videos"), out=str(root / "clips.parquet")).place
    line = f"jobs.preprocess --manifest {clips} --videos {root}/videos --out {root}/data --rgb.short-side-px 36"
    assert f"{root}/data" in job_server.done(line)
    return root / "data"


@pytest.mark.slow
def test_a_submitted_preprocess_job_writes_the_data_set(data):
    counts = json.loads((data / "dataset.json").read_text())["counts"]
    assert {split: counts[split]["ok"] for split in counts} == {"train": 12, "val": 2, "test": 2}


@pytest.mark.slow
def test_a_submitted_training_of_two_workers_on_two_nodes_writes_its_run(job_server, data):
    """A node has one core and a worker takes one, so they cannot be on the same node."""
    out = data.parent / "run"
    line = f"jobs.train small-cpu --data {data} --out {out} --method equal --epochs 1 --workers 2"
    line += f" {SMALL}"
    assert str(out) in job_server.done(line)
    result = load_run(str(out)).result
    assert (result.method, result.workers, result.train_clips + result.heldout_clips) == ("equal", 2, 12)
    assert result.scores["test"]["fused"].count == 2
    assert (out / "report.html").is_file()
