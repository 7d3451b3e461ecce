"""When things happen: super-epochs of the online algorithm (Algorithm 3) and the learning rate at a moment."""

import bisect
import itertools
import math
from collections.abc import Sequence

from gblend.config import OptimConfig


def super_epochs(total: int, first: int, length: int) -> list[int]:
    """Lengths of the super-epochs, in epochs. The last is what remains, so that none of ``total`` is lost.

    >>> super_epochs(45, 10, 5)  # the paper, on Kinetics
    [10, 5, 5, 5, 5, 5, 5, 5]
    >>> super_epochs(12, 5, 4)
    [5, 4, 3]
    >>> super_epochs(3, 10, 5)
    [3]
    """
    lengths = []
    while (left := total - sum(lengths)) > 0:
        lengths.append(min(left, length if lengths else first))
    return lengths


def super_epoch_at(lengths: Sequence[int], epoch: int) -> tuple[int, int]:
    """First epoch and length of the super-epoch that comes after ``epoch`` finished epochs, or is under way then.

    >>> [super_epoch_at([5, 4, 3], epoch) for epoch in (0, 4, 5, 11)]
    [(0, 5), (0, 5), (5, 4), (9, 3)]
    """
    ends = list(itertools.accumulate(lengths))
    at = bisect.bisect_right(ends, epoch)
    return ends[at] - lengths[at], lengths[at]


def learning_rate_at(config: OptimConfig, epoch: float, epochs: int) -> float:
    """Learning rate after ``epoch`` (fractional) of ``epochs``.

    A probe that starts at epoch e of the run starts at the same place of this schedule.

    >>> step = OptimConfig(learning_rate=1.0, schedule="step", milestones=(20, 30), warmup_epochs=10.0)
    >>> [round(learning_rate_at(step, e, 45), 3) for e in (0.0, 5.0, 10.0, 19.9, 20.0, 30.0)]
    [0.0, 0.5, 1.0, 1.0, 0.1, 0.01]
    >>> cosine = OptimConfig(learning_rate=1.0, schedule="cosine")
    >>> [round(learning_rate_at(cosine, e, 10), 3) for e in (0.0, 5.0, 10.0)]
    [1.0, 0.5, 0.0]
    """
    peak = config.learning_rate
    if epoch < config.warmup_epochs:
        return peak * epoch / config.warmup_epochs
    if config.schedule == "step":
        # A milestone reached by summing 1 / steps is only almost an integer.
        return peak * 0.1 ** sum(epoch >= milestone - 1e-9 for milestone in config.milestones)
    if config.schedule == "cosine":
        progress = (epoch - config.warmup_epochs) / max(epochs - config.warmup_epochs, 1e-9)
        return peak * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    return peak
