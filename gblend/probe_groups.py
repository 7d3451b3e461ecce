"""Probes on groups of workers of their own: where they meet Ray.

The driver starts the groups and watches them. So nothing of them outlives the job, and when a run's own workers are
lost its probes go on: asked again for the same ones, the driver goes on with them or gives what it has. A group is
placed as a whole or not at all, holds its machines for one probe, and is tried again when it fails: a probe is a
function of its task.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.util import get_node_ip_address, placement_group, remove_placement_group
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from gblend.cluster import node_here, nodes
from gblend.config import ComputeConfig
from gblend.cost import SAY_EVERY_S
from gblend.data import load_run_data
from gblend.feeder import Feeding
from gblend.lines import queue_here, reason_of
from gblend.placement import groups_beside, resources_of, room
from gblend.probe_task import Arrivals, ProbeTask
from gblend.probes import carry_out
from gblend.run_state import State

MEETING_TIMEOUT = timedelta(minutes=30)
"""Of one exchange among the workers of a group; Ray Train gives its own as long."""

POLL_S = 1
"""How long a wait lasts before it is looked whether there is still anything to wait for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One asking for probes."""

    task: ProbeTask
    """Which."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Tells it from others, also from others for the same probes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What became of one probe."""

    ask: str
    """Which asking it answers."""
    branch: str
    """Which of its probes."""
    state: State = field(default_factory=dict)
    """What was measured."""
    error: str = ""
    """Why it failed for the last time; empty: it did not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """Where worker 0 of a run asks the driver for probes: an `Elsewhere` that can be sent to it."""

    asked: Queue
    """Of `Ask`."""
    answered: Queue
    """Of `Answer`; also to workers that are lost by now."""

    def __call__(self, task: ProbeTask) -> Arrivals:
        """Ask for the probes of a task."""
        # An answer to a run that has started again since is not one to this run: it may be an error of then.
        ask = Ask(task=task)
        self.asked.put(ask)

        def arrivals() -> dict[str, State]:
            try:
                answer: Answer = self.answered.get(timeout=POLL_S)
            except Empty:
                return {}
            if answer.ask != ask.token:
                return {}
            if answer.error:
                raise RuntimeError(answer.error)
            return {answer.branch: answer.state}

        return arrivals


@contextmanager
def probe_groups(data: str, compute: ComputeConfig, *, say: Callable[[str], object]) -> Iterator[Desk]:
    """Serve probes to the runs of a plan, one run after another.

    Args:
        data: Data set directory.
        compute: What each worker of a group holds, and how often a group that failed is started again.
        say: Told in a line when probes must take turns, and when a group is started again.
    """
    desk = Desk(asked=queue_here(), answered=queue_here())
    service = _Service(data=data, compute=compute, say=say, desk=desk)
    thread = threading.Thread(target=service.serve, daemon=True)
    thread.start()
    try:
        yield desk
    finally:
        service.stopped.set()
        for each in (thread, *service.threads):
            each.join(timeout=10.0 * POLL_S)
        desk.asked.shutdown()
        desk.answered.shutdown()


class _StoppedError(Exception):
    """Nobody waits for the probe any more."""


@dataclass(kw_only=True)
class _Service:
    """The driver's side of a `Desk`."""

    data: str
    compute: ComputeConfig
    say: Callable[[str], object]
    desk: Desk
    stopped: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)
    known: dict[tuple[str, str], State | None] = field(default_factory=dict)
    """What was measured, by task and branch; None: under way."""
    token: str = ""
    """Of the last asking, to which all answers go."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Of ``known``, and of what is said about it at the desk."""
    placed: set[str] = field(default_factory=set)
    """Branches whose group has its machines."""
    told_room: bool = False
    said_s: float = field(default_factory=time.monotonic)
    """When a line about progress was said last, or when there was nothing to say."""

    def serve(self) -> None:
        while not self.stopped.is_set():
            self.tell_progress()
            try:
                ask = self.desk.asked.get(timeout=POLL_S)
            except Empty:
                continue
            try:
                self.begin(ask)
            except Exception as error:  # Whatever it is, the run must hear of it: it waits.
                why = f"the probes of {ask.task.name} could not be started: {reason_of(error)}"
                for branch in ask.task.branches:
                    self.fail(ask.task, branch, why)

    def fail(self, task: ProbeTask, branch: str, error: str) -> None:
        """Tell the run that a probe under way has failed; asked again, it is tried again."""
        with self.lock:
            if self.known.get((task.key, branch), {}) is None:
                del self.known[(task.key, branch)]
                self.desk.answered.put(Answer(ask=self.token, branch=branch, error=error))

    def tell_progress(self) -> None:
        """A line a minute while a run's probes train: it prints none itself when it waits for them."""
        now = time.monotonic()
        with self.lock:
            under_way = [branch for (_, branch), found in self.known.items() if found is None]
        if not under_way:
            self.said_s = now
        elif now - self.said_s >= SAY_EVERY_S:
            self.said_s = now
            placed = [branch for branch in under_way if branch in self.placed]
            waiting = [branch for branch in under_way if branch not in self.placed]
            parts = [f"{', '.join(placed)} training"] * bool(placed) + [
                f"{', '.join(waiting)} waiting for machines"
            ] * bool(waiting)
            self.say(f"probes on workers of their own: {'; '.join(parts)}")

    def begin(self, ask: Ask) -> None:
        """Start what is not known yet, and say again what is: whoever it was said to may be lost."""
        task = ask.task
        with self.lock:
            self.token = ask.token
            self.known = {key: found for key, found in self.known.items() if key[0] == task.key}
            new = [branch for branch in task.branches if (task.key, branch) not in self.known]
            for branch in task.branches:
                found = self.known.setdefault((task.key, branch), None)
                if found is not None:
                    self.desk.answered.put(Answer(ask=self.token, branch=branch, state=found))
        if not new:
            return
        self.tell_room(task, len(new))
        # One copy for all groups, which is the driver's: the worker that sent it may be lost.
        reference = ray.put(task)
        self.threads = [thread for thread in self.threads if thread.is_alive()]
        for branch in new:
            thread = threading.Thread(target=self.train, args=(task, branch, reference), daemon=True)
            self.threads.append(thread)
            thread.start()

    def tell_room(self, task: ProbeTask, count: int) -> None:
        groups = groups_beside(nodes(), resources_of(self.compute), workers=task.workers)
        if groups < count and not self.told_room:
            self.told_room = True
            wait = "take turns" if groups > 0 else "wait for other machines"
            self.say(
                f"{count} probes of {task.run} {wait}: there is room for {max(groups, 0)} groups of {task.workers} "
                "workers beside the run's own"
            )

    def train(self, task: ProbeTask, branch: str, reference: Any) -> None:
        """One probe, however often it takes."""
        for restarts_left in range(self.compute.restarts, -1, -1):
            try:
                found = self.attempt(task, branch, reference)
            except _StoppedError:
                return
            except Exception as error:  # Whatever it is, the run must hear of it: it waits.
                if self.stopped.is_set():
                    return
                what, why = f"the probe of {branch} of {task.name}", reason_of(error)
                if restarts_left:
                    self.say(f"{what} starts again: {why}")
                else:
                    self.fail(task, branch, f"{what} failed: {why}")
            else:
                with self.lock:
                    if (task.key, branch) in self.known:
                        self.known[(task.key, branch)] = found
                        self.desk.answered.put(Answer(ask=self.token, branch=branch, state=found))
                return

    def attempt(self, task: ProbeTask, branch: str, reference: Any) -> State:
        """The probe on a group of workers that is there for it alone."""
        worker = resources_of(self.compute)
        group = placement_group([worker] * task.workers, strategy="PACK")
        actors: list[Any] = []
        try:
            while not group.wait(POLL_S):
                self.require_wanted(task, branch)
            self.placed.add(branch)
            kind = ray.remote(num_cpus=worker["CPU"], num_gpus=worker.get("GPU", 0))(_ProbeWorker)
            for rank in range(task.workers):
                place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
                actors.append(kind.options(scheduling_strategy=place).remote())
            (meeting,) = self.all_of([actors[0].open_meeting.remote()], task, branch)
            found = self.all_of(
                [
                    actor.work.remote(
                        reference, branch, data=self.data, compute=self.compute, rank=rank, meeting=meeting
                    )
                    for rank, actor in enumerate(actors)
                ],
                task,
                branch,
            )
            return found[0]
        finally:
            self.placed.discard(branch)
            for actor in actors:
                ray.kill(actor)
            remove_placement_group(group)

    def all_of(self, references: Sequence[Any], task: ProbeTask, branch: str) -> list[Any]:
        """What they refer to; the first that fails ends the wait for the others, who may wait for it in vain."""
        waiting = list(references)
        while waiting:
            self.require_wanted(task, branch)
            done, waiting = ray.wait(waiting, num_returns=1, timeout=POLL_S)
            ray.get(done)
        return ray.get(list(references))

    def require_wanted(self, task: ProbeTask, branch: str) -> None:
        """Leave off where the job ends, and where the run has asked for other probes by now."""
        if self.stopped.is_set() or (task.key, branch) not in self.known:
            raise _StoppedError


class _ProbeWorker:
    """One worker of a group."""

    def __init__(self) -> None:
        self.store: TCPStore | None = None

    def open_meeting(self) -> tuple[str, int]:
        """Host and port at which the workers of the group find each other; of its first worker."""
        host = get_node_ip_address()
        self.store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
        return host, self.store.port

    def work(
        self,
        task: ProbeTask,
        branch: str,
        *,
        data: str,
        compute: ComputeConfig,
        rank: int,
        meeting: tuple[str, int],
    ) -> State | None:
        """Carry out the probe, together with the group; what was measured, from its first worker."""
        torch.set_num_threads(max(1, int(compute.cpus_per_worker)))
        device = torch.device("cuda:0" if compute.gpus_per_worker > 0 else "cpu")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if task.workers > 1:
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=self.store or TCPStore(*meeting, is_master=False),
                rank=rank,
                world_size=task.workers,
                timeout=MEETING_TIMEOUT,
            )
        feeding = Feeding.of(compute, device=device, workers_here=workers_here(compute))
        found = carry_out(task, branch, load_run_data(data, task.config, feeding), device=device, compute=compute)
        return found if rank == 0 else None


def workers_here(compute: ComputeConfig) -> int:
    """Workers, of the run and of groups together, that this node may hold at a time: so many share what it has."""
    return max(1, room([node_here()], resources_of(compute)))
