"""What workers say, printed by the driver while it waits: their own output goes to log files of their nodes.

The actor that passes lines on stays on the driver's node, so that losing another node costs none; and a line that
cannot be passed on costs a worker nothing, for a message must not end a run.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gblend.cost import SAY_EVERY_S

POLL_S = 0.5
"""How long the driver waits for a line before it looks whether there will be any more."""

LOST_WORDS = ("worker process has died", "its node has died", "actor is temporarily unavailable")
"""With which Ray tells of a process that is no more, where it does not say so by the kind of the error."""

ARRIVED, LOST = "\N{START OF HEADING}", "\N{END OF TRANSMISSION}"
"""In place of lines."""


def print_line(line: str) -> None:
    """Say something where nobody wishes otherwise."""
    print(line, flush=True)


PROCESS_LOST = "its process was lost: killed, out of memory, or with its node"
"""A reason that may be the machine's, and not that of what was trained."""


def reason_of(error: BaseException) -> str:
    r"""The line of a failure that says what went wrong; Ray says it last.

    >>> reason_of(RuntimeError("Traceback:\n  ...\nValueError: no such clip"))
    'ValueError: no such clip'
    >>> reason_of(ray.exceptions.ActorDiedError())
    'its process was lost: killed, out of memory, or with its node'
    >>> reason_of(RuntimeError("The actor 14 is unavailable: The actor is temporarily unavailable: RpcError: ..."))
    'its process was lost: killed, out of memory, or with its node'
    >>> of_node = "The actor died because its node has died. Node Id: 3f\n\tthe actor's node was preempted: spot"
    >>> reason_of(RuntimeError(of_node)) == PROCESS_LOST
    True
    """
    lost = isinstance(error, RayError) and not isinstance(error, RayTaskError)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lost or any(words in line for line in lines for words in LOST_WORDS):
        return PROCESS_LOST
    return lines[-1] if lines else type(error).__name__


def queue_here() -> Queue:
    """A queue that lives as long as this process's node, whichever others are lost."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """How far a worker group is."""

    done: float
    """Amount."""
    total: float
    """All of it."""
    note: str
    """Where that is, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lines:
    """Where a worker puts what is to be printed; can be sent to it."""

    queue: Queue
    """Of text, and of `Step` where that is listened to."""
    counted: bool = False
    """Whether the driver shows how far workers are: lines about that are then too much."""

    def step(self, done: float, total: float, note: str) -> None:
        """Have the driver show how far the group is."""
        self.put(Step(done=done, total=total, note=note))

    def put(self, line: str | Step) -> None:
        """Have a line printed by the driver. Where it cannot be reached, the line is in the worker's own log."""
        try:
            self.queue.put(line)
        except RayError as error:
            logging.getLogger(__name__).warning("%s (not passed on: %s)", line, error)

    def arrived(self) -> None:
        """Let the driver know that the workers are there."""
        self.put(ARRIVED)

    def lost(self) -> None:
        """Let the driver know that it waits for workers again."""
        self.put(LOST)


@dataclass(kw_only=True)
class Listener:
    """What the driver does with what it hears, and with hearing nothing."""

    say: Callable[[str], object]
    """Told a line."""
    waits: str
    """What to say once a minute while no workers are there."""
    step: Callable[[float, float, str], object] | None = None
    """Told how far the workers are."""
    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    there: bool = False
    """Whether workers are."""
    since_s: float = field(init=False)
    """When they were lost, or when that was said last."""

    def __post_init__(self) -> None:
        self.since_s = self.clock()

    def hear(self, line: str | Step) -> None:
        """Something from a worker, or from beside the group."""
        if isinstance(line, Step):
            if self.step is not None:
                self.step(line.done, line.total, line.note)
        elif line in (ARRIVED, LOST):
            self.there, self.since_s = line == ARRIVED, self.clock()
        else:
            self.say(line)

    def hear_nothing(self) -> None:
        """Some time has passed: Ray waits for room for ever, and says nothing."""
        if not self.there and self.clock() - self.since_s >= SAY_EVERY_S:
            self.since_s = self.clock()
            self.say(self.waits)


@contextmanager
def printed(
    say: Callable[[str], object], *, waits: str, step: Callable[[float, float, str], object] | None = None
) -> Iterator[Lines]:
    """Print what workers say, for the time of a block, and ``waits`` once a minute while there are none; ``step`` is
    told how far they are.
    """
    lines, done = Lines(queue=queue_here(), counted=step is not None), threading.Event()
    listener = Listener(say=say, waits=waits, step=step)

    def forward() -> None:
        while not done.is_set() or not lines.queue.empty():
            try:
                listener.hear(lines.queue.get(timeout=POLL_S))
            except Empty:
                listener.hear_nothing()
            except RayError as error:
                say(f"what workers say is no longer shown, training goes on ({type(error).__name__})")
                return

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        done.set()
        thread.join(timeout=10.0)
        lines.queue.shutdown()
