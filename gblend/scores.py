"""Which metrics a head has, by the kind of its task; the first is the one that methods are compared by.

single label    accuracy (top-1), and top5 where there are six classes or more
several labels  mAP, mAUC, d_prime, and LRAP, which is the one that every clip has a value of its own of
several tasks   accuracy: the share of clips whose tasks are all right; and top5, by the product of the tasks'
probabilities. Where one of them has several labels: mean, of the tasks' first metrics.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from gblend.metrics import MultiLabelScore, joint_top_k_right, score_multi_label, top_k_right

ACCURACY, TOP5, MEAN_OF_TASKS = "accuracy", "top5", "mean"

CLASSES_FOR_TOP5 = 6
"""With fewer classes every answer, or all but one, is right."""

WORDS = {TOP5: "top-5 accuracy", "d_prime": "d'", MEAN_OF_TASKS: "mean metric"}
"""Metrics whose names in sentences and tables are others."""


def metric_words(name: str) -> str:
    """A metric in a sentence.

    >>> metric_words("mAP"), metric_words("top5")
    ('mAP', 'top-5 accuracy')
    """
    return WORDS.get(name, name)


def metrics_of(
    log_probs: Float[np.ndarray, "clips classes"],
    labels: Int[np.ndarray, " clips"] | Bool[np.ndarray, "clips classes"],
) -> dict[str, float]:
    """All metrics of one head's answers, NaN without a clip.

    Args:
        log_probs: Or anything else of the same order.
        labels: Class of each clip, or which classes it has.

    >>> metrics_of(np.log([[0.5, 0.5], [0.75, 0.25]]), np.array([0, 1]))
    {'accuracy': 0.5}
    """
    if labels.ndim == 2:
        return multi_label_metrics(score_multi_label(log_probs, labels))
    return _shares([log_probs], [labels])


def multi_label_metrics(found: MultiLabelScore) -> dict[str, float]:
    """Those that are reported of a multi-label task, by name."""
    return {
        "mAP": found.mean_average_precision,
        "mAUC": found.mean_auc,
        "d_prime": found.d_prime,
        "LRAP": found.label_ranking,
    }


def joint_metrics(
    log_probs: Sequence[Float[np.ndarray, "clips _"]], labels: Sequence[Int[np.ndarray, " clips"]]
) -> dict[str, float]:
    """Metrics of the answers to several tasks of a single label each, over clips that all of them have labels for.

    >>> verb, noun = np.log([[0.6, 0.4], [0.6, 0.4]]), np.log([[0.3, 0.5, 0.2], [0.3, 0.5, 0.2]])
    >>> joint_metrics([verb, noun], [np.array([0, 1]), np.array([1, 1])])
    {'accuracy': 0.5, 'top5': 1.0}
    """
    return _shares(log_probs, labels)


def _shares(log_probs: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> dict[str, float]:
    wanted = {ACCURACY: 1, TOP5: 5}
    if np.prod([said.shape[1] for said in log_probs]) < CLASSES_FOR_TOP5:
        del wanted[TOP5]
    if labels[0].size == 0:
        return dict.fromkeys(wanted, float("nan"))
    if len(labels) == 1:
        return {name: float(top_k_right(log_probs[0], labels[0], k=k).mean()) for name, k in wanted.items()}
    return {name: float(joint_top_k_right(log_probs, labels, k=k).mean()) for name, k in wanted.items()}
