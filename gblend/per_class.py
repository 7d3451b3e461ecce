"""What a joint network wins and loses class by class against the best single modality (the paper's Fig. 6).

Read from what finished runs said about every clip (`gblend.outputs`), on clips that both networks can answer for. Both
methods are chosen on the validation split, so that the split shown does not choose what is shown.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from gblend.outputs import load_outputs
from gblend.predictions import mean
from gblend.records import MEAN
from gblend.run_files import OUTPUTS_FILE
from gblend.runs import Run
from gblend.table import ComparisonTable, primary_head


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassGain:
    """One class."""

    name: str
    """As the data set calls it."""
    clips: int
    """Clips of the class that both networks answered for, the fewest of any seed."""
    gains: tuple[float, ...]
    """Accuracy of the joint network minus that of the single modality, per seed."""

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return math.fsum(self.gains) / len(self.gains)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassGains:
    """All classes that have clips, the largest gain first."""

    joint: str
    """The joint method of highest validation accuracy."""
    single: str
    """The best single modality's method."""
    split: str
    """Where the clips are from."""
    seeds: tuple[int, ...]
    """Seeds that both have."""
    classes: tuple[ClassGain, ...]
    """By mean gain, then by name."""


def load_gains(runs: Sequence[Run], table: ComparisonTable, class_names: Sequence[str] | None) -> ClassGains | None:
    """The gains of the best joint method; None where there is no joint method, or no single modality, to compare.

    Args:
        runs: As read by `gblend.runs`.
        table: Of the same runs.
        class_names: In the order of the labels; None: numbers.
    """
    joint = best_joint(table)
    if joint is None or table.best_single is None:
        return None
    methods = (joint, table.best_single)
    found = {method: {r.result.seed: r for r in runs if r.result.method == method} for method in methods}
    seeds = tuple(sorted(set(found[joint]) & set(found[table.best_single])))
    per_seed = []
    for seed in seeds:
        ours, theirs = (_said(found[method][seed], table.split) for method in (joint, table.best_single))
        if ours is None or theirs is None:
            return None
        per_seed.append(count_correct(ours, theirs))
    if not per_seed:
        return None
    count = np.min([counts.clips for counts in per_seed], axis=0)
    names = class_names or [f"class {label}" for label in range(len(count))]
    classes = [
        ClassGain(
            name=names[label],
            clips=int(count[label]),
            gains=tuple(float((c.joint[label] - c.single[label]) / c.clips[label]) for c in per_seed),
        )
        for label in np.flatnonzero(count > 0).tolist()
    ]
    ordered = sorted(classes, key=lambda found: (-found.mean, found.name))
    return ClassGains(joint=joint, single=table.best_single, split=table.split, seeds=seeds, classes=tuple(ordered))


def best_joint(table: ComparisonTable) -> str | None:
    """The method on all modalities whose predicting head has the highest mean accuracy on the validation split."""
    rows = [row for row in table.rows if not row.method.startswith("uni:")]
    scored = {row.method: row.val[row.primary].mean for row in rows if row.primary in row.val}
    finite = [method for method, accuracy in scored.items() if math.isfinite(accuracy)]
    return max(finite, key=scored.__getitem__, default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What one network predicts."""

    predicted: Int[np.ndarray, " clips"]
    """Class."""
    usable: Bool[np.ndarray, " clips"]
    """False where it cannot answer."""
    labels: Int[np.ndarray, " clips"]
    """Class of each clip."""
    classes: int
    """How many there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCounts:
    """Clips of every class that two networks answer for."""

    clips: Int[np.ndarray, " classes"]
    """All of them."""
    joint: Int[np.ndarray, " classes"]
    """Those that the joint network has right."""
    single: Int[np.ndarray, " classes"]
    """Those that the single modality has right."""


def count_correct(joint: Said, single: Said) -> ClassCounts:
    """Who is right how often, class by class.

    >>> labels, everywhere = np.array([0, 0, 1, 1]), np.ones(4, dtype=bool)
    >>> joint = Said(predicted=np.array([0, 0, 1, 0]), usable=everywhere, labels=labels, classes=2)
    >>> single = Said(predicted=np.array([0, 1, 1, 1]), usable=everywhere, labels=labels, classes=2)
    >>> counts = count_correct(joint, single)
    >>> counts.clips.tolist(), counts.joint.tolist(), counts.single.tolist()
    ([2, 2], [2, 1], [1, 2])
    """
    both = joint.usable & single.usable

    def counted(chosen: np.ndarray) -> np.ndarray:
        return np.bincount(joint.labels[both & chosen], minlength=joint.classes)

    return ClassCounts(
        clips=counted(np.ones_like(both)),
        joint=counted(joint.predicted == joint.labels),
        single=counted(single.predicted == single.labels),
    )


def _said(run: Run, split: str) -> Said | None:
    """What a run's primary head predicts; None where the run kept no predictions of the split."""
    try:
        outputs = load_outputs(f"{run.directory}/{OUTPUTS_FILE}").get(split)
    except ValueError:  # A run that was copied without them.
        return None
    if outputs is None:
        return None
    head, usable = primary_head(run.result.heads), outputs.usable()
    if head == MEAN:
        predicted, answered = mean(outputs.log_probs, usable).argmax(axis=1), np.asarray(usable.any(axis=0))
    else:
        at = outputs.heads.index(head)
        predicted, answered = outputs.log_probs[at].argmax(axis=1), usable[at]
    return Said(predicted=predicted, usable=answered, labels=outputs.labels, classes=outputs.log_probs.shape[2])
