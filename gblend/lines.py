"""What workers say, printed by the driver while it waits: their own output goes to log files of their nodes.

The actor that passes lines on stays on the driver's node, so that losing another node costs none; and a line that
cannot be passed on costs a worker nothing, for a message must not end a run.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

POLL_S = 0.5
"""How long the driver waits for a line before it looks whether there will be any more."""


def reason_of(error: BaseException) -> str:
    r"""The line of a failure that says what went wrong; Ray says it last.

    >>> reason_of(RuntimeError("Traceback:\n  ...\nValueError: no such clip"))
    'ValueError: no such clip'
    >>> reason_of(ray.exceptions.ActorDiedError())
    'its process was lost: killed, out of memory, or with its node'
    """
    lost = isinstance(error, RayError) and not isinstance(error, RayTaskError)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lost or any("worker process has died" in line for line in lines):
        return "its process was lost: killed, out of memory, or with its node"
    return lines[-1] if lines else type(error).__name__


def queue_here() -> Queue:
    """A queue that lives as long as this process's node, whichever others are lost."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


@dataclass(frozen=True, kw_only=True, slots=True)
class Lines:
    """Where a worker puts what is to be printed; can be sent to it."""

    queue: Queue
    """Of text."""

    def put(self, line: str) -> None:
        """Have a line printed by the driver. Where it cannot be reached, the line is in the worker's own log."""
        try:
            self.queue.put(line)
        except RayError as error:
            logging.getLogger(__name__).warning("%s (not passed on: %s)", line, error)


@contextmanager
def printed(say: Callable[[str], object]) -> Iterator[Lines]:
    """Print what workers say, for the time of a block."""
    lines, done = Lines(queue=queue_here()), threading.Event()

    def forward() -> None:
        while not done.is_set() or not lines.queue.empty():
            try:
                say(lines.queue.get(timeout=POLL_S))
            except Empty:
                continue
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
