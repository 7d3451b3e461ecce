"""Which of many are worth their cost: none else is at least as good for at most as much, and better in one of them."""

import math
from collections.abc import Sequence


def pareto_front(values: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Positions of those that no other one dominates, by cost, then by position.

    Those that are equal in both do not dominate each other. What is not finite is never worth it.

    Args:
        values: More is better.
        costs: Less is better.

    >>> pareto_front([0.80, 0.90, 0.85, 0.70], [10.0, 40.0, 40.0, 20.0])
    [0, 1]
    """
    if len(values) != len(costs):
        raise ValueError(f"every value needs a cost, got {len(values)} and {len(costs)}")
    finite = [at for at in range(len(values)) if math.isfinite(values[at]) and math.isfinite(costs[at])]
    front: list[int] = []
    for at in sorted(finite, key=lambda at: (costs[at], -values[at], at)):
        # The last one that was kept is the best of those that cost no more.
        last = front[-1] if front else None
        if last is None or values[at] > values[last] or (values[at], costs[at]) == (values[last], costs[last]):
            front.append(at)
    return front
