"""Overfitting-to-generalisation ratio and the weights that minimise it (paper, Eq. 3-6 and Proposition 1).

A probe trains one branch alone for some epochs. G is how much its held-out loss fell, O how much its gap between
held-out and training loss grew. The branch's weight is G / O^2, normalised to sum 1. Pure NumPy: losses (or error
rates) in, weights and a reason out. What the paper leaves open is decided here, and every decision that takes effect is
named in ``reason``:

- G < 0 counts as 0: a branch that gets worse gets no weight;
- no branch with G > 0: all weights equal;
- O = 0: the limit of the formula, so the branches with O = 0 share the weight in proportion to G;
- a loss that is not finite: its branch gets no weight, unless no branch's losses are finite.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

Vector = Float[np.ndarray, " heads"]
Batch = Float[np.ndarray, "*batch heads"]

RELATIVE_TOLERANCE = 1e-6
"""Differences below this share of a head's largest loss are rounding of single-precision losses, not O or G."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossPair:
    """Mean losses of every head at one moment, in one unit (nats, or error rates), the fused head last."""

    train: Sequence[float] | np.ndarray
    """L^T: on training clips, in eval mode."""
    valid: Sequence[float] | np.ndarray
    """L^V: on held-out clips, in eval mode, in the same order of heads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendWeights:
    """Weights and what they were computed from; every array has one value per head."""

    weights: Vector
    """Non-negative, sum 1."""
    raw: Vector
    """The formula alone: no clamp, no floor, no limit; NaN or infinite where it is not defined."""
    generalization: Vector
    """G = L^V(start) - L^V(end): positive when the head improved. Not clamped."""
    overfitting: Vector
    """O = (L^V - L^T)(end) - (L^V - L^T)(start): positive when the gap grew."""
    rounding: Vector
    """Changes up to this size counted as 0."""
    ogr: Vector
    """|O / G| (Eq. 3); infinite where only G is 0, NaN where both are."""
    reason: str
    """Empty when the plain formula decided; else which rules took effect."""


def blend_weights(
    start: LossPair,
    end: LossPair,
    *,
    heads: Sequence[str] | None = None,
    generalization_se: Sequence[float] | np.ndarray | None = None,
    overfitting_se: Sequence[float] | np.ndarray | None = None,
) -> BlendWeights:
    """Optimal weights from the losses at both ends of the probes: w = (G / O^2) / sum(G / O^2).

    Args:
        start: Losses before the probes.
        end: Losses after them.
        heads: Names for ``reason``; numbers when not given.
        generalization_se: Standard error of each G, in the losses' unit. When given, G - SE is taken for G, so that
            learning too small to measure is taken for none. The paper has no such discount.
        overfitting_se: Standard error of each O, in the losses' unit. When given, O^2 is replaced by max(O^2, SE^2), so
            that an overfitting too small to measure is not taken for none. The paper has no such floor.

    Raises:
        ValueError: The four loss lists differ in length, or are empty.

    >>> start = LossPair(train=[1.8, 1.8, 1.8], valid=[1.8, 1.8, 1.8])
    >>> end = LossPair(train=[0.9, 0.5, 0.4], valid=[1.1, 1.6, 1.0])  # the second modality overfits
    >>> blend_weights(start, end).weights.round(3).tolist()  # .7/.2^2, .2/1.1^2, .8/.6^2
    [0.88, 0.008, 0.112]
    """
    losses = [np.asarray(values, dtype=np.float64) for values in (start.train, start.valid, end.train, end.valid)]
    lengths = {values.shape for values in losses}
    if len(lengths) != 1 or losses[0].ndim != 1 or losses[0].size == 0:
        raise ValueError(
            f"start and end need one train and one valid loss per head, got shapes {[v.shape for v in losses]}"
        )
    names = list(heads) if heads is not None else [str(i) for i in range(losses[0].size)]
    start_train, start_valid, end_train, end_valid = losses

    finite = np.all(np.isfinite(losses), axis=0)
    rounding = RELATIVE_TOLERANCE * np.where(finite, np.max(np.abs(losses), axis=0), 0.0)
    # Infinite losses give inf - inf = NaN: a value, not an accident, so NumPy need not warn.
    with np.errstate(invalid="ignore"):
        generalization = without_rounding(start_valid - end_valid, rounding)
        overfitting = without_rounding((end_valid - end_train) - (start_valid - start_train), rounding)
        plain = overfitting_to_generalization_ratio(overfitting, generalization)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = generalization / overfitting**2
        raw = score / score.sum()
    return BlendWeights(
        weights=weights_of(
            generalization, overfitting, generalization_se=generalization_se, overfitting_se=overfitting_se
        ),
        raw=raw,
        generalization=generalization,
        overfitting=overfitting,
        rounding=rounding,
        ogr=plain,
        reason="; ".join(_reasons(names, generalization, overfitting, generalization_se, overfitting_se)),
    )


def weights_of(
    generalization: Batch,
    overfitting: Batch,
    *,
    generalization_se: Batch | Sequence[float] | None = None,
    overfitting_se: Batch | Sequence[float] | None = None,
) -> Batch:
    """The weights of `blend_weights` from G and O; leading axes are estimates of their own (resamples of the clips).

    >>> weights_of(np.array([[0.4, 0.9], [-0.1, 0.2]]), np.array([[0.2, 0.3], [0.1, 0.0]])).round(3).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    finite = measured(generalization, overfitting)
    gain = _gain(generalization, finite, generalization_se)
    variance = _variance(overfitting, finite, overfitting_se)
    flat = (gain > 0) & (variance == 0)
    score = np.divide(gain, variance, out=np.zeros_like(gain), where=(gain > 0) & ~flat)
    score = np.where(flat.any(axis=-1, keepdims=True), np.where(flat, gain, 0.0), score)
    none = ~(gain > 0).any(axis=-1, keepdims=True)
    score = np.where(none, (finite | ~finite.any(axis=-1, keepdims=True)).astype(np.float64), score)
    return score / score.sum(axis=-1, keepdims=True)


def measured(generalization: Batch, overfitting: Batch) -> Bool[np.ndarray, "*batch heads"]:
    """Heads whose losses were finite at both ends; no rule gives weight to another."""
    return np.isfinite(generalization) & np.isfinite(overfitting)


def overfitting_to_generalization_ratio(overfitting: Vector, generalization: Vector) -> Vector:
    """OGR = |O / G| per head (Eq. 3).

    >>> overfitting_to_generalization_ratio(np.array([0.2, 0.3, 0.0]), np.array([0.8, 0.0, 0.0])).round(2).tolist()
    [0.25, inf, nan]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(overfitting / generalization)


def expected_squared_ogr(weights: Vector, generalization: Vector, overfitting: Vector) -> float:
    """E[OGR^2] of a blend of estimates whose overfitting is uncorrelated (Eq. 5): sum(w^2 O^2) / (sum(w G))^2.

    Unchanged when all weights are scaled; Proposition 1 says that w = G / O^2 minimises it.

    >>> expected_squared_ogr(np.array([0.5, 0.5]), np.array([1.0, 1.0]), np.array([1.0, 1.0]))
    0.5
    """
    return float(np.sum((weights * overfitting) ** 2) / np.sum(weights * generalization) ** 2)


def without_rounding(values: Batch, rounding: Vector) -> Batch:
    """``values``, those up to ``rounding`` in size replaced by 0.

    >>> without_rounding(np.array([1e-9, -0.5]), np.array([1e-6, 1e-6])).tolist()
    [0.0, -0.5]
    """
    return np.where(np.abs(values) <= rounding, 0.0, values)


def _gain(generalization: np.ndarray, finite: np.ndarray, se: Sequence[float] | np.ndarray | None) -> np.ndarray:
    """What counts as G: not negative, less its standard error if given."""
    gain = np.where(finite, generalization, 0.0)
    if se is not None:
        gain = gain - np.nan_to_num(np.asarray(se, dtype=np.float64), posinf=0.0)
    return np.maximum(gain, 0.0)


def _variance(overfitting: np.ndarray, finite: np.ndarray, se: Sequence[float] | np.ndarray | None) -> np.ndarray:
    """What counts as O^2: not below the squared standard error, if given."""
    variance = np.where(finite, overfitting, 0.0) ** 2
    if se is not None:
        variance = np.maximum(variance, np.nan_to_num(np.asarray(se, dtype=np.float64), posinf=0.0) ** 2)
    return variance


def _reasons(
    names: Sequence[str],
    generalization: Vector,
    overfitting: Vector,
    generalization_se: Sequence[float] | np.ndarray | None,
    overfitting_se: Sequence[float] | np.ndarray | None,
) -> list[str]:
    """The rules that took effect in `weights_of`, in words."""

    def named(chosen: np.ndarray) -> str:
        return ", ".join(name for name, yes in zip(names, chosen, strict=True) if yes)

    finite = measured(generalization, overfitting)
    improved = finite & (generalization > 0)
    gain, variance = _gain(generalization, finite, generalization_se), _variance(overfitting, finite, overfitting_se)
    flat = (gain > 0) & (variance == 0)
    happened = {
        "loss not finite, weight 0": ~finite,
        "G < 0, weight 0": finite & (generalization < 0),
        "G lowered by its standard error": improved & (gain > 0) & (gain < generalization),
        "G within its standard error, weight 0": improved & (gain == 0),
        "O below its standard error, raised to it": finite & (variance > np.where(finite, overfitting, 0.0) ** 2),
        "O = 0, all weight by G to": flat,
    }
    reasons = [f"{what}: {named(chosen)}" for what, chosen in happened.items() if chosen.any()]
    if not (gain > 0).any():
        beyond = "" if generalization_se is None else " beyond its standard error"
        among = " among the others" if finite.any() and not finite.all() else ""
        reasons.append(f"no head has G > 0{beyond}, equal weights{among}")
    if not finite.any():
        reasons[0] = "no head has a finite loss"
    return reasons
