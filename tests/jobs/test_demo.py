"""What the demo says around its steps; the steps themselves are those of other jobs."""

import shlex
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

import jobs.demo
from jobs.cli import run
from jobs.demo import next_steps
from jobs.terminal import Result


@dataclass(frozen=True, kw_only=True)
class Made:
    annotations: Path


@pytest.fixture
def said(monkeypatch, tmp_path, capsys) -> list[str]:
    """Lines on standard output of a demo of which every step is done at once, run in a shell without gblend."""
    monkeypatch.chdir(tmp_path)
    report, advised = f"{tmp_path}/demo-out/comparison/report.html", f"{tmp_path}/demo-out/comparison/runs/equal-s0"
    monkeypatch.setattr(jobs.demo, "connect", nullcontext)
    monkeypatch.setattr(jobs.demo, "generate", lambda *_, **__: Made(annotations=tmp_path))
    monkeypatch.setattr(jobs.demo, "manifest", {"csv": lambda **_: Result(place="clips")})
    monkeypatch.setattr(jobs.demo, "preprocess", lambda **_: Result(place="data"))
    monkeypatch.setattr(jobs.demo, "compare", lambda **_: Result(place=report, numbers={"advised_run": advised}))
    monkeypatch.setenv("PATH", "")
    assert run(jobs.demo.demo, []) == 0
    return capsys.readouterr().out.splitlines()


def test_how_long_it_takes_is_said_first_and_every_step_has_a_number(said):
    assert said[0].startswith("four steps, with two seeds about 20 minutes on two cores: play, manifest,")
    assert [line[3:6] for line in said if line.startswith("== ")] == ["1/4", "2/4", "3/4", "4/4"]


def test_it_ends_with_what_to_run_next_and_then_the_report(said):
    inspect, predict, own, browser, report = said[-5:]
    assert inspect.endswith("gblend inspect demo-out/data --contact-sheet demo-out/sheet.png")
    assert predict.endswith("gblend predict --run demo-out/comparison/runs/equal-s0 demo-out/videos/test")
    assert own.endswith('README.md, "Your own videos"')
    assert browser == "open this file in a browser:"
    assert report.endswith("/demo-out/comparison/report.html")


def test_where_gblend_is_not_on_the_path_it_is_named_by_its_place(said, tmp_path):
    command = said[-5].removeprefix("what the clips are like:").split()[0]
    assert (tmp_path / command).exists()


def test_what_it_says_to_run_next_can_be_copied_from_a_folder_with_a_space_in_its_name():
    inspect, predict, _ = next_steps("my demo", run="my demo/comparison/runs/equal-s0", command="gblend")
    assert shlex.split(inspect.split("  ")[1])[2] == "my demo/data"
    assert shlex.split(predict.split(":", 1)[1])[3:] == ["my demo/comparison/runs/equal-s0", "my demo/videos/test"]
