"""The README's library example runs as it is printed, and the commands it names exist."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from jobs.cli import JOBS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["found"].weights.sum() == pytest.approx(1.0)


def test_every_job_the_readme_runs_exists():
    named = set(re.findall(r"python -m jobs\.([a-z]+)|^gblend ([a-z]+) ", README, flags=re.MULTILINE))
    assert named
    assert {job for pair in named for job in pair if job} <= set(JOBS)


def test_what_its_commands_write_is_not_offered_to_git():
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    named = re.findall(r"--(?:out|contact-sheet|videos) ([a-z][\w.]*)(?=\s|$)", README, flags=re.MULTILINE)
    assert {"run", "data", "comparison", "clips.parquet", "sheet.png", "report.html", "videos"} <= set(named)
    ask = ["git", "-C", str(ROOT), "check-ignore", "--no-index", *named]
    assert subprocess.run(ask, capture_output=True, text=True, check=False).stdout.split() == named


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As from a shell: under another `make`, such as that of the tests, it would say which directory it enters."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=plain, capture_output=True, text=True, check=False)


def test_the_check_of_the_python_version_is_not_shown(tmp_path):
    ended = make("venv", f"VENV={tmp_path}/venv", "PYTHON=false")
    assert ended.returncode != 0
    assert "sys.exit" not in ended.stdout


def test_what_installing_costs_is_said_before_it_begins(tmp_path):
    # It makes no environment, so its pip is not there.
    said = make("venv", f"VENV={tmp_path}/venv", "PYTHON=true").stdout.splitlines()
    assert said[0] == f"installing the pinned packages into {tmp_path}/venv: about 5 minutes, 7.6 GB"
