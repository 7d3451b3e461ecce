"""What answers are worth: top-k for one right class, mAP, mAUC, d' and LRAP for several, and top-k over several tasks.

Per clip where a clip has a value of its own (top-k, LRAP), so that it can be paired and averaged like a loss; per class
where only a class has one (average precision, area under the ROC curve), by torchmetrics. No class or clip needs
another, so that they can be shared out (`gblend.measure`).

Of classes that score the same the first ranks first, as argmax has it. An answer that holds a NaN is never right: it is
not in any top-k, its LRAP is 0, and in the ranking of its class the clip stands on the wrong side of all others.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

Scores = Float[np.ndarray, "clips classes"]
Labels = Int[np.ndarray, " clips"]
Truth = Bool[np.ndarray, "clips classes"]

CHUNK_BYTES = 32 * 2**20
"""Of one double-precision array of scores worked on at once."""

DECIMALS = 6
"""Of a class's metrics: as many as single precision holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiLabelScore:
    """Answers to a multi-label task on a set of clips."""

    mean_average_precision: float
    """mAP: mean of `average_precision` over the classes that some clip has; NaN when there are none."""
    mean_auc: float
    """mAUC: mean of `roc_auc` over the classes that some clips have and some have not; NaN when there are none."""
    d_prime: float
    """sqrt(2) times the normal quantile of mAUC."""
    label_ranking: float
    """LRAP: mean of `label_ranking` over the clips."""
    ranked_classes: int
    """Classes in mAP."""
    separable_classes: int
    """Classes in mAUC."""
    clips: int
    """Number of clips."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRanking:
    """How well the scores of each class order the clips."""

    average_precision: Float[np.ndarray, " classes"]
    """The mean, over the clips that have the class, of the share that has it among the clips which score as high or
    higher. NaN for a class that no clip has."""
    roc_auc: Float[np.ndarray, " classes"]
    """How often a clip that has the class scores higher than one that has not, equal scores counting half. NaN for a
    class that no clip has, or all."""


def score_multi_label(scores: Scores, truth: Truth) -> MultiLabelScore:
    """All metrics of a multi-label task.

    Args:
        scores: The higher, the likelier: logits, probabilities or their logarithms; only their order counts.
        truth: Which classes a clip has.

    >>> found = score_multi_label(np.array([[0.9, 0.1], [0.2, 0.3]]), np.array([[True, False], [True, False]]))
    >>> found.mean_average_precision, found.mean_auc, found.label_ranking, found.ranked_classes, found.separable_classes
    (1.0, nan, 0.75, 1, 0)
    """
    return summarise(rank_clips(scores, truth), label_ranking(scores, truth))


def summarise(classes: ClassRanking, of_clips: Float[np.ndarray, " clips"]) -> MultiLabelScore:
    """All metrics of a multi-label task from what `rank_clips` and `label_ranking` find."""
    auc = _mean(classes.roc_auc)
    return MultiLabelScore(
        mean_average_precision=_mean(classes.average_precision),
        mean_auc=auc,
        d_prime=d_prime(auc),
        label_ranking=_mean(of_clips),
        ranked_classes=int(np.isfinite(classes.average_precision).sum()),
        separable_classes=int(np.isfinite(classes.roc_auc).sum()),
        clips=len(of_clips),
    )


def top_k_right(scores: Scores, labels: Labels, *, k: int) -> Bool[np.ndarray, " clips"]:
    """Whether the label is among the ``k`` best classes; with as many classes or fewer, every finite answer is.

    >>> top_k_right(np.array([[0.2, 0.5, 0.3]] * 3), np.array([0, 1, 2]), k=2).tolist()
    [False, True, True]
    """
    _require_k(k)
    return ranks(scores, labels) < k


def joint_top_k_right(
    log_probs: Sequence[Float[np.ndarray, "clips _"]], labels: Sequence[Labels], *, k: int
) -> Bool[np.ndarray, " clips"]:
    """Whether the labels of all tasks together are among the ``k`` likeliest combinations of their classes.

    A combination is as likely as the product of the tasks' probabilities. Of equally likely ones that comes first whose
    first task ranks higher, then the second: for k = 1, every task's own best class.

    Only combinations that can be among the k are looked at: one whose classes have the ranks r_t (from 0) stands behind
    the prod(r_t + 1) - 1 others that are nowhere worse, so that product is at most k. For five of three tasks these are
    16, not one for every triple of classes.

    Args:
        log_probs: Per task, logarithms of probabilities.
        labels: Per task.
        k: How many combinations.

    >>> verb, noun = np.log([[0.6, 0.4]]), np.log([[0.3, 0.5, 0.2]])  # .30 .20 .18 .12 .12 .08
    >>> [bool(joint_top_k_right([verb, noun], [np.array([1]), np.array([1])], k=k)[0]) for k in (1, 2)]
    [False, True]
    """
    _require_k(k)
    if not log_probs or len(log_probs) != len(labels):
        raise ValueError(f"got answers to {len(log_probs)} tasks and labels of {len(labels)}; give both for every task")
    clips = np.arange(len(labels[0]))
    truth = np.stack([ranks(said, label) for said, label in zip(log_probs, labels, strict=True)])  # (tasks, clips)
    best = [np.sort(said.astype(np.float64), axis=1)[:, ::-1] for said in log_probs]
    last = [said.shape[1] - 1 for said in log_probs]
    possible = (truth <= np.array(last)[:, None]).all(axis=0)
    held = np.minimum(truth, np.array(last)[:, None])
    of_truth = np.sum([ordered[clips, rank] for ordered, rank in zip(best, held, strict=True)], axis=0)
    ahead = np.zeros(clips.size, dtype=np.int64)
    for combination in _possible_combinations(k, last):
        said = np.sum([ordered[:, rank] for ordered, rank in zip(best, combination, strict=True)], axis=0)
        earlier = np.zeros(clips.size, dtype=bool)
        for rank, of_task in reversed(list(zip(combination, truth, strict=True))):
            earlier = (rank < of_task) | ((rank == of_task) & earlier)
        ahead += (said > of_truth) | ((said == of_truth) & earlier)
    return possible & (np.prod(truth + 1, axis=0, dtype=np.float64) <= k) & (ahead < k)


def label_ranking(scores: Scores, truth: Truth) -> Float[np.ndarray, " clips"]:
    """Label ranking average precision of every clip: the mean over its classes of the share of classes that it has
    among those which score as high or higher. 1 when all its classes come first; 1, too, for a clip without any, where
    nothing is out of order (as scikit-learn and torchmetrics, which return the mean alone, count it).

    >>> label_ranking(np.array([[0.9, 0.8, 0.1]] * 2), np.array([[True, False, True], [False] * 3])).round(3)
    array([0.833, 1.   ])
    """
    found = np.ones(len(scores))
    rows = max(1, CHUNK_BYTES // (8 * max(1, scores.shape[1])))
    for start in range(0, len(scores), rows):
        part = slice(start, start + rows)
        said, has = scores[part].astype(np.float64), truth[part]
        order = np.argsort(-said, axis=1, kind="stable")
        said, has = np.take_along_axis(said, order, axis=1), np.take_along_axis(has, order, axis=1)
        # Equal scores share the place of the last of them.
        place = np.arange(said.shape[1])
        ends = np.concatenate([said[:, 1:] != said[:, :-1], np.ones((len(said), 1), dtype=bool)], axis=1)
        last = np.minimum.accumulate(np.where(ends, place, place.size)[:, ::-1], axis=1)[:, ::-1]
        share = np.take_along_axis(np.cumsum(has, axis=1), last, axis=1) / (last + 1)
        count = has.sum(axis=1)
        found[part] = np.where(count > 0, (share * has).sum(axis=1) / np.maximum(count, 1), 1.0)
    return np.where(np.isnan(scores).any(axis=1), 0.0, found)


def rank_clips(scores: Scores, truth: Truth) -> ClassRanking:
    """Average precision of every class and the area under its ROC curve.

    >>> scores, truth = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.3]]), np.array([[1, 0], [0, 0], [1, 0]]) > 0
    >>> found = rank_clips(scores, truth)
    >>> found.average_precision.round(3), found.roc_auc
    (array([0.833,   nan]), array([0.5, nan]))
    """
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision  # Seconds to import.

    precision, area = np.full((2, scores.shape[1]), np.nan)
    for at in np.flatnonzero(truth.any(axis=0)):
        places, has = _places(scores[:, at], truth[:, at])
        # Single precision inside: without rounding, the area of a class that is told apart perfectly may exceed 1.
        precision[at] = round(float(binary_average_precision(places, has, validate_args=False)), DECIMALS)
        if not has.all():
            area[at] = round(float(binary_auroc(places, has, validate_args=False)), DECIMALS)
    return ClassRanking(average_precision=precision, roc_auc=area)


def d_prime(auc: float) -> float:
    """How many standard deviations two normal distributions lie apart whose ROC curve has this area.

    >>> d_prime(0.5), round(d_prime(0.973), 3), d_prime(1.0)  # the paper's naive AudioSet network: mAUC .973
    (0.0, 2.725, inf)
    """
    return math.sqrt(2.0) * float(torch.special.ndtri(torch.tensor(auc, dtype=torch.float64)))


def ranks(scores: Scores, labels: Labels) -> Int[np.ndarray, " clips"]:
    """How many classes stand before the label: those that score higher, and equal ones of a lower index. The number of
    classes where the label's score is not finite, or any is NaN: no k is enough.

    >>> ranks(np.array([[0.2, 0.4, 0.4], [0.2, np.nan, 0.4]]), np.array([2, 2])).tolist()
    [1, 3]
    """
    classes = scores.shape[1]
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"labels must be in 0..{classes - 1}, got {labels.min()} to {labels.max()}; leave unlabelled clips out"
        )
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(classes) < labels[:, None]
    ahead = (scores > own).sum(axis=1) + ((scores == own) & earlier).sum(axis=1)
    return np.where(np.isfinite(own[:, 0]) & ~np.isnan(scores).any(axis=1), ahead, classes)


def _possible_combinations(k: int, last: Sequence[int]) -> list[tuple[int, ...]]:
    """Ranks, one a task, that can be among the first k.

    >>> _possible_combinations(3, [1, 5])
    [(0, 0), (0, 1), (0, 2), (1, 0)]
    """
    grid = itertools.product(*(range(min(k, end + 1)) for end in last))
    return [ranks for ranks in grid if math.prod(rank + 1 for rank in ranks) <= k]


def _places(scores: Float[np.ndarray, " clips"], has: Bool[np.ndarray, " clips"]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores as places in [0, 1], which torchmetrics takes as they are: its sigmoid would make close ones equal.

    A NaN stands below all others where the clip has the class and above all others where it has not, infinite scores
    included.
    """
    lost = np.isnan(scores)
    values, place = np.unique(scores[~lost], return_inverse=True)
    places = np.where(has, 0, values.size + 1)
    places[~lost] = place + 1
    return torch.from_numpy(places / (values.size + 1)), torch.from_numpy(has.astype(np.int64))


def _mean(values: Float[np.ndarray, " values"]) -> float:
    """Mean of those that are numbers; NaN when none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _require_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
