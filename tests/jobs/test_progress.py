"""How far work is: the same words on a bar and in lines, the bar on a terminal alone."""

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.progress import LINE_EVERY_S, RECENT_S, Rate, in_words, said_now_and_then

ROOT = Path(__file__).resolve().parents[2]

WORK = """
import sys, time
from jobs.cli import run
from jobs.progress import progress
from jobs.terminal import Result, say

def work() -> Result:
    '''Work.'''
    with progress("count", "sheep", total=4) as shown:
        for done in range(1, 5):
            time.sleep(0.15)
            say(f"sheep {done}")
            shown.step(done, 4, "all white")
    return Result(place="the meadow", numbers={"sheep": 4})

sys.exit(run(work))
"""


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_rate_is_that_of_the_last_minutes_and_not_of_the_start():
    clock = Clock()
    rate = Rate(clock=clock)
    assert rate.at(0) is None
    for second in range(1, 801):
        clock.now_s += 1.0
        found = rate.at(0.1 * second if second <= 400 else 40 + 2.0 * (second - 400))
    assert found == pytest.approx(2.0)
    assert len(rate.seen) <= RECENT_S + 2


def test_workers_that_end_their_steps_together_do_not_shake_the_rate():
    clock = Clock()
    rate = Rate(clock=clock)
    found = []
    for pair in range(30):
        clock.now_s += 400.0
        for worker in (1, 2):
            clock.now_s += 1.0
            found.append(rate.at(2 * pair + worker))
    assert max(found[20:]) / min(found[20:]) < 1.15


def test_what_was_done_before_the_first_look_is_not_taken_for_speed():
    clock = Clock()
    rate = Rate(clock=clock)
    rate.at(500)
    clock.now_s += 10.0
    assert rate.at(510) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"done": 10, "total": 10, "unit": "clips", "per_s": 2.0}, "10 of 10 clips, 2.0 clips/s"),
        ({"done": 0, "total": 9000, "unit": "clips", "per_s": 0.5}, "0 of 9000 clips, 0.5 clips/s, 5:00:00 left"),
        (
            {"done": 3, "total": None, "unit": "files", "per_s": 1.25, "note": "1 failed"},
            "3 files, 1.2 files/s, 1 failed",
        ),
    ],
)
def test_only_what_is_known_is_told(given, words):
    assert in_words(**given) == words


def test_without_a_terminal_there_is_a_line_now_and_then():
    clock, said = Clock(), []
    step = said_now_and_then("predict", "files", say=said.append, clock=clock)
    for done in range(1, 100):
        clock.now_s += 1.0
        step(done, 100, "")
    assert len(said) == 99 // LINE_EVERY_S
    assert said[0] == "predict: 30 of 100 files, 1.0 files/s, 1:10 left"


def piped(*arguments: str) -> tuple[str, str]:
    """Standard output and error where neither is a terminal."""
    done = subprocess.run(
        [sys.executable, "-c", WORK, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm"},
    )
    return done.stdout, done.stderr


def on_a_terminal(*arguments: str, stdout: int | None = None, **variables: str) -> str:
    """What a terminal gets on which a job runs; its standard output may go elsewhere."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, *arguments],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        env={**environment, "TERM": "xterm", "COLUMNS": "100", **variables},
    )
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 60.0)[0]:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux says so of a terminal that nobody else has open any more.
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return shown.decode()


def test_nothing_but_plain_text_is_written_where_there_is_no_terminal_whatever_is_forced():
    out, err = piped()
    assert out.splitlines() == ["sheep 1", "sheep 2", "sheep 3", "sheep 4", "the meadow"]
    assert err == ""


def test_a_terminal_shows_a_bar_with_count_rate_and_time_left_below_the_lines():
    shown = on_a_terminal()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", shown)  # a colour
    assert "━" in plain
    assert re.search(r"count .*[2-4] of 4 sheep, \d+\.\d sheep/s, 0:0\d left, all white", plain)
    assert [line.strip() for line in plain.splitlines() if re.match(r"sheep \d", line)] == [
        f"sheep {number}" for number in (1, 2, 3, 4)
    ]
    assert plain.strip().splitlines()[-1] == "the meadow"


def test_the_bar_is_on_the_terminal_when_the_result_goes_to_a_file(tmp_path):
    with (tmp_path / "out").open("wb") as file:
        shown = on_a_terminal("--json", stdout=file.fileno())
    assert (tmp_path / "out").read_text() == '{"result": "the meadow", "sheep": 4}\n'
    assert "4 of 4 sheep" in shown
    assert "sheep 2" in shown


def test_there_is_no_bar_where_it_is_not_wanted():
    assert on_a_terminal("--quiet") == "the meadow\r\n"
    assert "\x1b" not in on_a_terminal(TERM="dumb")


def test_no_color_is_heeded():
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", on_a_terminal(NO_COLOR="1")) is None
