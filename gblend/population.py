"""Population based training (Jaderberg et al., 2017): now and then the worst of a population go on from the best.

All members train for a generation. Then each of the worst takes over network, optimiser and settings of one of the
best, and its settings are moved a little. Decisions follow from objectives and seed alone, so a population that was
stopped goes on as if it had not been. (Ray Tune's own scheduler decides by the order in which reports come in, and
needs them in one process from start to end.)

What a member ends with is a run whose settings change on the way (`gblend.later`), which can be trained from the start.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gblend.candidate import Candidate
from gblend.config import TrainConfig
from gblend.later import CHANGEABLE, config_at, with_change
from gblend.settings import setting_of
from gblend.space import Point, Space, moved_point

GENERATIONS = 5
"""So many at most."""

TAKING = 0.25
"""Share of the population, rounded up, that takes over from as many others; at most half of it."""

TAKING_STREAM = 0x9B7
"""Keeps the random numbers of who takes over from whom apart from others."""

WEIGHT = "weight."
"""Start of the names of loss weights that were drawn themselves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """What a member has come to be."""

    point: Point
    """Where in the space it is now."""
    candidate: Candidate
    """What it trains by, with all changes so far."""


def generation_ends(epochs: int) -> list[int]:
    """Epochs at which generations end, the last one included.

    >>> generation_ends(12), generation_ends(45)
    ([3, 6, 9, 12], [9, 18, 27, 36, 45])
    """
    length = math.ceil(epochs / GENERATIONS)
    return [*range(length, epochs, length), epochs]


def takeovers(values: Mapping[int, float], *, seed: int, generation: int) -> dict[int, int]:
    """Who takes over, by number, from whom.

    Args:
        values: Objective by number; more is better.
        seed: Of the search.
        generation: From 0.

    >>> takeovers({0: 0.5, 1: 0.9, 2: 0.7, 3: 0.6}, seed=0, generation=0)
    {0: 1}
    """
    order = sorted(values, key=lambda number: (-values[number], number))
    count = min(math.ceil(len(order) * TAKING), len(order) // 2)
    best, worst = order[:count], order[len(order) - count :]
    rng = np.random.default_rng((TAKING_STREAM, seed, generation))
    return {number: best[int(rng.integers(count))] for number in sorted(worst)}


def moved_on(
    space: Space[Candidate], of: Member, recipe: TrainConfig, *, epoch: int, seed: tuple[int, int, int]
) -> Member:
    """A member that goes on from another one with its settings moved a little.

    Args:
        space: Of the search.
        of: The other one.
        recipe: What candidates change.
        epoch: How far it is.
        seed: Of the search, the generation, and the number of the one that goes on.
    """
    movable = [name for name in of.point if name in CHANGEABLE or name.startswith(WEIGHT)]
    drawn = moved_point(space, of.point, movable=movable, seed=seed)
    now, later = config_at(of.candidate.config(recipe), epoch), tuple(of.candidate.settings.get("later", ()))
    for name in CHANGEABLE:
        value: Any = drawn.made.settings.get(name)
        if value is not None and value != setting_of(now, name):
            later = with_change(later, epoch=epoch, name=name, value=value)
    settings = {**of.candidate.settings, **({"later": later} if later else {})}
    return Member(point=drawn.point, candidate=Candidate(method=of.candidate.method, settings=settings))
