"""A group of Ray Train workers: a function is called on each of them, and again where one of them is lost.

Ray Train starts a group again when a worker fails, but not when one is lost at the moment in which it is handed the
function (2.60): that ends the training with an error of the controller. Here it begins again then, too.

And beside every group it starts a process that removes the group's placement when its controller is killed, and then
never ends (2.60: it tries to end itself from a thread). A search kills a controller with every trial that it stops, and
each would leave 200 MB on the head node; since a search removes the placements of trials itself, those do without.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import ray.train
import ray.train.torch
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray.exceptions import RayActorError
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from gblend.config import ComputeConfig
from gblend.lines import Lines, print_line, printed, reason_of
from gblend.placement import resources_of
from gblend.storage import delete, entries, open_fs

RAY_PREFIX = "ray-"
"""Start of the names of Ray Train's own directories; a number follows."""


def in_group(
    work: Callable[[dict], None],
    settings: dict,
    compute: ComputeConfig,
    *,
    storage: str,
    say: Callable[[str], object] = print_line,
    step: Callable[[float, float, str], object] | None = None,
    callbacks: Sequence[ray.train.UserCallback] = (),
    freed_by: Literal["ray", "caller"] = "ray",
) -> None:
    """Call a function on every worker of a new group and wait for them.

    Args:
        work: Gets ``settings``, and ``lines``: what is put there is said here.
        settings: Can be sent to the workers.
        compute: Size of the group.
        storage: Directory, shared by the nodes, below which Ray Train keeps its own state until the end.
        say: Told that.
        step: Told how far they are, as they put it there: how much of how much is done, and where that is.
        callbacks: Of Ray Train, called beside the group.
        freed_by: Who frees the room of the workers when this process is killed and its cluster lives on.

    Raises:
        RuntimeError: A worker failed, and failed again after ``compute.restarts`` restarts.
    """
    fs, root = open_fs(storage)
    least = compute.workers if compute.min_workers is None else compute.min_workers
    each = " and ".join(f"{amount:g} {what}" for what, amount in resources_of(compute).items())
    waits = f"no workers yet: {least} with {each} each are starting, or the cluster has no room for them now"
    with printed(say, waits=waits, step=step) as lines:

        def fit(restarts: int) -> None:
            trainer = (ray.train.torch.TorchTrainer if freed_by == "ray" else _Unwatched)(
                _arrive,
                train_loop_config={"work": work, "settings": {**settings, "lines": lines}},
                scaling_config=ray.train.ScalingConfig(
                    num_workers=compute.workers
                    if compute.min_workers is None
                    else (compute.min_workers, compute.workers),
                    use_gpu=compute.gpus_per_worker > 0,
                    resources_per_worker=resources_of(compute),
                ),
                run_config=ray.train.RunConfig(
                    # A new one each time: what was done before is known from the run directories, not from Ray Train.
                    name=f"{RAY_PREFIX}{time.time_ns()}",
                    storage_path=root,
                    storage_filesystem=PyFileSystem(FSSpecHandler(fs)),
                    failure_config=ray.train.FailureConfig(max_failures=restarts),
                    callbacks=[*callbacks, *([_Failures(lines)] if compute.restarts else [])],
                ),
            )
            with own_interrupts():
                trainer.fit()

        try:
            fitted(fit, restarts=compute.restarts, lines=lines)
        finally:
            delete_ray_directories(storage)


class _Unwatched(ray.train.torch.TorchTrainer):
    """Without the process that watches the controller."""

    def _create_default_callbacks(self) -> list[Any]:
        found = super()._create_default_callbacks()
        return [each for each in found if not isinstance(each, PlacementGroupCleanerCallback)]


def fitted(fit: Callable[[int], None], *, restarts: int, lines: Lines) -> None:
    """Have Ray Train do its work, again where it gives up for a worker that was lost while the group began.

    Nothing that is raised, or forgotten, holds on to the frames of ``fit``: in them is Ray's controller, and with it
    would live the workers that are left, and take the room of the next ones.

    Args:
        fit: Starts a group and waits for it; told how often Ray Train may start it again.
        restarts: How often it may be called again.
        lines: Where to say so.

    Raises:
        RuntimeError: It failed.
    """
    for left in range(restarts, -1, -1):
        try:
            return fit(left)
        except ray.train.TrainingFailedError as error:
            failure = error.controller_failure if isinstance(error, ray.train.ControllerError) else None
            if not isinstance(failure, RayActorError) or left == 0:
                raise RuntimeError(reason_of(error)) from error.with_traceback(None)
            lines.put(f"a worker failed: {reason_of(failure)}")
            lines.lost()
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def own_interrupts() -> Iterator[None]:
    """Put back what Ctrl-C does: Ray Train's way holds on to its controller, and does nothing when that has ended."""
    main, before = threading.current_thread() is threading.main_thread(), signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:  # How Ray Train ends when it was interrupted, with a status that says all went well.
        raise KeyboardInterrupt from stop
    finally:
        if main and before is not None:
            signal.signal(signal.SIGINT, before)


def _arrive(job: dict) -> None:
    if ray.train.get_context().get_world_rank() == 0:
        job["settings"]["lines"].arrived()
    job["work"](job["settings"])


class _Failures(ray.train.UserCallback):
    """Says why a group is started again: Ray's own lines about it go to a log file."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for rank, error in sorted(worker_exceptions.items()):
            self.lines.put(f"worker {rank} failed: {reason_of(error)}")
        self.lines.lost()


def delete_ray_directories(storage: str) -> None:
    """Delete what Ray Train keeps below a directory, also that of jobs whose driver was killed."""
    for name in entries(storage):
        if name.startswith(RAY_PREFIX) and name.removeprefix(RAY_PREFIX).isdecimal():
            delete(f"{storage}/{name}")
