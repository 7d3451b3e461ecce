"""The README's library example runs as it is printed, and the commands it names exist."""

import re
from pathlib import Path

import pytest

from jobs.cli import JOBS

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def test_the_library_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["found"].weights.sum() == pytest.approx(1.0)


def test_every_job_the_readme_runs_exists():
    named = set(re.findall(r"python -m jobs\.([a-z]+)|^gblend ([a-z]+) ", README, flags=re.MULTILINE))
    assert named
    assert {job for pair in named for job in pair if job} <= set(JOBS)
