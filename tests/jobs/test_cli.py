from dataclasses import dataclass

import pytest
import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from jobs.cli import Flat, JobError, Unchanged, main, run


def work(*, clips: int, rate: float = 0.5) -> str:
    """Do the work.

    Args:
        clips: How many.
        rate: How fast.
    """
    if clips == 0:
        raise JobError("nothing\nto do")
    if clips < 0:
        raise ValueError(f"clips must not be negative, got {clips}")
    print("working")
    return f"result-{clips}-{rate}"


@dataclass(frozen=True, kw_only=True)
class Counted:
    name: str
    """Of the recipe."""
    clips: int = 3
    """How many."""


def test_the_result_is_the_last_line_on_stdout(capsys):
    assert run(work, ["--clips", "3", "--rate", "0.25"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "result-3-0.25"


@pytest.mark.parametrize(("clips", "message"), [(0, "nothing to do"), (-1, "clips must not be negative, got -1")])
def test_failed_work_exits_1_with_one_line(capsys, clips, message):
    assert run(work, ["--clips", str(clips)]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"error: {message}\n"
    assert captured.out == ""


def test_a_misspelt_flag_exits_2_with_a_suggestion(capsys):
    assert run(work, ["--clips", "3", "--rat", "1"]) == 2
    assert "--rate" in capsys.readouterr().err


def test_an_interrupted_job_says_so_in_a_line_and_exits_130(capsys):
    def interrupted() -> str:
        """Be interrupted."""
        raise KeyboardInterrupt

    assert run(interrupted, []) == 130
    assert capsys.readouterr() == ("", "error: interrupted\n")


def test_help_shows_the_documentation_of_the_function(capsys):
    assert run(work, ["--help"], prog="gblend work") == 0
    out = capsys.readouterr().out
    assert "Do the work." in out
    assert "How many." in out


def test_a_dict_of_functions_is_a_set_of_subcommands(capsys):
    assert run({"work": work, "other": work}, ["work", "--clips", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "result-2-0.5"
    assert run({"work": work, "other": work}, ["wrk"]) == 2


def test_the_console_script_lists_its_jobs_and_guesses_misspelt_ones(capsys):
    assert main(["--help"]) == 0
    assert "preprocess" in capsys.readouterr().out
    assert main(["preproces"]) == 2
    assert "did you mean 'preprocess'" in capsys.readouterr().err


def in_a_task(cause: Exception) -> Exception:
    """What `ray.get` raises for an error in a task."""
    return RayTaskError("f", "\x1b[36mray::f()\x1b[39m\n  Traceback", cause).as_instanceof_cause()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (in_a_task(ValueError("ale-py has no game 'chess'")), "ale-py has no game 'chess'"),
        (in_a_task(OSError("no space")), "no space"),
        (in_a_task(JobError("not today")), "not today"),
        (in_a_task(in_a_task(ValueError("deep"))), "deep"),
        (ConnectionError("\x1b[31mno cluster\x1b[0m\nthere"), "no cluster there"),
        (WorkerCrashedError(), str(WorkerCrashedError())),
    ],
)
def test_an_error_of_ray_or_in_a_task_is_one_line_without_colours(capsys, error, message):
    def fail() -> str:
        raise error

    assert run(fail, []) == 1
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize("error", [TypeError("x"), AssertionError("x"), RuntimeError("x")])
@pytest.mark.parametrize("wrap", [lambda error: error, in_a_task])
def test_a_mistake_in_the_program_keeps_its_traceback(error, wrap):
    def fail() -> str:
        raise wrap(error)

    with pytest.raises(type(error)):
        run(fail, [])


@pytest.mark.slow
def test_an_error_in_a_real_task_is_one_line(ray_session, capsys):
    @ray.remote
    def task() -> None:
        raise ValueError("bad clip")

    def work_in_ray() -> str:
        return ray.get(task.remote())

    assert run(work_in_ray, []) == 1
    assert capsys.readouterr().err == "error: bad clip\n"


def test_a_job_may_be_told_the_recipe_as_it_was_before_any_flag(capsys):
    def count(*, config: Flat[Counted], recipe: Unchanged[Counted] = None) -> str:
        """Count.

        Args:
            config: The recipe.
            recipe: What it was.
        """
        return f"{config.name} {config.clips} {recipe}"

    assert run(count, ["few", "--name", "mine", "--clips", "5"], recipes={"few": lambda: Counted(name="few")}) == 0
    assert capsys.readouterr().out.strip() == f"mine 5 {Counted(name='few')}"
    assert run(count, ["few", "--recipe.clips", "5"], recipes={"few": lambda: Counted(name="few")}) == 2
