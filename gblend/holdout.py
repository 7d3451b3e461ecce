"""V: the part of the training split that stands in for unseen data when weights are estimated.

Held out by group (source video, participant), because two clips of one video are not independent; stratified by label,
so that even a small V tends to hold every class; decided by a seed alone, so that all runs of a comparison hold out the
same clips.

A clip with several labels (a multi-label task, or several tasks) counts for each of them. There rare labels decide, as
in iterative stratification (Sechidis, Tsoumakas, Vlahavas, ECML-PKDD 2011): a clip too many weighs the more, the fewer
there should be. But every decision may be taken back, which brings heavy-tailed groups nearer to the share.
"""

from collections.abc import Collection, Hashable, Sequence
from typing import cast

import numpy as np
from jaxtyping import Bool, Int

Label = int | tuple[str, int]
"""A class, or a task and one of its classes."""

LAST = 1.0
"""What it weighs to hold out a class's last training clip: as much as holding out none of a class that is owed one."""

PASSES = 10
"""At most so many visits to every group when clips have several labels; few are needed."""


def hold_out(
    labels: Sequence[int] | Sequence[Collection[Label]], groups: Sequence[Hashable], share: float, *, seed: int
) -> Bool[np.ndarray, " clips"]:
    """Choose whole groups so that about ``share`` of every class is held out.

    With one label a clip, every class has a whole number of clips as its target, which add up to ``share`` of all
    clips. Groups are visited in a random order; one is taken when that brings the class counts nearer to their targets,
    or else their sum. With several labels, or none, groups are chosen so that classes come near their shares and T
    keeps a clip of each; neither is promised (see `_several`).

    Args:
        labels: Class of each clip, or all its classes. Classes of different tasks are told apart as (task, class).
        groups: Group of each clip; clips of a group stay together.
        share: Share of each class to hold out.
        seed: Decides the order.

    Raises:
        ValueError: Nothing, or everything, would be held out.

    >>> held = hold_out([0, 0, 0, 0, 1, 1, 1, 1], list("abcdefgh"), 0.25, seed=0)
    >>> int(held[:4].sum()), int(held[4:].sum())
    (1, 1)
    >>> labels = [[("verb", 0), ("noun", 0)], [("verb", 1), ("noun", 1)]] * 4
    >>> held = hold_out(labels, list("abcdefgh"), 0.25, seed=0)
    >>> int(held[::2].sum()), int(held[1::2].sum())
    (1, 1)
    """
    if len(labels) == 0:
        raise ValueError("there is no training clip to hold out from")
    members: dict[Hashable, list[int]] = {}
    for clip, group in enumerate(groups):
        members.setdefault(group, []).append(clip)
    rng = np.random.default_rng(seed)
    if isinstance(labels[0], Collection):
        sets = cast(Sequence[Collection[Label]], labels)
        place = {label: at for at, label in enumerate(sorted({label for found in sets for label in found}))}
        indexes = [sorted({place[label] for label in found}) for found in sets]
        if all(len(found) == 1 for found in indexes):
            held = _single(np.array(indexes)[:, 0], list(members.values()), share, rng)
        else:
            held = _several(indexes, list(members.values()), share, rng)
    else:
        held = _single(np.unique(np.asarray(labels), return_inverse=True)[1], list(members.values()), share, rng)
    if not held.any() or held.all():
        raise ValueError(
            f"cannot hold out {share:.0%} of {held.size} clips in {len(members)} groups: it would be "
            f"{'none' if not held.any() else 'all'} of them; use more clips or another blend.holdout_share"
        )
    return held


def _single(
    labels: Int[np.ndarray, " clips"], members: list[list[int]], share: float, rng: np.random.Generator
) -> Bool[np.ndarray, " clips"]:
    """Clips to hold out by one label each, 0 and up."""
    target = _targets(np.bincount(labels), share, rng)
    taken = np.zeros_like(target)
    held = np.zeros(labels.size, dtype=bool)
    for position in rng.permutation(len(members)):
        clips = members[position]
        count = np.bincount(labels[clips], minlength=target.size)
        if _distance(target - taken - count) < _distance(target - taken):
            taken = taken + count
            held[clips] = True
    return held


def _several(
    labels: list[list[int]], members: list[list[int]], share: float, rng: np.random.Generator
) -> Bool[np.ndarray, " clips"]:
    """Clips to hold out by any number of labels each.

    Groups are visited in random orders, each taken or put back when that lowers sum_c (n_c - share N_c)^2 / (share N_c)
    over the classes and the clips as a whole, n_c of the N_c clips of c being held out, plus `LAST` for every class
    that T would have none of, because V can say nothing of it; until none does. A target below 1 counts as 1 in the
    denominator, so a class that is owed less than half a clip tends to have none. These are tendencies: a group comes
    with all its clips, and where groups are large and classes rare, some classes fall wholly into V
    (``untrained_classes`` of a run's result says how many). Time is proportional to the number of labels: seconds for
    250,000 clips of 500 classes.
    """
    everything = 1 + max((found[-1] for found in labels if found), default=-1)  # A label that every clip has.
    parts: list[list[tuple[int, int]]] = []  # Per group, how often it has which label.
    for clips in members:
        counts = {everything: len(clips)}
        for clip in clips:
            for label in labels[clip]:
                counts[label] = counts.get(label, 0) + 1
        parts.append(sorted(counts.items()))
    training = [0] * (everything + 1)
    for part in parts:
        for label, count in part:
            training[label] += count
    wanted = [share * count for count in training]
    scale = [1.0 / max(1.0, target) for target in wanted]
    missing, chosen = list(wanted), [False] * len(members)
    for _ in range(PASSES):
        changed = False
        for position in rng.permutation(len(members)).tolist():
            sign = -1 if chosen[position] else 1
            gain = 0.0  # (m - c)^2 - m^2 = c (c - 2 m)
            for label, count in parts[position]:
                gain += count * (2 * sign * missing[label] - count) * scale[label]
                if training[label] == (count if sign > 0 else 0):
                    gain -= sign * LAST
            if gain > 1e-9:
                changed, chosen[position] = True, not chosen[position]
                for label, count in parts[position]:
                    missing[label] -= sign * count
                    training[label] -= sign * count
        if not changed:
            break
    held = np.zeros(len(labels), dtype=bool)
    for clips, take in zip(members, chosen, strict=True):
        held[clips] = take
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
