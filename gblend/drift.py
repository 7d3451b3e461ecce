"""How far two splits of a data set lie apart, and how far chance alone would put them. Pure arithmetic on arrays.

Class frequencies are compared by total variation, numbers by the Kolmogorov-Smirnov distance. Both are 0 for equal
distributions and 1 for such that have nothing in common, and neither is 0 for two random halves of one set: beside each
stands the value that 95 % of such pairs stay below.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

CHANCE = 0.05
"""Share of pairs drawn from one distribution whose distance is larger than that by chance."""

DRAWS = 400
"""Pairs of samples that are drawn to know what chance does to class frequencies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """One quantity in two splits."""

    quantity: str
    """What is compared."""
    splits: tuple[str, str]
    """Which."""
    clips: tuple[int, int]
    """Clips (of classes: labels) compared, of each."""
    measure: Literal["total variation", "Kolmogorov-Smirnov"]
    """Of the two distributions."""
    distance: float
    """0 (the same) to 1."""
    by_chance: float
    """95 % of pairs of random samples of this size from one distribution are closer than this."""

    @property
    def beyond_chance(self) -> bool:
        """Whether the splits differ by more than chance explains."""
        return self.distance > self.by_chance


def class_drift(
    quantity: str, splits: tuple[str, str], first: Int[np.ndarray, " classes"], second: Int[np.ndarray, " classes"]
) -> Drift:
    """Of how often every class occurs; both counts have something to count."""
    return Drift(
        quantity=quantity,
        splits=splits,
        clips=(int(first.sum()), int(second.sum())),
        measure="total variation",
        distance=total_variation(first, second),
        by_chance=total_variation_by_chance(first, second),
    )


def number_drift(
    quantity: str, splits: tuple[str, str], first: Float[np.ndarray, " clips"], second: Float[np.ndarray, " other"]
) -> Drift:
    """Of a number that every clip has; neither is empty."""
    return Drift(
        quantity=quantity,
        splits=splits,
        clips=(len(first), len(second)),
        measure="Kolmogorov-Smirnov",
        distance=kolmogorov_smirnov(first, second),
        by_chance=kolmogorov_smirnov_by_chance(len(first), len(second)),
    )


def total_variation(first: Int[np.ndarray, " classes"], second: Int[np.ndarray, " classes"]) -> float:
    """Half the sum of the differences of shares: the share of labels that would have to be others.

    >>> total_variation(np.array([5, 5]), np.array([8, 2])).__round__(3)
    0.3
    """
    return float(np.abs(first / first.sum() - second / second.sum()).sum() / 2)


def total_variation_by_chance(
    first: Int[np.ndarray, " classes"], second: Int[np.ndarray, " classes"], *, seed: int = 0
) -> float:
    """What 95 % of pairs of samples of these sizes stay below when both are drawn with the shares of the two together.

    Labels count as independent of each other, which those of one clip with several are not: there, chance does more.
    """
    rng = np.random.default_rng(seed)
    sizes, pooled = (int(first.sum()), int(second.sum())), (first + second)[first + second > 0]
    shares = pooled / pooled.sum()
    drawn = [total_variation(*(rng.multinomial(size, shares) for size in sizes)) for _ in range(DRAWS)]
    return float(np.quantile(drawn, 1 - CHANCE))


def kolmogorov_smirnov(first: Float[np.ndarray, " clips"], second: Float[np.ndarray, " other"]) -> float:
    """The largest difference between the two distribution functions.

    >>> kolmogorov_smirnov(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.5
    """
    places = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(values), places, side="right") / len(values) for values in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def kolmogorov_smirnov_by_chance(first: int, second: int) -> float:
    """What 95 % of pairs of samples of these sizes from one distribution stay below, by the limit for large ones.

    >>> kolmogorov_smirnov_by_chance(100, 100).__round__(3)
    0.192
    """
    return min(1.0, float(np.sqrt(-np.log(CHANCE / 2) / 2 * (first + second) / (first * second))))
