"""What the trials of a search have in common: one actor, started by the driver, that ends with it.

It trains what several trials build on once, whoever asks first. And it frees the workers of a trial that is over: Ray
Train places them in a group of their own, which Tune knows nothing about, and which would outlive a trial that is
stopped.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util import remove_placement_group
from ray.util.placement_group import PlacementGroup

from gblend.config import ComputeConfig, TrainConfig
from gblend.methods import RunSpec
from gblend.worker import make_plan, train_runs

GONE_WITHIN_S = 60.0
"""How long to wait for the process of a trial that is over; its workers are freed then in any case."""

POLL_S = 0.3
"""How often to look whether it is gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One start of a trial; a trial whose machine was lost, or that was paused, is started again."""

    trial: int
    """Number of the trial."""
    key: str
    """Different for each."""


@dataclass(kw_only=True)
class _Workers:
    """Of one attempt."""

    actor: Any
    """The process that started them."""
    groups: list[PlacementGroup] = field(default_factory=list)
    over: bool = False


class Commons:
    """See the module. An actor with a thread for every call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempts: dict[Attempt, _Workers] = {}
        self._shared: dict[str, Future] = {}

    def begin(self, attempt: Attempt, actor: Any) -> bool:
        """An attempt begins in the process of ``actor``. Whether there were earlier ones: these are over."""
        with self._lock:
            earlier = [each for each in self._attempts if each.trial == attempt.trial]
            self._attempts[attempt] = _Workers(actor=actor)
        for each in earlier:
            self._free(each)
        return bool(earlier)

    def enter(self, attempt: Attempt, group: PlacementGroup) -> bool:
        """Workers of an attempt are there; False: it is over, and so are they."""
        with self._lock:
            workers = self._attempts[attempt]
            workers.groups.append(group)
            over = workers.over
        if over:
            remove_placement_group(group)
        return not over

    def end(self, trial: int) -> None:
        """A trial is over; when this returns its workers are gone."""
        with self._lock:
            attempts = [each for each in self._attempts if each.trial == trial]
        for each in attempts:
            self._free(each)

    def ensure(
        self, place: str, runs: Sequence[RunSpec], data: str, config: TrainConfig, compute: ComputeConfig
    ) -> None:
        """Have runs finished that several trials may ask for; all of them wait for the one that asked first.

        Args:
            place: Their directories are below it, by name.
            runs: Of one seed.
            data: Data set directory.
            config: Of all of them.
            compute: Size of the worker group.

        Raises:
            RuntimeError: It failed, for all who waited.
        """
        with self._lock:
            first = place not in self._shared
            future = self._shared.setdefault(place, Future())
        if first:
            try:
                plan = make_plan(
                    data,
                    config,
                    [run.method for run in runs],
                    [runs[0].seed],
                    compute=compute,
                    place=lambda run: f"{place}/{run.name}",
                    behind=["online"],
                    test="hidden",
                )
                if plan.pending:
                    # The driver has asked for room; this process cannot tell whether nodes may still come.
                    train_runs(plan, compute, storage=place, room="checked")
                future.set_result(None)
            except Exception as error:
                # Whatever it is, nobody may wait for ever; who asks next tries again.
                with self._lock:
                    del self._shared[place]
                future.set_exception(RuntimeError(f"of runs that trials share: {error}"))
        future.result()

    def _free(self, attempt: Attempt) -> None:
        with self._lock:
            workers = self._attempts[attempt]
            if workers.over:
                return
            workers.over = True
        _wait_until_gone(workers.actor)
        for group in list(workers.groups):
            remove_placement_group(group)


def _wait_until_gone(actor: Any) -> None:
    """As long as the process of an attempt lives, it starts the workers again that it loses."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while time.monotonic() < deadline:
        try:
            ray.get(actor.__ray_ready__.remote(), timeout=POLL_S)
        except RayActorError:
            return
        except GetTimeoutError:
            continue
        time.sleep(POLL_S)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What worker 0 of a trial says when it begins; can be sent to it."""

    commons: Any
    """The actor."""
    attempt: Attempt
    """Which one it belongs to."""

    def __call__(self, group: PlacementGroup) -> bool:
        """Whether the attempt goes on."""
        return ray.get(self.commons.enter.remote(self.attempt, group))
