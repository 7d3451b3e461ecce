"""Command lines that pages and manifests show: whether the program takes them, without carrying anything out."""

import functools
import importlib
import re
import shlex
from typing import Any

import pytest

from gblend.methods import check_methods
from jobs.cli import main


def commands_in(text: str) -> list[list[str]]:
    """Lines that begin with `gblend` or run `python -m jobs.NAME`, continued ones joined, [options] given, the first
    of a|b, as what follows ``gblend``.
    """
    plain = re.sub(r"\|\w+", "", re.sub(r"[\[\]]", "", text)).replace("\\\n", " ")
    found = (re.match(r"gblend (.*)|.*\bpython -m jobs\.(.*)", line.strip()) for line in plain.splitlines())
    return [shlex.split(match[1] or match[2], comments=True) for match in found if match]


def recorder(job: Any) -> Any:
    """In place of a job: takes what it takes, and does what it does before it reads data."""

    @functools.wraps(job)
    def record(*_args: Any, **given: Any) -> None:
        methods = given.get("methods") or ([given["method"]] if given.get("method") else [])
        if methods and given["config"].modalities:
            check_methods(methods, given["config"].modalities, given["config"])

    return record


def assert_taken(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """The program takes each of the commands."""
    assert commands
    for name in {command[0] for command in commands}:
        module = importlib.import_module(f"jobs.{name}")
        job = getattr(module, name)
        fakes = {key: recorder(each) for key, each in job.items()} if isinstance(job, dict) else recorder(job)
        monkeypatch.setattr(module, name, fakes)
    for command in commands:
        assert main(command) == 0, f"{shlex.join(command)}: {capsys.readouterr().err}"
