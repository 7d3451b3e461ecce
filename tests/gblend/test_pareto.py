import math

import numpy as np
import pytest

from gblend.pareto import pareto_front


def brute_force(values, costs) -> set[int]:
    """Every pair is compared."""

    def dominates(a: int, b: int) -> bool:
        at_least = values[a] >= values[b] and costs[a] <= costs[b]
        return at_least and (values[a] > values[b] or costs[a] < costs[b])

    finite = [i for i in range(len(values)) if math.isfinite(values[i]) and math.isfinite(costs[i])]
    return {b for b in finite if not any(dominates(a, b) for a in finite)}


@pytest.mark.parametrize("levels", [3, 50])
def test_the_front_is_that_of_comparing_every_pair(levels):
    rng = np.random.default_rng(levels)
    for size in (1, 2, 12, 12, 12, 40):
        values, costs = rng.integers(0, levels, size) / levels, rng.integers(0, levels, size).astype(float)
        values[rng.random(size) < 0.1] = np.nan
        found = pareto_front(values.tolist(), costs.tolist())
        assert set(found) == brute_force(values, costs)
        assert [costs[i] for i in found] == sorted(costs[i] for i in found)


def test_what_is_not_finite_is_not_worth_its_cost():
    assert pareto_front([math.nan, 0.5, math.inf], [1.0, 2.0, math.nan]) == [1]
    assert pareto_front([], []) == []


def test_values_without_costs_are_refused():
    with pytest.raises(ValueError, match="every value needs a cost, got 2 and 1"):
        pareto_front([1.0, 2.0], [1.0])
