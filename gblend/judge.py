"""The objective of a search after every epoch of a trial: what its networks are judged by, on the validation split.

Measured as all else is: in eval mode, every clip once, without a trace in the training. A trial has no test split.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from gblend import collective
from gblend.data import RunData
from gblend.training import Training
from gblend.trial_files import read_reached, write_reached
from gblend.trials import Reached

SPLIT = "val"
"""Where a search looks."""


class PauseError(Exception):
    """A trial is to go no further for now; where it is has been saved."""


def without_test(data: RunData, where: str) -> RunData:
    """The data set as a trial sees it.

    Raises:
        ValueError: It has no validation split.
    """
    if SPLIT not in data.splits:
        raise ValueError(
            f"{where} has no clip in split {SPLIT!r}, by which a search chooses; hold some training clips out as "
            f"{SPLIT!r} in the manifest and run `gblend preprocess` again"
        )
    return replace(data, splits={SPLIT: data.splits[SPLIT]})


@dataclass(kw_only=True)
class Judge:
    """Looks at a trial after every epoch, on all workers together; worker 0 writes what is found."""

    place: str
    """Directory of the trial (`gblend.trial_files`)."""
    borrowed_epochs: float
    """Epochs of the runs that it builds on."""
    report: Callable[[dict[str, Any]], object]
    """Told of every value, on every worker."""
    until: int | None = None
    """Epoch after which the trial pauses; None: it does not."""
    known: list[Reached] = field(default_factory=list)
    """Worker 0: values of before this start."""

    def __post_init__(self) -> None:
        if collective.rank() == 0:
            self.known = list(read_reached(self.place))

    def __call__(self, training: Training) -> None:
        """Look at it now.

        Raises:
            RuntimeError: Its objective is not a number.
            PauseError: It is to pause here.
        """
        epoch = training.lesson.progress.epoch
        score = training.judged(SPLIT)
        if not math.isfinite(score.value):
            raise RuntimeError(f"after epoch {epoch} no head has finite losses, so the {score.metric} is not a number")
        now = Reached(
            epoch=epoch,
            super_epoch=training.super_epochs_begun,
            value=score.value,
            branch_epochs=training.branch_epochs + self.borrowed_epochs,
            seconds=time.monotonic() - training.started_s,
        )
        if collective.rank() == 0:
            self.known = [*(each for each in self.known if each.epoch < epoch), now]
            write_reached(self.place, score.metric, self.known)
        self.report({"epoch": epoch, "value": now.value, "branch_epochs": now.branch_epochs, "metric": score.metric})
        if epoch == self.until:
            raise PauseError
