"""The README's way onto a cluster: `ray start --head` and `ray job submit`, each a process of its own."""

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
from jobs.manifest import manifest
from tests.media import ordinary_clip

ROOT = Path(__file__).resolve().parents[2]
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
        dashboard = free_port()
        head = subprocess.Popen(
            [
                *(RAY, "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={scratch}", f"--port={free_port()}"),
                *("--include-dashboard=true", f"--dashboard-port={dashboard}", "--object-store-memory=200000000"),
                f"--dashboard-agent-listen-port={free_port()}",
            ],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 120
            while not answers(f"http://127.0.0.1:{dashboard}/api/jobs/"):
                assert head.poll() is None, "ray start --head ended by itself"
                assert time.monotonic() < deadline, "the job server did not come up"
                time.sleep(0.2)
            yield f"http://127.0.0.1:{dashboard}", environment
        finally:
            # Asked to end, `ray start --block` takes half a minute to take leave of its parts.
            for process in descendants(head.pid):
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            head.kill()
            head.wait()


def submit(cluster: tuple[str, dict[str, str]], *command: str) -> subprocess.CompletedProcess[str]:
    address, environment = cluster
    line = [RAY, "job", "submit", f"--address={address}", "--working-dir=.", "--", sys.executable, *command]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


WHERE = (
    "import json, os, ray, schemas, jobs.session as s; c = s.connect(); c.__enter__(); "
    "f = lambda: [os.getcwd(), __import__('schemas').__file__]; "
    "print(json.dumps([f(), ray.get(ray.remote(f).remote())])); c.__exit__(None, None, None)"
)
"""Prints the working directory and where `schemas` comes from, of the driver and of a task."""


@pytest.mark.slow
def test_driver_and_workers_import_the_packages_that_were_uploaded(cluster):
    # The packages are also installed in the interpreter that runs the job, so that it works proves nothing.
    done = submit(cluster, "-c", WHERE)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("[[")]
    for directory, file in json.loads(line):
        assert "working_dir_files" in directory
        assert Path(file) == Path(directory) / "schemas" / "__init__.py"


@pytest.mark.slow
def test_a_submitted_preprocess_job_writes_the_data_set(cluster, tmp_path):
    for split in ("train", "test"):
        for label in ("a", "b"):
            ordinary_clip(tmp_path / "videos" / split / label / "0.mp4")
    clips = manifest["folder"](videos=str(tmp_path / "videos"), out=str(tmp_path / "clips.parquet"))
    line = f"jobs.preprocess --manifest {clips} --videos {tmp_path}/videos --out {tmp_path}/data --rgb.short-side-px 32"
    done = submit(cluster, "-m", *line.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "data" / "dataset.json").read_text())["counts"]["train"]["ok"] == 2
    assert f"{tmp_path}/data" in done.stdout


@pytest.mark.slow
def test_a_submitted_job_that_fails_says_why_and_exits_with_an_error(cluster, tmp_path):
    failed = submit(cluster, *f"-m jobs.compare small-cpu --data {tmp_path}/none --out {tmp_path}/out".split())
    assert failed.returncode == 1
    assert "is not a finished data set; rerun `gblend preprocess`" in failed.stdout + failed.stderr
