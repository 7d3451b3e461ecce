"""How much O, G and the weights would differ had other clips been held out: the paired bootstrap.

A resample draws as many clips from V, and as many from T', as there are, with replacement; the same draw for both ends
of every probe, so that what all heads find hard stays hard for all. A mean over a resample needs only how often each
clip was drawn, so all resamples are one product of counts and per-clip changes, made in chunks of bounded memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

RESAMPLES = 1000
"""A standard error from so many has one of about 2 % itself."""

CHUNK_BYTES = 16 * 2**20
"""Of counts held at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResampledMeans:
    """Mean change of every head's loss over the clips of every resample."""

    mean: Float[np.ndarray, "resamples heads"]
    """NaN where no drawn clip counts for the head, or a loss is not finite."""
    squared_se: Float[np.ndarray, "resamples heads"]
    """Squared standard error the resample itself gives: variance (n - 1 in the denominator) / n; NaN where n < 2."""


def resample_means(
    changes: Float[np.ndarray, "heads clips"],
    counted: Bool[np.ndarray, "heads clips"],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> ResampledMeans:
    """Means over resamples of the clips, the same draws for all heads.

    Args:
        changes: Per head and clip, how much the loss changed.
        counted: Clips that have what the head needs; the others can be drawn, but count for nothing.
        rng: Decides the draws.
        resamples: How many.

    >>> changes, counted = np.array([[1.0, 2.0, 3.0, 4.0]]), np.ones((1, 4), dtype=bool)
    >>> found = resample_means(changes, counted, rng=np.random.default_rng(0), resamples=100_000)
    >>> round(float(found.mean.std()), 2)  # sqrt(variance 1.25 / 4 clips)
    0.56
    """
    clips = changes.shape[1]
    if clips == 0:
        nothing = np.full((resamples, changes.shape[0]), np.nan)
        return ResampledMeans(mean=nothing, squared_se=nothing)
    broken = (counted & ~np.isfinite(changes)).any(axis=1, keepdims=True)
    usable = counted & ~broken
    kept = np.where(usable, changes, 0.0)
    # Squares of deviations, not of changes: a variance must not be a small difference of large numbers.
    centre = kept.sum(axis=1) / np.maximum(usable.sum(axis=1), 1)
    away = np.where(usable, kept - centre[:, None], 0.0)
    columns = np.concatenate([usable, away, away**2]).T  # (clips, 3 heads)
    sums = np.concatenate([times @ columns for times in _draws(clips, resamples, rng)])
    number, first, second = np.split(sums, 3, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = centre + first / number
        variance = np.maximum(second - first**2 / number, 0.0) / (number - 1)
        squared_se = np.where(number > 1, variance / number, np.nan)
    return ResampledMeans(mean=mean, squared_se=squared_se)


def _draws(clips: int, resamples: int, rng: np.random.Generator) -> Iterator[Float[np.ndarray, "some clips"]]:
    """How often each clip was drawn, (some resamples, clips) at a time."""
    rows = max(1, CHUNK_BYTES // (8 * clips))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(0, clips, (count, clips)) + clips * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * clips).reshape(count, clips).astype(np.float64)
