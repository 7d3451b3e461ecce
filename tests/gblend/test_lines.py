"""What the driver says while it waits for workers."""

import pytest

from gblend.lines import ARRIVED, LOST, Listener, Step


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def listener(said, clock) -> Listener:
    return Listener(say=said.append, waits="no workers yet", clock=clock)


def pass_time(listener: Listener, clock: Clock, minutes: float) -> None:
    for _ in range(round(minutes * 120)):
        clock.now += 0.5
        listener.hear_nothing()


def test_lines_of_workers_are_said_as_they_come(listener, said):
    listener.hear("epoch 1")
    assert said == ["epoch 1"]


def test_how_far_workers_are_is_no_line(said):
    told = []
    listener = Listener(say=said.append, waits="", step=lambda *step: told.append(step))
    listener.hear(Step(done=1.5, total=4.0, note="epoch 1"))
    assert (said, told) == ([], [(1.5, 4.0, "epoch 1")])


def test_a_wait_for_workers_is_said_once_a_minute(listener, clock, said):
    pass_time(listener, clock, 0.9)
    assert said == []
    pass_time(listener, clock, 2.2)
    assert said == ["no workers yet"] * 3


def test_nothing_is_said_while_workers_are_there_and_silent(listener, clock, said):
    listener.hear(ARRIVED)
    pass_time(listener, clock, 10)
    assert said == []


def test_a_wait_for_workers_that_were_lost_is_said_again(listener, clock, said):
    listener.hear(ARRIVED)
    pass_time(listener, clock, 10)
    listener.hear("worker 1 failed: killed")
    listener.hear(LOST)
    pass_time(listener, clock, 1.5)
    assert said == ["worker 1 failed: killed", "no workers yet"]
