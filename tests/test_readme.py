"""The README's library example runs as it is printed, and the commands it names exist."""

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


def test_the_check_of_the_python_version_is_not_shown(tmp_path):
    ask = ["make", "venv", f"VENV={tmp_path}/venv", "PYTHON=false"]
    ended = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "sys.exit" not in ended.stdout


def test_what_installing_costs_is_said_before_it_begins(tmp_path):
    ask = ["make", "venv", f"VENV={tmp_path}/venv", "PYTHON=true"]  # makes no environment, so its pip is not there
    said = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    assert said[0] == f"installing the pinned packages into {tmp_path}/venv: about 5 minutes, 7.6 GB"
