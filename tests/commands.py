"""Command lines that pages and manifests show: whether the program takes them, without carrying anything out."""

import functools
import importlib
import itertools
import re
import shlex
from typing import Any

import pytest

from gblend.clip_choice import require_resolution
from gblend.methods import check_methods
from jobs.cli import main
from schemas.features import FeatureSpec


def commands_in(text: str) -> list[list[str]]:
    """Lines that begin with `gblend` or run `python -m jobs.NAME`, continued ones joined, [options] given, the first
    of a|b, as what follows ``gblend`` up to where the shell takes its output.
    """
    plain = re.sub(r"\|\w+", "", re.sub(r"[\[\]]", "", text)).replace("\\\n", " ")
    found = (re.match(r"gblend (.*)|.*\bpython -m jobs\.(.*)", line.strip()) for line in plain.splitlines())
    words = [shlex.split(match[1] or match[2], comments=True) for match in found if match]
    return [list(itertools.takewhile(lambda word: word not in (">", "|"), each)) for each in words]


def recorder(job: Any, taken: list[dict[str, Any]]) -> Any:
    """In place of a job: takes what it takes, adds it to ``taken``, and does what it does before it reads data."""

    @functools.wraps(job)
    def record(*_args: Any, **given: Any) -> None:
        methods = given.get("methods") or ([given["method"]] if given.get("method") else [])
        if methods and given["config"].modalities:
            check_methods(methods, given["config"].modalities, given["config"])
        taken.append(given)

    return record


def assert_taken(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> list[dict[str, Any]]:
    """The program takes each of the commands; what the jobs are given."""
    assert commands
    taken: list[dict[str, Any]] = []
    monkeypatch.setattr("jobs.cli._scheduled", lambda config, _path: config)  # The file is another command's.
    for name in {command[0] for command in commands}:
        module = importlib.import_module(f"jobs.{name}")
        job = getattr(module, name)
        several = isinstance(job, dict)
        fakes = {key: recorder(each, taken) for key, each in job.items()} if several else recorder(job, taken)
        monkeypatch.setattr(module, name, fakes)
    for command in commands:
        assert main(command) == 0, f"{shlex.join(command)}: {capsys.readouterr().err}"
    return taken


def require_fitting_data(taken: list[dict[str, Any]]) -> int:
    """Raise ``ValueError`` where a job would refuse data that another one of these writes; how many of these read some.

    Args:
        taken: What jobs are given, in order.
    """
    made, read = {each["out"]: FeatureSpec(rgb=each["rgb"]) for each in taken if "rgb" in each}, 0
    for each in taken:
        if "config" in each and each["data"] in made:
            require_resolution(made[each["data"]], each["config"])
            read += 1
    return read
