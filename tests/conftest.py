"""Fixtures shared by all tests: one private Ray cluster a session, and the media files beside the checkout."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A private local cluster with two CPUs, started once, whatever clusters run on the host."""
    from jobs.session import connect

    address = os.environ.pop("RAY_ADDRESS", None)
    with connect(num_cpus=2):
        yield
    if address is not None:
        os.environ["RAY_ADDRESS"] = address


@pytest.fixture(scope="session")
def media_fixtures() -> Path:
    """The folder of good, odd and broken media files beside the checkout."""
    if not (FIXTURES / "expected.json").is_file():
        pytest.skip(f"no media fixtures at {FIXTURES}")
    return FIXTURES
