"""What every job says, where and to whom: lines, the result, a document, errors."""

import json

import pytest

from jobs.cli import JobError, main, run
from jobs.terminal import Result, say, say_aside, speaking, terminal_columns


def work(*, clips: int, rate: float = 0.5) -> Result:
    """Do the work.

    Args:
        clips: How many.
        rate: How fast.
    """
    if clips < 0:
        try:
            raise KeyError("the cause")
        except KeyError as error:
            raise JobError("nothing to do") from error
    say("working")
    print("a library speaks")
    say_aside("half of it")
    return Result(place="/out", text="a table", numbers={"clips": clips, "rate": rate})


def said(capsys, *arguments: str) -> tuple[str, str]:
    assert run(work, ["--clips", "3", *arguments]) == 0
    return capsys.readouterr()


def test_lines_come_first_and_the_result_last(capsys):
    out, err = said(capsys)
    assert out.splitlines() == ["working", "a library speaks", "a table", "/out"]
    assert err == "half of it\n"


def test_a_quiet_job_says_its_result_alone(capsys):
    out, err = said(capsys, "--quiet")
    assert out.splitlines() == ["a library speaks", "a table", "/out"]
    assert err == ""


def test_a_document_is_all_of_standard_output_whoever_prints(capsys):
    out, err = said(capsys, "--json")
    assert json.loads(out) == {"result": "/out", "clips": 3, "rate": 0.5}
    assert err.splitlines() == ["working", "a library speaks", "half of it"]


def test_a_quiet_document_is_said_alone(capsys):
    out, err = said(capsys, "--quiet", "--json")
    assert json.loads(out)["clips"] == 3
    assert err == "a library speaks\n"


def test_what_is_not_finite_is_null_in_a_document_and_a_result_may_be_no_place(capsys):
    assert run(lambda: Result(numbers={"loss": float("nan"), "all": [float("inf")]}), ["--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"result": None, "loss": None, "all": [None]}


@pytest.mark.parametrize("line", ["--json work --clips 3", "work --json --clips 3", "work --clips 3 --json"])
def test_how_to_speak_may_stand_anywhere_on_the_line(capsys, line):
    assert run({"work": work, "other": work}, line.split()) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 3


def test_before_the_job_and_before_the_recipe_too(capsys):
    assert main(["--json", "inspect"]) == 1
    assert capsys.readouterr() == ("", "error: name one data set: gblend inspect DATA\n")
    assert run(lambda *, config: Result(numbers={"of": config}), ["--json", "small"], recipes={"small": lambda: 3}) == 0
    assert json.loads(capsys.readouterr().out) == {"result": None, "of": 3}


def test_behind_two_dashes_words_are_the_jobs_own(capsys):
    assert run(work, ["--clips", "3", "--", "--json"]) == 2
    assert "working" not in capsys.readouterr().out


def test_an_error_has_its_traceback_where_it_is_asked_for(capsys):
    assert run(work, ["--clips", "-1"]) == 1
    assert capsys.readouterr() == ("", "error: nothing to do\n")
    assert run(work, ["--clips", "-1", "--debug", "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback")
    assert "KeyError: 'the cause'" in err
    assert err.endswith("error: nothing to do\n")


def test_every_job_has_these_flags_in_its_help_and_guesses_them(capsys):
    assert run({"work": work, "other": work}, ["work", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(flag in out for flag in ("--quiet", "--json", "--debug"))
    assert run(work, ["--clips", "3", "--quite"]) == 2
    assert "--quiet" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "[--quiet] [--json] [--debug]" in capsys.readouterr().out


def test_a_job_speaks_as_before_when_another_has_ended(capsys):
    from jobs.terminal import Speech

    with speaking(Speech()):
        assert run(work, ["--clips", "3", "--quiet"]) == 0
        capsys.readouterr()
        say("still here")
    assert capsys.readouterr().out == "still here\n"


def test_only_a_terminal_has_a_width(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    assert terminal_columns() is None
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "97")
    assert terminal_columns() == 97
