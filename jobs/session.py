"""The Ray cluster a job runs on: the one in ``RAY_ADDRESS``, else a private one that ends with the job.

A bare ``ray.init()`` would join whatever runs on the host, write an authentication token into the home directory and
talk a lot; every choice it makes by itself is made here.
"""

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from pipelines.scratch import make_scratch

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""The variable in which Ray tells a submitted job its settings, as JSON."""

SCRATCH_PREFIX = "gb-"
"""Start of the names of directories of private clusters."""

PACKAGES_ROOT = str(Path(__file__).resolve().parents[1])
"""Where the packages can be imported from."""


@contextmanager
def connect(*, num_cpus: int | None = None) -> Iterator[None]:
    """Be connected to a cluster for the time of a block. ``num_cpus`` limits a private one. Joins an open session.

    The whole job, workers included, computes on one thread a process: the cores belong to Ray.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = os.environ.get("RAY_ADDRESS")
    environment = {"OMP_NUM_THREADS": "1"}
    quiet: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # It warns that bars are off as asked.
    if address:
        if _sets_threads():
            environment.clear()  # Ray refuses a variable that both the submitted job and its driver set.
        with _told(f"cannot join the Ray cluster at {address} (from RAY_ADDRESS)"):
            ray.init(address=address, runtime_env={"env_vars": environment}, **quiet)
        scratch = None
    else:
        # Tokens are on by default for local clusters in some Ray versions and for all in others: state it. A cluster
        # that somebody else started has the mode its users chose.
        os.environ["RAY_AUTH_MODE"] = "disabled"
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [PACKAGES_ROOT, os.environ.get("PYTHONPATH")]))
        scratch = make_scratch(SCRATCH_PREFIX, root=_scratch_root())
        with _told("cannot start a private Ray cluster"):
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                _temp_dir=scratch.path,
                # Nobody reads metrics of a cluster without a dashboard, and their thread has crashed a driver (2.60).
                _system_config={"enable_metrics_collection": False},
                runtime_env={"env_vars": environment},
                **quiet,
            )
    try:
        yield
    finally:
        ray.shutdown()
        if scratch is not None:
            scratch.remove()


def _scratch_root() -> str:
    """Short: the paths of Ray's sockets lie below it, and a socket path holds 107 bytes."""
    return "/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()


def _sets_threads() -> bool:
    """Whether the environment, or the submitted job this process belongs to, says how many threads to use."""
    submitted = json.loads(os.environ.get(JOB_CONFIG) or "{}")
    variables = (submitted.get("runtime_env") or {}).get("env_vars") or {}
    return "OMP_NUM_THREADS" in os.environ or "OMP_NUM_THREADS" in variables


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Ray's ways to fail while connecting, as the one that a job reports as a line."""
    try:
        yield
    except Exception as error:  # Of a node that does not start in time Ray says it by this very class.
        raise ConnectionError(f"{what}: {error}") from error
