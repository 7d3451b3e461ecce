"""A search space as a function: what it draws depends on what it has drawn, so that no invalid point exists.

    def space(draw: Draw) -> ...:
        first = draw.integer("blend.first_epochs", 1, 12)
        if first < 12:  # else there is no second super-epoch
            draw.integer("blend.next_epochs", 1, 12 - first)

Whoever calls the function decides what a draw is: a random one, the next point of a grid, a value of a point that is
already known, that value a little moved, or a suggestion of Optuna's. A point is what was drawn, by name and in order.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

Value = str | int | float | bool
Point = dict[str, Any]
"""Values by name, in the order in which they were drawn."""

Scale = Literal["linear", "log"]
Chosen = TypeVar("Chosen", bound=Value)
Made = TypeVar("Made")

RANDOM_STREAM, GRID_STREAM, MOVE_STREAM = 0x5EA2C4, 0x6819, 0x30FE
"""Keep the random numbers of searches apart from those of training."""

RESAMPLED = 0.25
"""Share of values that a move draws anew; the others go to a neighbour."""

FACTORS = (0.8, 1.25)
"""What a move multiplies a number by: there and back again is where it was."""

MAX_REPEATS = 100
"""So many draws in a row that were seen before end a random search: the space is small."""


MOST_GRID = 2000
"""Points of a grid that is gone through."""


class Draw(Protocol):
    """What a space is told its values by."""

    def choice(self, name: str, values: Sequence[Chosen]) -> Chosen:
        """One of some values; neighbours in the list are neighbours."""
        ...

    def integer(self, name: str, low: int, high: int, *, scale: Scale = "linear", points: int | None = None) -> int:
        """An integer, both ends included; a grid has ``points`` of them, None: all."""
        ...

    def real(self, name: str, low: float, high: float, *, scale: Scale = "linear", points: int = 3) -> float:
        """A number, both ends included; a grid has ``points`` of them."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """What one value was drawn from."""

    name: str
    kind: Literal["choice", "integer", "real"]
    values: tuple[Any, ...] = ()
    """Of a choice."""
    low: int | float = 0.0
    high: int | float = 0.0
    scale: Scale = "linear"
    points: int | None = None
    """Of its part in a grid; None: every value."""

    def grid(self) -> tuple[Any, ...]:
        """Its values in a grid, ascending, each once.

        >>> Domain(name="n", kind="integer", low=1, high=12, scale="log", points=3).grid()
        (1, 3, 12)
        >>> Domain(name="s", kind="real", low=0.0, high=0.8, points=3).grid()
        (0.0, 0.4, 0.8)
        """
        if self.kind == "choice":
            return self.values
        if self.kind == "integer" and (self.points is None or self.points > self.high - self.low):
            return tuple(range(int(self.low), int(self.high) + 1))
        assert self.points is not None
        return tuple(dict.fromkeys(self._at(share) for share in np.linspace(0, 1, self.points)))

    def random(self, rng: np.random.Generator) -> Any:
        """A random one; a log scale is uniform in the logarithm."""
        if self.kind == "choice":
            return self.values[int(rng.integers(len(self.values)))]
        if self.kind == "integer" and self.scale == "linear":
            return int(rng.integers(int(self.low), int(self.high) + 1))
        return self._at(float(rng.random()))

    def holds(self, value: Any) -> bool:
        """Whether the value could have been drawn."""
        if self.kind == "choice":
            return value in self.values
        right = isinstance(value, int) if self.kind == "integer" else isinstance(value, int | float)
        return right and not isinstance(value, bool) and self.low <= value <= self.high

    def moved(self, value: Any, rng: np.random.Generator) -> Any:
        """A neighbour of the value, or one drawn anew."""
        if not self.holds(value) or rng.random() < RESAMPLED:
            return self.random(rng)
        if self.kind == "choice":
            at = self.values.index(value) + int(rng.choice((-1, 1)))
            return self.values[min(max(at, 0), len(self.values) - 1)]
        factor = float(rng.choice(FACTORS))
        if self.kind == "integer":
            step = 1 if factor > 1 else -1
            further = max if factor > 1 else min
            return int(min(max(further(round(value * factor), value + step), self.low), self.high))
        return float(min(max(value * factor, self.low), self.high))

    def _at(self, share: float) -> Any:
        """The value at a share of the way from the lowest to the highest."""
        if self.kind == "integer" and self.scale == "log":  # each integer is as wide as its distance to the next
            low, high = np.log(self.low), np.log(self.high + 1)
            return int(min(np.floor(np.exp(low + share * (high - low)) + 1e-9), self.high))
        if self.scale == "log":
            value = float(np.exp(np.log(self.low) + share * (np.log(self.high) - np.log(self.low))))
        else:
            value = float(self.low + share * (self.high - self.low))
        value = min(max(value, self.low), self.high)
        return round(value) if self.kind == "integer" else value


@dataclass(kw_only=True)
class Drawing:
    """A `Draw` that asks one function for every value, and remembers what it said."""

    ask: Callable[[Domain], Any]
    """The value of the next draw."""
    point: Point = field(default_factory=dict)
    """What was drawn."""
    domains: dict[str, Domain] = field(default_factory=dict)
    """What it was drawn from."""

    def choice(self, name: str, values: Sequence[Chosen]) -> Chosen:
        """See `Draw`."""
        if not values:
            raise ValueError(f"{name} has no value to choose from")
        return self._drawn(Domain(name=name, kind="choice", values=tuple(values)))

    def integer(self, name: str, low: int, high: int, *, scale: Scale = "linear", points: int | None = None) -> int:
        """See `Draw`."""
        return self._drawn(Domain(name=name, kind="integer", low=low, high=high, scale=scale, points=points))

    def real(self, name: str, low: float, high: float, *, scale: Scale = "linear", points: int = 3) -> float:
        """See `Draw`."""
        return self._drawn(Domain(name=name, kind="real", low=low, high=high, scale=scale, points=points))

    def _drawn(self, domain: Domain) -> Any:
        name = domain.name
        if name in self.point:
            raise ValueError(f"{name} is drawn twice")
        if domain.kind != "choice":
            if domain.low > domain.high:
                raise ValueError(f"{name} must have low <= high, got {domain.low} and {domain.high}")
            if domain.scale == "log" and domain.low <= 0:
                raise ValueError(f"{name} must be positive on a log scale, got {domain.low}")
        value = self.ask(domain)
        self.point[name], self.domains[name] = value, domain
        return value


Space = Callable[[Draw], Made]
"""Draws a point and returns what it stands for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A point of a space."""

    point: Point
    """What was drawn."""
    domains: Mapping[str, Domain]
    """What each value was drawn from."""
    made: Any
    """What the space returned."""


def draw_by(space: Space[Any], ask: Callable[[Domain], Any]) -> Drawn:
    """One point, every value as ``ask`` says."""
    drawing = Drawing(ask=ask)
    made = space(drawing)
    return Drawn(point=drawing.point, domains=drawing.domains, made=made)


def at(space: Space[Any], point: Mapping[str, Any]) -> Drawn:
    """The space at a point that is known.

    Raises:
        ValueError: The space has no such point.

    >>> at(lambda draw: draw.integer("n", 1, 4) * 2, {"n": 3}).made
    6
    """

    def known(domain: Domain) -> Any:
        if domain.name not in point:
            raise ValueError(f"the point has no {domain.name}; it has {', '.join(point)}")
        if not domain.holds(point[domain.name]):
            raise ValueError(f"{domain.name} cannot be {point[domain.name]!r} in this space")
        return point[domain.name]

    drawn = draw_by(space, known)
    unknown = [name for name in point if name not in drawn.point]
    if unknown:
        raise ValueError(f"this space does not draw {', '.join(unknown)} at this point")
    return drawn


def random_point(space: Space[Any], *, seed: int, number: int) -> Drawn:
    """The random point of a number: it depends on nothing else than the space and the seed."""
    rng = np.random.default_rng((RANDOM_STREAM, seed, number))
    return draw_by(space, lambda domain: domain.random(rng))


def random_points(space: Space[Any], *, seed: int, count: int) -> list[Drawn]:
    """The first different random points; fewer where the space seems to have no more."""
    return _different(lambda number: random_point(space, seed=seed, number=number), count)


def _different(draw: Callable[[int], Drawn], count: int) -> list[Drawn]:
    """The first different points of a row of them."""
    found: dict[tuple, Drawn] = {}
    number = repeats = 0
    while len(found) < count and repeats < MAX_REPEATS:
        drawn = draw(number)
        key = tuple(drawn.point.items())
        repeats = repeats + 1 if key in found else 0
        found.setdefault(key, drawn)
        number += 1
    return list(found.values())


def grid_points(space: Space[Any]) -> Iterator[Drawn]:
    """Every point of the grid, the last draw changing first.

    >>> def space(draw):
    ...     return draw.choice("a", ("x", "y")) == "y" and draw.integer("n", 1, 2)
    >>> [drawn.point for drawn in grid_points(space)]
    [{'a': 'x'}, {'a': 'y', 'n': 1}, {'a': 'y', 'n': 2}]
    """
    ahead: list[Any] = []
    while True:
        drawn, left = _along(space, ahead)
        yield drawn
        while left and not left[-1]:
            left.pop()
        if not left:
            return
        ahead = [*list(drawn.point.values())[: len(left) - 1], left[-1][0]]


def some_of_grid(space: Space[Any], *, seed: int, count: int) -> list[Drawn]:
    """Different points of the grid in an order that is random and follows from the seed; fewer where it has no more.

    A grid of more than `MOST_GRID` points is not gone through: then they are drawn one after another, by value.
    """
    whole = list(itertools.islice(grid_points(space), MOST_GRID + 1))
    if len(whole) <= MOST_GRID:
        order = np.random.default_rng((GRID_STREAM, seed)).permutation(len(whole))
        return [whole[at] for at in order[:count]]

    def draw(number: int) -> Drawn:
        rng = np.random.default_rng((GRID_STREAM, seed, number))
        return draw_by(space, lambda domain: (values := domain.grid())[int(rng.integers(len(values)))])

    return _different(draw, count)


def _along(space: Space[Any], ahead: Sequence[Any]) -> tuple[Drawn, list[tuple[Any, ...]]]:
    """The first point of the grid that begins with some values, and per draw the values after its own."""
    left: list[tuple[Any, ...]] = []

    def next_value(domain: Domain) -> Any:
        values = domain.grid()
        chosen = values.index(ahead[len(left)]) if len(left) < len(ahead) else 0
        left.append(values[chosen + 1 :])
        return values[chosen]

    return draw_by(space, next_value), left


def moved_point(space: Space[Any], point: Mapping[str, Any], *, movable: Sequence[str], seed: Sequence[int]) -> Drawn:
    """A point near another one: of what may move, every value goes to a neighbour or is drawn anew.

    Args:
        space: Both points are in it.
        point: Where from.
        movable: Names of the values that change; what comes to be drawn only because of them is drawn at random.
        seed: Decides the move.
    """
    rng = np.random.default_rng((MOVE_STREAM, *seed))

    def move(domain: Domain) -> Any:
        if domain.name in movable:
            return domain.moved(point.get(domain.name), rng)
        if domain.holds(point.get(domain.name)):
            return point[domain.name]
        return domain.random(rng)

    return draw_by(space, move)
