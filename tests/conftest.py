"""Fixtures shared by all tests: a private Ray cluster, an S3 server, and the media files beside the checkout."""

import functools
import os
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
# Ray Train looks at its workers every 2 s, and nobody announces that a machine here will be taken away.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"


SHARED = ("ray_session", "undisturbed", "job_server")
"""Fixtures of the session that cost so much that only one of two test processes makes each."""


@functools.cache
def kind_of(file: Path) -> str:
    """Which of those fixtures a test file asks for; else whether it takes long ("slow"), or nothing."""
    text = file.read_text()
    for fixture in SHARED:
        if re.search(rf"def \w+\([^)]*\b{fixture}\b", text):
            return fixture
    return "slow" if "pytest.mark.slow" in text else ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With two test processes (`pytest -n 2`), each has all files that share such a fixture; others go one by one."""
    from xdist.scheduler import LoadScopeScheduling

    class BySharedFixture(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            kind = kind_of(config.rootpath / file)
            return kind if kind in SHARED else file

    config.option.loadscopereorder = False
    return BySharedFixture(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One of several test processes: what takes longest comes first, so that they end at about the same time."""
    if hasattr(config, "workerinput"):
        order = [*SHARED, "slow", ""]
        items.sort(key=lambda item: order.index(kind_of(item.path)))


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Server:
    """A running server."""

    endpoint: str
    """Its address; the environment holds it, too."""
    log: Path
    """Where it writes a line for every request."""

    def requests(self) -> list[str]:
        """Method and path of every request so far, such as ``GET /bucket/key``."""
        text = re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text())
        lines = (line.split('"') for line in text.splitlines())
        return [parts[1].rsplit(" ", 1)[0] for parts in lines if len(parts) > 2]


@pytest.fixture(scope="session", autouse=True)
def s3_socket() -> Iterator[socket.socket]:
    """The socket of an S3 server that may be started later, and the environment that leads to it.

    Ray's workers and loader processes inherit the environment of the moment when Ray or their fork server was started,
    by whichever test, so it is set before the first one.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        environment.setenv("AWS_ACCESS_KEY_ID", "test-access-key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-key")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            environment.delenv(name, raising=False)
        yield listening


@pytest.fixture(scope="session")
def s3_server(s3_socket: socket.socket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server of our own on loopback, in a process of its own."""
    pytest.importorskip("moto", reason="the S3 tests need moto[server]")
    log = tmp_path_factory.mktemp("s3") / "requests.log"
    descriptor = s3_socket.fileno()
    with log.open("w") as lines:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.s3_server", str(descriptor)],
            cwd=Path(__file__).resolve().parents[1],
            pass_fds=[descriptor],
            stderr=lines,
        )
        try:
            yield S3Server(endpoint=os.environ["AWS_ENDPOINT_URL"], log=log)
        finally:
            server.terminate()
            server.wait()


@pytest.fixture(scope="session")
def s3_client(s3_server: S3Server) -> Any:
    """Another client of that server than the one under test."""
    return pytest.importorskip("boto3").client("s3")


@pytest.fixture
def s3_bucket(s3_client: Any) -> str:
    """The name of a new, empty bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def ray_session(s3_socket: socket.socket) -> Iterator[None]:
    """A private local cluster with two CPUs, started once, whatever clusters run on the host."""
    from jobs.session import connect

    address = os.environ.pop("RAY_ADDRESS", None)
    with connect(num_cpus=2):
        yield
    if address is not None:
        os.environ["RAY_ADDRESS"] = address


@pytest.fixture(scope="session")
def job_server(s3_socket: socket.socket) -> Iterator[Any]:
    """A cluster of two nodes to which jobs are submitted (`tests.jobs.job_server.JobServer`)."""
    from tests.jobs.job_server import cluster_of_two

    with cluster_of_two() as server:
        yield server


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Clips, and what a preprocessing job that nobody disturbs makes of them (`benchmarks.kills.Reference`)."""
    from benchmarks.kills import make_reference

    return make_reference(tmp_path_factory.mktemp("undisturbed"), clips=16, seconds=0.6)


@pytest.fixture(scope="session")
def media_fixtures() -> Path:
    """The folder of good, odd and broken media files beside the checkout."""
    if not (FIXTURES / "expected.json").is_file():
        pytest.skip(f"no media fixtures at {FIXTURES}")
    return FIXTURES
