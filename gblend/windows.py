"""Which part of a stored clip a network sees: aligned windows of frames, flow fields and log-mel. Pure arithmetic on
arrays.

    stored frames   0   1   2   3   4   5   6   7          at the stored rate, fps
    window              s       s+d     s+2d               frames = 3, step d = 2
    seconds            |s/fps ................. |          (s + frames * d) / fps, half-open
    log-mel            |========================|          the same seconds, whatever its own frame rate

Log-mel frame i belongs to the hop that begins at ``i * hop_s``. A clip shorter than the window holds its last frame;
log-mel beyond the stored one is what its recipe stores for digital silence. A track that starts late or ends early is
stored as silence there, too: `audio_mask` tells it from sound.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

Alignment = Literal["stretch", "exact"]


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


def mel_positions(
    *, start_s: float, window_s: float, hop_s: float, frames: int, alignment: Alignment
) -> Float[np.ndarray, " frames"]:
    """Where a window's log-mel frames lie, in stored frames.

    Args:
        start_s: Start of the window.
        window_s: Length of the visual window.
        hop_s: Hop of the stored log-mel.
        frames: Frames wanted.
        alignment: ``stretch``: ``frames`` frames span the visual window exactly, as in the authors' code; ``exact``:
            ``frames`` stored frames from the window's start, at their own rate.

    >>> mel_positions(start_s=0.01, window_s=0.03, hop_s=0.01, frames=2, alignment="stretch").tolist()
    [1.0, 2.5]
    >>> mel_positions(start_s=0.012, window_s=0.03, hop_s=0.01, frames=2, alignment="exact").tolist()
    [1.0, 2.0]
    """
    first = start_s / hop_s
    if alignment == "exact":
        return np.round(first) + np.arange(frames)
    hops = window_s / hop_s
    return first + np.arange(frames) * hops / frames


def mel_window(
    logmel: Float[np.ndarray, "time mel"], positions: Float[np.ndarray, " frames"], *, silence: float
) -> Float[np.ndarray, "frames mel"]:
    """The log-mel at these positions, linearly interpolated; ``silence`` before the first frame and after the last.

    >>> ramp = np.arange(6, dtype=np.float32)[:, None]
    >>> mel_window(ramp, np.array([1.0, 2.5]), silence=0.0).ravel().tolist()
    [1.0, 2.5]
    >>> mel_window(ramp, np.array([4.0, 5.0, 6.0]), silence=-4.5).ravel().tolist()
    [4.0, 5.0, -4.5]
    """
    lower = np.floor(positions).astype(np.int64)
    share = (positions - lower).astype(np.float32)[:, None]
    return _rows(logmel, lower, silence) * (1.0 - share) + _rows(logmel, lower + 1, silence) * share


def _rows(
    logmel: Float[np.ndarray, "time mel"], at: Int[np.ndarray, " frames"], silence: float
) -> Float[np.ndarray, "frames mel"]:
    stored = len(logmel)
    if stored == 0:
        return np.full((len(at), logmel.shape[1]), silence, dtype=np.float32)
    found = logmel[np.clip(at, 0, stored - 1)].astype(np.float32)
    found[(at < 0) | (at >= stored)] = silence
    return found


def audio_mask(
    positions: Float[np.ndarray, " frames"],
    *,
    hop_s: float,
    first_centre_s: float,
    audio_start_s: float,
    audio_end_s: float,
) -> Bool[np.ndarray, " frames"]:
    """Which frames show real sound: those whose window is centred on a sample of the track, not on padding.

    Args:
        positions: From `mel_positions`.
        hop_s: Hop of the stored log-mel.
        first_centre_s: Where stored frame 0's window is centred.
        audio_start_s: Real samples lie in [audio_start_s, audio_end_s) of the clip.
        audio_end_s: See ``audio_start_s``.

    >>> audio_mask(np.arange(5.0), hop_s=0.01, first_centre_s=0.0, audio_start_s=0.01, audio_end_s=0.03).tolist()
    [False, True, True, False, False]
    """
    centres_s = positions * hop_s + first_centre_s
    rounding_s = 1e-9
    return (centres_s >= audio_start_s - rounding_s) & (centres_s < audio_end_s - rounding_s)
