"""Masks over log-mel, as SpecAugment (Park et al. 2019) has them: runs of frames and of mel bands are blotted out.

A mask is two numbers drawn from [0, 1), so that what is drawn depends on no size and no width. The rule that makes a
span of them is that of ``torchaudio.functional.mask_along_axis``: both ends are rounded down, so no mask is as wide as
the greatest width.
"""

import numpy as np
from jaxtyping import Float

Mask = tuple[float, float]
"""Width as a share of the greatest, and place as a share of where it fits."""


def draw_masks(rng: np.random.Generator, count: int) -> tuple[Mask, ...]:
    """``count`` masks; the first ones are the same whatever their number."""
    return tuple((float(width), float(place)) for width, place in rng.random((count, 2)))


def mask_span(mask: Mask, *, width: int, size: int) -> slice:
    """Which of ``size`` places a mask covers, of ``width`` at most.

    >>> mask_span((0.5, 0.25), width=20, size=100), mask_span((0.04, 0.9), width=20, size=100)
    (slice(22, 32, None), slice(89, 89, None))
    """
    share, place = mask
    covered = share * min(width, size)
    start = int(place * (size - covered))
    return slice(start, start + int(covered))


def blot_out(
    logmel: Float[np.ndarray, "frames mels"],
    *,
    frames: tuple[Mask, ...],
    frames_width: int,
    bands: tuple[Mask, ...],
    bands_width: int,
    fill: float,
) -> Float[np.ndarray, "frames mels"]:
    """The log-mel with masks over time and over mel bands, filled with ``fill``."""
    masked = logmel.copy()
    for mask in frames:
        masked[mask_span(mask, width=frames_width, size=logmel.shape[0])] = fill
    for mask in bands:
        masked[:, mask_span(mask, width=bands_width, size=logmel.shape[1])] = fill
    return masked
