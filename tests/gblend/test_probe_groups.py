"""The driver's side of probes on groups of workers, without a cluster: what it says, and what it does when it fails."""

import queue
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ray.util.queue import Empty, Queue

from gblend.config import BlendConfig, ComputeConfig
from gblend.loop import Position
from gblend.probe_groups import Desk, _Service, _StoppedError
from gblend.probe_task import ProbeTask
from tests.gblend.tiny import tiny_config

CONFIG = tiny_config(blend=BlendConfig(probes="spread"))
BRANCHES = ("rgb", "fused")


class Line(Queue):
    """Ray's queue, in this process."""

    def __init__(self) -> None:
        self.inside: queue.Queue[Any] = queue.Queue()

    def put(self, item: Any) -> None:
        self.inside.put(item)

    def get(self, timeout: float = 0.0) -> Any:
        try:
            return self.inside.get_nowait()
        except queue.Empty:
            raise Empty from None

    def empty(self) -> bool:
        return self.inside.empty()


def task_of(**changes) -> ProbeTask:
    task = ProbeTask(
        run="run",
        branches=BRANCHES,
        config=CONFIG,
        seed=0,
        ahead=Position(start_epoch=0, epochs=2),
        checkpoint={},
        workers=1,
    )
    return replace(task, **changes)


def service_of(say: Callable[[str], object] = print, **compute) -> _Service:
    """One that nothing is sent to."""
    desk = Desk(asked=Line(), answered=Line())
    return _Service(data="", compute=ComputeConfig(**compute), say=say, desk=desk)


def ask(service: _Service, task: ProbeTask) -> Callable[[], Any]:
    """What worker 0 of a run does, and then the driver's thread, until it has nothing more to begin."""
    arrivals = service.desk(task)

    def end_when_empty() -> None:
        if service.desk.asked.empty():
            service.stopped.set()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(service, "tell_progress", end_when_empty)
        service.serve()
    service.stopped.clear()
    for thread in service.threads:
        thread.join()
    return arrivals


def all_of(arrivals: Callable[[], Any], count: int) -> dict[str, Any]:
    """What arrives; what is said to others is passed over."""
    found: dict[str, Any] = {}
    for _ in range(20):
        found |= arrivals()
    assert len(found) == count
    return found


def fail(*_arguments: Any, **_options: Any) -> Any:
    raise ConnectionError("the cluster does not answer")


def answer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a cluster, and every probe is finished as soon as it is begun."""
    monkeypatch.setattr("gblend.probe_groups.nodes", lambda: [{"CPU": 8.0}])
    monkeypatch.setattr("gblend.probe_groups.ray.put", lambda task: task)
    monkeypatch.setattr(_Service, "attempt", lambda self, task, branch, reference: {"at": branch})


def test_a_driver_that_cannot_start_probes_tells_the_run_which_would_wait_for_ever(monkeypatch):
    monkeypatch.setattr("gblend.probe_groups.nodes", fail)
    arrivals = ask(service_of(), task_of())
    with pytest.raises(RuntimeError, match="the probes of run from epoch 0 could not be started: the cluster does not"):
        arrivals()


def test_probes_that_could_not_be_started_are_tried_again_when_the_run_asks_again(monkeypatch):
    service = service_of()
    with monkeypatch.context() as broken:
        broken.setattr("gblend.probe_groups.nodes", fail)
        ask(service, task_of())
    answer_at_once(monkeypatch)
    arrivals = ask(service, task_of())
    assert all_of(arrivals, 2) == {branch: {"at": branch} for branch in BRANCHES}


def test_errors_said_to_a_run_that_has_started_again_since_are_not_its_own(monkeypatch):
    """All probes fail; the run that hears of the first starts again, and the others are still in the line."""
    service, task = service_of(restarts=0), task_of()
    answer_at_once(monkeypatch)
    with monkeypatch.context() as broken:
        broken.setattr(_Service, "attempt", fail)
        first = ask(service, task)
        with pytest.raises(RuntimeError, match="failed: the cluster does not answer"):
            first()
    assert not service.desk.answered.empty()
    assert all_of(ask(service, task), 2).keys() == set(BRANCHES)


def test_what_was_measured_is_said_again_to_a_run_that_has_started_again(monkeypatch):
    service, task = service_of(), task_of()
    answer_at_once(monkeypatch)
    ask(service, task)
    monkeypatch.setattr(_Service, "attempt", fail)
    assert all_of(ask(service, task), 2).keys() == set(BRANCHES)


def test_while_probes_train_a_line_a_minute_says_so(monkeypatch):
    now, said = [0.0], []
    monkeypatch.setattr("gblend.probe_groups.time.monotonic", lambda: now[0])
    service, task = service_of(said.append), task_of()
    service.known = {(task.key, "rgb"): None, (task.key, "fused"): None}
    service.placed, service.said_s = {"rgb"}, 0.0
    for _ in range(130):
        service.tell_progress()
        now[0] += 1.0
    assert said == ["probes on workers of their own: rgb training; fused waiting for machines"] * 2


@pytest.mark.parametrize(
    ("cpus", "words"),
    [
        (6.0, None),
        (2.0, "take turns: there is room for 1 groups of 2 workers beside the run's own"),
        (0.0, "wait for other machines: there is room for 0 groups of 2 workers beside the run's own"),
    ],
)
def test_probes_that_have_to_wait_for_room_are_said_once(monkeypatch, cpus, words):
    monkeypatch.setattr("gblend.probe_groups.nodes", lambda: [{"CPU": cpus}])
    said: list[str] = []
    task, service = task_of(workers=2), service_of(said.append, cpus_per_worker=0.5)
    service.tell_room(task, 2)
    service.tell_room(task, 2)
    assert said == ([] if words is None else [f"2 probes of run {words}"])


def test_a_run_that_goes_on_with_more_workers_asks_for_other_probes():
    task = task_of()
    more = replace(task, workers=task.workers + 1)
    assert more.name == task.name
    assert more.key != task.key


def test_a_run_of_the_same_name_with_other_settings_asks_for_other_probes():
    other = task_of(config=replace(CONFIG, batch_size=7))
    assert other.name == task_of().name
    assert other.key != task_of().key


def test_nobody_waits_for_probes_of_a_number_of_workers_that_is_gone():
    service, task = service_of(), task_of(workers=2)
    service.known = {(task.key, "rgb"): None}
    service.require_wanted(task, "rgb")
    with pytest.raises(_StoppedError):
        service.require_wanted(replace(task, workers=3), "rgb")
