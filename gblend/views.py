"""The multi-clip protocol: several windows of a clip, spread evenly over it, and the mean of what is said about them.

    stored frames    |==============================|
    4 clips          |w--------|                            starts 0 .. last, floor(i * last / 3)
                            |w--------|
                                  |w--------|
                                         |w--------|
    three crops      of each window: both ends and the middle of the longer side; centre: the middle alone

One clip is the central window that runs are measured on, not the first. Every window is cut from frames, flow and
log-mel alike. A clip with fewer starts than windows repeats some (it counts once, like any other), as torchvision's
``UniformClipSampler`` does; in a picture that is all crop, the three crops are one. What is averaged are probabilities,
head by head, as in the authors' code: the heads are joined afterwards (`gblend.predictions`).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from gblend.inputs import Window
from gblend.predictions import log_sigmoid
from gblend.require import require, require_choices
from gblend.several import logits_of

Crops = Literal["centre", "three"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """Which windows of a clip a network is asked about."""

    clips: int = 10
    """Windows in time; 1 is the central one."""
    crops: Crops = "centre"
    """Of each: the centre of the picture, or three places along its longer side."""

    def __post_init__(self) -> None:
        require(self.clips >= 1, "clips", "at least 1", self.clips)
        require_choices(self, "")

    @property
    def count(self) -> int:
        """Windows of one clip."""
        return self.clips * (3 if self.crops == "three" else 1)

    @property
    def name(self) -> str:
        """For the names of files.

        >>> Views().name
        '10xcentre'
        """
        return f"{self.clips}x{self.crops}"

    def windows(self, *, starts: int, height: int, width: int) -> list[Window]:
        """All windows of a clip, window by window in time.

        Args:
            starts: How many starts a window has in it (`gblend.inputs.count_starts`).
            height: Of its picture, in any unit.
            width: See ``height``.

        >>> [(w.start_frame, w.left) for w in Views(clips=2, crops="three").windows(starts=7, height=3, width=4)]
        [(0, 0.0), (0, 0.5), (0, 1.0), (6, 0.0), (6, 0.5), (6, 1.0)]
        """
        places = crop_places(self.crops, height=height, width=width)
        return [
            Window(start_frame=start, top=top, left=left, mirrored=False)
            for start in even_starts(starts, self.clips)
            for top, left in places
        ]


def even_starts(starts: int, clips: int) -> list[int]:
    """The first frames of ``clips`` windows, from the first start to the last; of one, the middle.

    >>> even_starts(11, 4), even_starts(11, 1), even_starts(2, 4), even_starts(1, 3)
    ([0, 3, 6, 10], [5], [0, 0, 0, 1], [0, 0, 0])
    """
    last = starts - 1
    return [last // 2] if clips == 1 else [i * last // (clips - 1) for i in range(clips)]


def crop_places(crops: Crops, *, height: int, width: int) -> list[tuple[float, float]]:
    """Where the crops lie: (top, left), each from 0 to 1. Of a square picture the width counts as the longer side.

    >>> crop_places("three", height=4, width=3)
    [(0.0, 0.5), (0.5, 0.5), (1.0, 0.5)]
    """
    if crops == "centre":
        return [(0.5, 0.5)]
    along = (0.0, 0.5, 1.0)
    return [(at, 0.5) for at in along] if height > width else [(0.5, at) for at in along]


def mean_over_views(
    log_probs: Float[np.ndarray, "views clips classes"], *, several: bool
) -> Float[np.ndarray, "clips classes"]:
    """Logarithm of the mean probability; of one view, what it says, to the bit.

    Args:
        log_probs: Log-softmax per view, or of several labels log-sigmoid.
        several: Whether they are of several labels: then 1 - p keeps its digits, too, where p is nearly 1.

    >>> np.exp(mean_over_views(np.log([[[0.5, 0.5]], [[0.1, 0.9]]]), several=False)).round(6).tolist()
    [[0.3, 0.7]]
    >>> np.exp(mean_over_views(np.log([[[0.5, 0.8]], [[0.1, 0.9]]]), several=True)).round(6).tolist()
    [[0.3, 0.85]]
    """
    said = log_probs.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a head that answers NaN answers NaN on average
        yes = np.logaddexp.reduce(said, axis=0)
        if several:
            no = np.logaddexp.reduce(log_sigmoid(-logits_of(said)), axis=0)
            return log_sigmoid(yes - no).astype(log_probs.dtype)
    return (yes - np.log(len(said))).astype(log_probs.dtype)
