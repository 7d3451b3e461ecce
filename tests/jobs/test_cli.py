import pytest

from jobs.cli import JobError, main, run


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
