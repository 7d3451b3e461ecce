"""The account of a search, kept by the driver while Ray Tune carries it out: a line and a row a trial."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray import tune

from gblend.lines import reason_of
from gblend.scores import metric_words
from gblend.trial_files import begin_trial, end_trial, load_trial, trial_place
from gblend.trials import Trial, write_trials
from jobs.commons import GONE_WITHIN_S
from jobs.trial import EPOCH, VALUE, Search

TRIALS_FILE = "trials.parquet"

SAID_EVERY_S = 30.0
"""At most one line about progress in so long."""


@dataclass(kw_only=True)
class Book(tune.Callback):
    """Keeps account of trials, on the driver: a line and a row for each that ends."""

    search: Search
    commons: Any
    say: Callable[[str], object]
    samples: int
    step: Callable[[float, float, str], object] | None = None
    """Told in place of lines about epochs how many of how many are done; trials that have ended need no more."""
    until: int | None = None
    """Epoch after which trials pause; None: they do not."""
    trials: dict[int, Trial] = field(default_factory=dict)
    """By number, as they stood when they were last looked at."""
    reached: dict[int, int] = field(default_factory=dict)
    """Epochs of trials, by number."""
    said_s: float = -SAID_EVERY_S
    ending: list[Any] = field(default_factory=list)
    """Calls that free the workers of trials that are over."""

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """A trial has come to the end of an epoch."""
        self.reached[number_of(trial)] = result[EPOCH]
        now = time.monotonic()
        if self.step is not None:
            self._tell()
        elif now - self.said_s >= SAID_EVERY_S:
            self.said_s = now
            self.say(
                f"trial {number_of(trial)}: epoch {result[EPOCH]} of {self.search.recipe.epochs}, "
                f"objective {result[VALUE]:.3f}"
            )

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """A trial has ended, or is stopped now: Tune ends its process next."""
        if self.until is None:
            self._end(trial, "stopped")
        else:
            self._free(number_of(trial))

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """A trial has failed, and is not started again."""
        error = trial.get_pickled_error() or trial.get_error()
        reason = reason_of(error) if isinstance(error, BaseException) else reason_of(RuntimeError(error or "unknown"))
        self._end(trial, "failed", reason)

    def wait(self) -> None:
        """Return when the workers of all trials that are over are free, or will not be."""
        ray.wait(self.ending, num_returns=len(self.ending), timeout=2 * GONE_WITHIN_S)

    def _end(self, of: Any, state: Literal["stopped", "failed"], reason: str = "") -> None:
        number, point = number_of(of), of.config["trial"]["point"]
        place = trial_place(self.search.out, number)
        if load_trial(place) is None:  # its process was lost before it said what it is
            begin_trial(place, number=number, point=point, found=self.search.at(point).made, seed=self.search.seed)
        end_trial(place, state, reason)  # unless it has said itself how it ended
        self._free(number)
        trial = load_trial(place)
        assert trial is not None
        if self.trials.get(number) != trial:
            self.trials[number] = trial
            self._write()
            ended = sum(each.state != "running" for each in self.trials.values())
            self.say(f"[{ended}/{self.samples}] {in_words(trial)}")
            self._tell()

    def _tell(self) -> None:
        if self.step is None:
            return
        epochs = self.search.recipe.epochs
        ended = {number for number, trial in self.trials.items() if trial.state != "running"}
        under_way = [epoch for number, epoch in self.reached.items() if number not in ended]
        note = f"{len(ended)} of {self.samples} trials have ended"
        self.step(len(ended) * epochs + sum(under_way), self.samples * epochs, note)

    def _free(self, number: int) -> None:
        self.ending.append(self.commons.end.remote(number))

    def _write(self) -> None:
        write_trials(f"{self.search.out}/{TRIALS_FILE}", list(self.trials.values()))


def number_of(trial: Any) -> int:
    """Of a trial of Tune's."""
    return trial.config["trial"]["number"]


def in_words(trial: Trial) -> str:
    """A line about a trial that has ended."""
    if trial.last is None:
        return f"trial {trial.number} {trial.state}{f': {trial.reason}' if trial.reason else ''}"
    said = (
        f"trial {trial.number} {trial.state} after {trial.last.epoch} epochs: {trial.candidate.method}, "
        f"val {metric_words(trial.metric)} {trial.objective:.3f}, {trial.branch_epochs:g} branch-epochs, "
        f"{trial.last.seconds:.0f} s"
    )
    return f"{said}: {trial.reason}" if trial.reason else said
