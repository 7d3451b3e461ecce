"""What may be done to estimated weights before a run uses them: the part of robust mode that acts on weights.

Estimates of O and G from few clips give weights near 0 and 1 from noise alone, and a head of weight 0 is not trained,
though it may predict. The paper has none of these rules, and each is off unless a recipe sets it. They apply in this
order, so that the two limits hold in the end:

    shrink   (1 - s) w + s / (k + 1)                         ``shrinkage``
    smooth   (1 - m) w + m (previous final weights)          ``smoothing``
    cap      nearest weights with none above the cap         ``weight_cap``
    floor    fused head not below the floor                  ``fused_floor``

A head whose loss is not finite has weight 0 and keeps it: the rules act among the others. Weights run over heads in the
last axis, the fused head last; leading axes are estimates of their own. They sum to 1 before and after.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from gblend.config import BlendConfig

Weights = Float[np.ndarray, "*batch heads"]
Alive = Bool[np.ndarray, "*batch heads"]

CHANGED = 1e-9
"""A rule that moves no weight by more than this had no effect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ruled:
    """Weights after all rules."""

    weights: Weights
    """Non-negative, sum 1."""
    reasons: tuple[str, ...]
    """The rules that changed them, in order."""


def apply_rules(
    weights: Weights, config: BlendConfig, *, alive: Alive, previous: Sequence[float] | np.ndarray = ()
) -> Ruled:
    """All rules that ``config`` asks for.

    Args:
        weights: What the formula gives.
        config: Which rules, and how strong; its ``shrinkage`` as a number.
        alive: Heads whose losses are finite; when none is, all count as such.
        previous: Final weights of the run's previous estimate; empty at the first, which is not smoothed.
    """
    assert not isinstance(config.shrinkage, str), "the share is known only where weights are estimated"
    share = config.shrinkage
    alive = alive | ~alive.any(axis=-1, keepdims=True)
    reasons = []
    for asked, reason, rule in (
        (
            share > 0,
            f"shrunk to equal weights by {share:.2g}",
            lambda w: shrink(w, share, alive),
        ),
        (
            config.smoothing > 0 and len(previous) > 0,
            f"{config.smoothing:g} of the previous weights kept",
            lambda w: smooth(w, previous, config.smoothing, alive),
        ),
        (config.weight_cap < 1, f"no weight above {config.weight_cap:g}", lambda w: cap(w, config.weight_cap, alive)),
        (
            config.fused_floor > 0,
            f"fused head not below {config.fused_floor:g}",
            lambda w: floor_fused(w, config.fused_floor, alive),
        ),
    ):
        if asked:
            before, weights = weights, rule(weights)
            if np.abs(weights - before).max() > CHANGED:
                reasons.append(reason)
    return Ruled(weights=weights, reasons=tuple(reasons))


def noise_share(weights: Float[np.ndarray, " heads"], resampled: Weights, alive: Bool[np.ndarray, " heads"]) -> float:
    """How much of the weights' distance to equal weights is noise: the mean squared distance between resampled and
    measured weights over the squared distance between measured and equal ones, at most 1.

    In the manner of positive-part James-Stein shrinkage: with few clips the weights end up equal, with many they stay
    as they are.

    >>> measured = np.array([0.8, 0.2])
    >>> noise_share(measured, np.array([[0.9, 0.1], [0.7, 0.3]]), np.array([True, True]))  # .02 over .18
    0.111...
    >>> noise_share(measured, np.array([[1.0, 0.0], [0.2, 0.8]]), np.array([True, True]))
    1.0
    """
    distance = float(np.square(weights - alive / max(1, alive.sum())).sum())
    noise = float(np.square(resampled - weights).sum(axis=-1).mean())
    return 1.0 if noise >= distance else noise / distance


def shrink(weights: Weights, share: float, alive: Alive) -> Weights:
    """Mix with equal weights.

    >>> shrink(np.array([1.0, 0.0, 0.0]), 0.3, np.array([True, True, True])).round(3).tolist()
    [0.8, 0.1, 0.1]
    """
    return (1 - share) * weights + share * alive / alive.sum(axis=-1, keepdims=True)


def smooth(weights: Weights, previous: Sequence[float] | np.ndarray, share: float, alive: Alive) -> Weights:
    """Mix with earlier weights; where these gave all to heads that are not alive any more, leave the weights alone.

    >>> smooth(np.array([1.0, 0.0]), [0.4, 0.6], 0.5, np.array([True, True])).tolist()
    [0.7, 0.3]
    """
    kept = np.where(alive, np.asarray(previous, dtype=np.float64), 0.0)
    total = kept.sum(axis=-1, keepdims=True)
    mixed = (1 - share) * weights + share * np.divide(kept, total, out=np.zeros_like(kept), where=total > 0)
    return np.where(total > 0, mixed, weights)


def cap(weights: Weights, limit: float, alive: Alive) -> Weights:
    """The nearest weights (least squares) none of which is above ``limit``: the others rise by one common amount.

    A limit that the heads alive cannot keep, because there are fewer than 1 / limit of them, makes them equal.

    >>> cap(np.array([0.9, 0.1, 0.0]), 0.5, np.array([True, True, True])).round(3).tolist()
    [0.5, 0.3, 0.2]
    """
    limit_here = np.maximum(limit, 1.0 / alive.sum(axis=-1, keepdims=True))
    full = np.zeros(weights.shape, dtype=bool)
    rise = np.zeros(limit_here.shape)
    for _ in range(weights.shape[-1]):  # every round fills at least one head, or nothing changes any more
        full |= alive & (weights + rise > limit_here)
        open_ = alive & ~full
        missing = 1.0 - (full * limit_here).sum(axis=-1, keepdims=True) - (open_ * weights).sum(axis=-1, keepdims=True)
        count = open_.sum(axis=-1, keepdims=True)
        # Where nothing is cut off, what is missing is rounding.
        rise = np.divide(
            missing, count, out=np.zeros_like(missing), where=full.any(axis=-1, keepdims=True) & (count > 0)
        )
    return np.where(full, limit_here, np.where(alive, weights + rise, 0.0))


def floor_fused(weights: Weights, least: float, alive: Alive) -> Weights:
    """Raise the last head to ``least``, if it is alive; the others keep their proportions.

    >>> floor_fused(np.array([0.75, 0.25, 0.0]), 0.2, np.array([True, True, True])).round(3).tolist()
    [0.6, 0.2, 0.2]
    """
    fused = weights[..., -1:]
    raised = np.where(alive[..., -1:], np.maximum(fused, least), fused)
    room = np.divide(1.0 - raised, 1.0 - fused, out=np.ones_like(fused), where=raised > fused)
    return np.concatenate([weights[..., :-1] * room, raised], axis=-1)
