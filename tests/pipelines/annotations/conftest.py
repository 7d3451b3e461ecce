"""The slices of official annotation files beside the checkout."""

from collections.abc import Callable
from pathlib import Path

import pytest

ANNOTATIONS = Path(__file__).resolve().parents[4] / "shared" / "fixtures" / "annotations"


@pytest.fixture(scope="session")
def official() -> Callable[[str], str]:
    """The text of an official file by its path."""
    if not ANNOTATIONS.is_dir():
        pytest.skip(f"no annotation fixtures at {ANNOTATIONS}")
    return lambda name: (ANNOTATIONS / name).read_bytes().decode()
