"""A cluster as the README starts it: `ray start` of a head and of a second node, jobs by `ray job submit`, each a
process of its own.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import descendants

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True, kw_only=True, slots=True)
class JobServer:
    """Where jobs are submitted."""

    address: str
    """Of its head, for clients."""
    environment: dict[str, str]
    """Of its clients."""

    def submit(self, *command: str, **options) -> subprocess.Popen[str]:
        """`ray job submit` of a Python command, which prints what the job prints and ends with it."""
        line = [RAY, "job", "submit", f"--address={self.address}", "--working-dir=.", "--", sys.executable, *command]
        return subprocess.Popen(line, cwd=ROOT, env=self.environment, text=True, **options)

    def ended(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A job that was submitted, when it has ended."""
        client = self.submit(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        said, errors = client.communicate()
        return subprocess.CompletedProcess(client.args, client.returncode, said, errors)

    def done(self, line: str) -> str:
        """What a submitted job prints that ends well."""
        ended = self.ended("-m", *line.split())
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


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


@contextmanager
def cluster_of_two() -> Iterator[JobServer]:
    """Two nodes of one core each."""
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
            yield JobServer(address=f"http://127.0.0.1:{dashboard}", environment=environment)
        finally:
            # Asked to end, `ray start --block` takes half a minute to take leave of its parts.
            for node in nodes:
                for process in descendants(node.pid):
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)
                node.kill()
                node.wait()
