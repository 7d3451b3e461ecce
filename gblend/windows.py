"""Which part of a stored clip a network sees: aligned windows of frames, flow fields and log-mel. Pure arithmetic on
arrays.

    stored frames   0   1   2   3   4   5   6   7          at the stored rate, fps
    window              s       s+d     s+2d               frames = 3, step d = 2
    seconds            |s/fps ................. |          (s + frames * d) / fps, half-open
    log-mel            |========================|          the same seconds, whatever its own frame rate

A clip shorter than the window holds its last frame; log-mel beyond the stored one is digital silence, 0 in this recipe.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int


def start_count(stored: int, *, frames: int, step: int) -> int:
    """How many windows fit into ``stored`` frames; at least one, because a short clip is padded.

    >>> start_count(16, frames=8, step=2), start_count(16, frames=4, step=1), start_count(3, frames=8, step=1)
    (2, 13, 1)
    """
    return max(1, stored - (frames - 1) * step)


def frame_indices(start: int, *, stored: int, frames: int, step: int) -> Int[np.ndarray, " frames"]:
    """Indices of a window's frames among the stored ones; past the end the last frame is held.

    >>> frame_indices(1, stored=6, frames=4, step=2).tolist()
    [1, 3, 5, 5]
    """
    return np.minimum(start + step * np.arange(frames), stored - 1)


def mel_window(
    logmel: Float[np.ndarray, "time mel"],
    *,
    start_s: float,
    window_s: float,
    hop_s: float,
    frames: int,
    alignment: Literal["stretch", "exact"],
) -> Float[np.ndarray, "frames mel"]:
    """The log-mel of a window.

    Args:
        logmel: Whole clip; frame i is centred at ``i * hop_s``.
        start_s: Start of the window.
        window_s: Length of the visual window.
        hop_s: Hop of ``logmel``.
        frames: Frames wanted.
        alignment: ``stretch`` interpolates linearly so that ``frames`` frames span the visual window exactly, as the
            authors' code does; ``exact`` takes ``frames`` stored frames from the window's start, at their own rate.

    >>> ramp = np.arange(6, dtype=np.float32)[:, None]
    >>> mel_window(ramp, start_s=0.01, window_s=0.04, hop_s=0.01, frames=2, alignment="stretch").ravel().tolist()
    [1.0, 3.0]
    >>> mel_window(ramp, start_s=0.04, window_s=0.04, hop_s=0.01, frames=4, alignment="exact").ravel().tolist()
    [4.0, 5.0, 0.0, 0.0]
    """
    first = start_s / hop_s
    if alignment == "exact":
        positions = np.round(first) + np.arange(frames)
    else:
        hops = window_s / hop_s
        positions = first + np.arange(frames) * hops / frames
    lower = np.floor(positions).astype(np.int64)
    share = (positions - lower).astype(np.float32)[:, None]
    silent = np.zeros((1, logmel.shape[1]), dtype=np.float32)
    padded = np.concatenate([silent, logmel.astype(np.float32), silent])  # row i + 1 is frame i
    last = padded.shape[0] - 1
    below = padded[np.clip(lower + 1, 0, last)]
    above = padded[np.clip(lower + 2, 0, last)]
    return below * (1.0 - share) + above * share
