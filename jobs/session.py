"""The Ray cluster a job runs on: the one in ``RAY_ADDRESS``, else a private one that ends with the job.

A bare ``ray.init()`` would join whatever runs on the host, write an authentication token into the home directory and
talk a lot; every choice it makes by itself is made here.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

PACKAGES_ROOT = str(Path(__file__).resolve().parents[1])
"""Where the packages can be imported from."""


def absolute(path: str) -> str:
    """A local path made absolute, because Ray's workers run in another directory; a URL as it is.

    >>> absolute("s3://bucket/data")
    's3://bucket/data'
    """
    return path if "://" in path else os.path.abspath(path)


@contextmanager
def connect(*, num_cpus: int | None = None) -> Iterator[None]:
    """Be connected to a cluster for the time of a block. ``num_cpus`` limits a private one. Joins an open session.

    The whole job, workers included, computes on one thread a process: the cores belong to Ray.
    """
    if ray.is_initialized():
        yield
        return
    # Tokens are on by default for local clusters in some Ray versions and for all in others: state it.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    # Read when ray.data is first imported, so set for this process rather than passed to ray.init.
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = os.environ.get("RAY_ADDRESS")
    environment = {"OMP_NUM_THREADS": "1"}
    quiet: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # It warns that bars are off as asked.
    if address:
        ray.init(address=address, runtime_env={"env_vars": environment}, **quiet)
        scratch = None
    else:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [PACKAGES_ROOT, os.environ.get("PYTHONPATH")]))
        # Short: the paths of Ray's sockets lie below it, and a socket path holds 107 bytes.
        scratch = tempfile.mkdtemp(prefix="gb-", dir="/tmp" if os.path.isdir("/tmp") else None)
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            _temp_dir=scratch,
            runtime_env={"env_vars": environment},
            **quiet,
        )
    try:
        yield
    finally:
        ray.shutdown()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
