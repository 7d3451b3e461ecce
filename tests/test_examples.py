"""Every example runs as its first lines say, without Ray and without the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def without_ray(tmp_path_factory) -> Path:
    """A folder whose modules hide what a library user need not have."""
    folder = tmp_path_factory.mktemp("hidden")
    for name in ("ray", "tyro", "lightning"):
        (folder / f"{name}.py").write_text(f"raise ImportError('an example imported {name}')\n")
    return folder


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_prints_weights_over_time_and_how_methods_compare(example, without_ray, tmp_path):
    done = subprocess.run(
        [sys.executable, str(example)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{without_ray}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    weights, _, accuracies = done.stdout.partition("\ntest accuracy")
    assert [line[:13] for line in weights.splitlines()] == ["from epoch  0", "from epoch  4", "from epoch  8"]
    methods = [line.split()[0] for line in accuracies.splitlines()[1:]]
    assert methods[0].startswith("uni:")
    assert methods[1:] == ["naive", "equal", "online"]
