"""Which classes are taken for which others, by what predicts: rows are what clips are, columns what they are called.

Read from what finished runs said about every clip (`gblend.outputs`): those of the method that is recommended,
which the validation split has chosen and not the split shown. Seeds are added up. Of hundreds of classes those with the
largest confusions are shown and the others become one column.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from gblend.per_class import answers_of
from gblend.runs import Run
from gblend.table import ComparisonTable

MOST_CLASSES = 20
"""More are not shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """What one method calls the clips of a split."""

    method: str
    """Its name."""
    way: str
    """The head, or the way of predicting, that the method is judged by."""
    split: str
    """Where the clips are from."""
    seeds: tuple[int, ...]
    """Of the runs that were added up."""
    names: tuple[str, ...]
    """Of the classes."""
    counts: Int[np.ndarray, "classes classes"]
    """Clips by class and by what they were called, all seeds together."""
    task: str = ""
    """Name of the task where there are several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """One class taken for another."""

    truth: int
    """What the clips are."""
    said: int
    """What they were called."""
    clips: int
    """How many."""
    of: int
    """Clips of the class, right or wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownClasses:
    """The part of a confusion matrix that is drawn."""

    classes: tuple[int, ...]
    """Rows, and columns, in the order of the labels."""
    shares: Float[np.ndarray, "rows columns"]
    """Of the clips of each row's class; where classes are left out, all that were called one of these in a last column.
    NaN in the row of a class without a clip."""


def load_confusion(
    runs: Sequence[Run], table: ComparisonTable, class_names: Sequence[str] | None, *, method: str | None
) -> Confusion | None:
    """That of what predicts; None where a clip has several labels, or no predictions were kept.

    Args:
        runs: As read by `gblend.runs`.
        table: Of the same runs and of one task.
        class_names: In the order of the labels; None: numbers.
        method: Whose, as `gblend.decision.recommended` says; with several tasks one for all.
    """
    row = None if method is None else table.row(method)
    chosen = [run for run in runs if run.result.method == method]
    counts = None
    for run in chosen:
        answers = answers_of(run, split=table.split, task=table.task)
        if answers is None or answers.labels.ndim == 2:
            return None
        found = count_pairs(answers.log_probs, answers.labels, answers.answered)
        counts = found if counts is None else counts + found
    if counts is None or row is None or counts.sum() == 0:
        return None
    return Confusion(
        method=row.method,
        way=row.primary,
        split=table.split,
        seeds=tuple(sorted(run.result.seed for run in chosen)),
        names=tuple(class_names or (f"class {label}" for label in range(len(counts)))),
        counts=counts,
        task=table.task,
    )


def count_pairs(
    log_probs: Float[np.ndarray, "clips classes"],
    labels: Int[np.ndarray, " clips"],
    answered: Bool[np.ndarray, " clips"],
) -> Int[np.ndarray, "classes classes"]:
    """Clips by class (rows) and most likely class (columns), of those that were answered.

    >>> said = np.log([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    >>> count_pairs(said, np.array([0, 0, 1]), np.array([True, True, True])).tolist()
    [[1, 1], [1, 0]]
    """
    classes = log_probs.shape[1]
    pairs = labels[answered] * classes + log_probs[answered].argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def mistakes(counts: Int[np.ndarray, "classes classes"]) -> list[Mistake]:
    """Every class taken for another, the most clips first; of as many, the larger share of the class.

    >>> [(m.truth, m.said, m.clips, m.of) for m in mistakes(np.array([[5, 1, 2], [0, 4, 0], [1, 0, 1]]))]
    [(0, 2, 2, 8), (2, 0, 1, 2), (0, 1, 1, 8)]
    """
    of = counts.sum(axis=1)
    found = [
        Mistake(truth=truth, said=said, clips=int(counts[truth, said]), of=int(of[truth]))
        for truth, said in np.argwhere(counts).tolist()
        if truth != said
    ]
    return sorted(found, key=lambda each: (-each.clips, each.of, each.truth, each.said))


def shown_classes(counts: Int[np.ndarray, "classes classes"], *, most: int = MOST_CLASSES) -> ShownClasses:
    """All classes that have clips or, of more than ``most``, those of the largest mistakes.

    >>> shown = shown_classes(np.array([[5, 1, 2], [0, 4, 0], [1, 0, 1]]), most=2)
    >>> shown.classes, shown.shares.tolist()
    ((0, 2), [[0.625, 0.25, 0.125], [0.5, 0.5, 0.0]])
    """
    seen = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1)).tolist()
    kept = set(seen)
    if len(seen) > most:
        kept = set()
        for each in mistakes(counts):
            if len(kept | {each.truth, each.said}) <= most:
                kept |= {each.truth, each.said}
    classes = sorted(kept)
    rows = counts[classes]
    columns = rows[:, classes]
    if len(seen) > most:
        columns = np.column_stack([columns, rows.sum(axis=1) - columns.sum(axis=1)])
    with np.errstate(invalid="ignore"):
        shares = columns / rows.sum(axis=1, keepdims=True)
    return ShownClasses(classes=tuple(classes), shares=shares)
