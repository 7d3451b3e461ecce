"""V: the part of the training split that stands in for unseen data when weights are estimated.

Held out by group (source video, participant), because two clips of one video are not independent; stratified by label,
so that a small V still holds every class; decided by a seed alone, so that all runs of a comparison hold out the same
clips.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Int


def hold_out(
    labels: Sequence[int], groups: Sequence[Hashable], share: float, *, seed: int
) -> Bool[np.ndarray, " clips"]:
    """Choose whole groups so that about ``share`` of every class is held out.

    Every class has a whole number of clips as its target, which add up to ``share`` of all clips. Groups are visited in
    a random order; one is taken when that brings the class counts nearer to their targets, or else their sum.

    Args:
        labels: Class of each clip.
        groups: Group of each clip; clips of a group stay together.
        share: Share of each class to hold out.
        seed: Decides the order.

    Raises:
        ValueError: Nothing, or everything, would be held out.

    >>> held = hold_out([0, 0, 0, 0, 1, 1, 1, 1], list("abcdefgh"), 0.25, seed=0)
    >>> int(held[:4].sum()), int(held[4:].sum())
    (1, 1)
    """
    label_array = np.asarray(labels)
    if label_array.size == 0:
        raise ValueError("there is no training clip to hold out from")
    _, label_index = np.unique(label_array, return_inverse=True)
    members: dict[Hashable, list[int]] = {}
    for clip, group in enumerate(groups):
        members.setdefault(group, []).append(clip)
    rng = np.random.default_rng(seed)
    target = _targets(np.bincount(label_index), share, rng)
    taken = np.zeros_like(target)
    held = np.zeros(label_array.size, dtype=bool)
    names = list(members)
    for position in rng.permutation(len(names)):
        clips = members[names[position]]
        count = np.bincount(label_index[clips], minlength=target.size)
        if _distance(target - taken - count) < _distance(target - taken):
            taken = taken + count
            held[clips] = True
    if not held.any() or held.all():
        raise ValueError(
            f"cannot hold out {share:.0%} of {label_array.size} clips in {len(names)} groups: it would be "
            f"{'none' if not held.any() else 'all'} of them; use more clips or another blend.holdout_share"
        )
    return held


def _targets(
    counts: Int[np.ndarray, " classes"], share: float, rng: np.random.Generator
) -> Int[np.ndarray, " classes"]:
    """Clips to hold out per class: rounded down, the rest one each to the largest remainders, ties at random.

    >>> _targets(np.array([10, 5, 3]), 0.25, np.random.default_rng(0)).tolist()  # 2.5, 1.25, 0.75
    [2, 1, 1]
    """
    exact = share * counts
    whole = np.floor(exact + 1e-9).astype(np.int64)
    rest = round(share * int(counts.sum())) - int(whole.sum())
    order = np.lexsort((rng.random(counts.size), np.round(whole - exact, 9)))
    whole[order[:rest]] += 1
    return whole


def _distance(missing: Int[np.ndarray, " classes"]) -> tuple[int, int]:
    """Clips too few or too many, class by class, then altogether."""
    return int(np.abs(missing).sum()), abs(int(missing.sum()))
