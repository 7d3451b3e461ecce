"""Minimum of a smooth convex function over the simplex (weights that are not negative and add up to 1).

Newton's method: the quadratic model at hand is minimised over the simplex, then a step towards that minimum is taken
that surely lowers the function. The function is expensive (it reads all clips), the model is not. It stops at a proof:
a convex function is nowhere on the simplex lower than f(w) - (g.w - min g), which is called the gap.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Point = Float[np.ndarray, " weights"]

MAX_STEPS = 100
QUADRATIC_STEPS = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Local:
    """A function at one point."""

    value: float
    """f(w)."""
    gradient: Point
    """Its first derivatives."""
    hessian: Float[np.ndarray, "weights weights"]
    """Its second derivatives: positive semi-definite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Minimum:
    """Where the function is lowest, and how nearly."""

    point: Point
    """On the simplex."""
    value: float
    """f there."""
    gap: float
    """The true minimum is at most this much lower."""


def minimise_on_simplex(at: Callable[[Point], Local], size: int, *, tolerance: float = 1e-8) -> Minimum:
    """Minimise from the centre until the gap is below ``tolerance`` (times 1 + abs(f)), or rounding ends it.

    >>> def squares(w):  # distance to (0.9, 0.5): the nearest point of the simplex is (0.7, 0.3)
    ...     away = w - np.array([0.9, 0.5])
    ...     return Local(value=float(away @ away), gradient=2 * away, hessian=2 * np.eye(2))
    >>> minimise_on_simplex(squares, 2).point.round(6).tolist()
    [0.7, 0.3]
    """
    point = np.full(size, 1.0 / size)
    here = at(point)
    for _ in range(MAX_STEPS):
        if _gap(point, here) <= tolerance * (1 + abs(here.value)):
            break
        way = _quadratic_minimum(point, here) - point
        slope = float(here.gradient @ way)
        length, there = 1.0, None
        while length > 1e-10:
            there = at(point + length * way)
            if there.value <= here.value + 1e-4 * length * slope:
                break
            length, there = length / 2, None
        if there is None or slope >= 0:
            break  # no representable step is lower
        point, here = point + length * way, there
    return Minimum(point=point, value=here.value, gap=_gap(point, here))


def project(values: Point) -> Point:
    """The nearest point of the simplex (least squares).

    >>> project(np.array([0.9, 0.5, -1.0])).round(6).tolist()
    [0.7, 0.3, 0.0]
    """
    values = values - values.max()  # No digit of the 1 is lost, however large they are.
    ordered = np.sort(values)[::-1]
    excess = (np.cumsum(ordered) - 1) / np.arange(1, values.size + 1)
    return np.maximum(values - excess[np.flatnonzero(ordered > excess)[-1]], 0.0)


def _gap(point: Point, here: Local) -> float:
    return float(here.gradient @ point - here.gradient.min())


def _quadratic_minimum(point: Point, here: Local) -> Point:
    """Minimum of the quadratic model over the simplex, by accelerated projected gradients with restarts."""
    steepest = float(np.linalg.eigvalsh(here.hessian)[-1])
    if steepest <= 0:  # no curvature at all: the lowest corner
        return np.eye(point.size)[np.argmin(here.gradient)]
    best = ahead = point
    speed = 1.0
    for _ in range(QUADRATIC_STEPS):
        slope = here.gradient + here.hessian @ (ahead - point)
        following = project(ahead - slope / steepest)
        if np.abs(following - best).max() < 1e-14 and np.abs(ahead - best).max() < 1e-14:
            break
        if (ahead - following) @ (following - best) > 0:  # overshot: begin to gather speed anew
            speed, ahead = 1.0, best
            continue
        next_speed = (1 + (1 + 4 * speed**2) ** 0.5) / 2
        ahead, best = following + (speed - 1) / next_speed * (following - best), following
        speed = next_speed
    return best
