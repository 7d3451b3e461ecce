"""What a joint network wins and loses class by class against the best single modality (the paper's Fig. 6).

Read from what finished runs said about every clip (`gblend.outputs`), on clips that both networks can answer for. The
joint method is the one that the page recommends (`gblend.decision`), or the best one on the validation split where that
is a single modality; so the split shown does not choose what is shown.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from gblend.decision import recommended
from gblend.metrics import rank_clips
from gblend.outputs import load_outputs
from gblend.predictions import Said, choice_of, ways
from gblend.run_files import OUTPUTS_FILE
from gblend.runs import Run
from gblend.scores import ACCURACY
from gblend.table import ComparisonTable


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassGain:
    """One class."""

    name: str
    """As the data set calls it."""
    clips: int
    """Clips of the class that both networks answered for, the fewest of any seed."""
    gains: tuple[float, ...]
    """The metric of the joint network minus that of the single modality, per seed."""

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return math.fsum(self.gains) / len(self.gains)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassGains:
    """All classes that have clips, the largest gain first."""

    joint: str
    """The joint method, as `shown_joint` says."""
    way: str
    """How its network is read."""
    single: str
    """The best single modality's method."""
    split: str
    """Where the clips are from."""
    seeds: tuple[int, ...]
    """Seeds that both have."""
    classes: tuple[ClassGain, ...]
    """By mean gain, then by name."""
    metric: Literal["accuracy", "average precision"] = "accuracy"
    """What is compared: of several labels a clip, a class has its average precision."""
    task: str = ""
    """Name of the task where there are several."""
    chosen_by: str = "accuracy"
    """What the single modality was chosen by, on the validation split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassAnswers:
    """What one network says about the clips of a split."""

    log_probs: Float[np.ndarray, "clips classes"]
    """As in `gblend.outputs`."""
    answered: Bool[np.ndarray, " clips"]
    """False where it cannot answer."""
    labels: Int[np.ndarray, " clips"] | Bool[np.ndarray, "clips classes"]
    """Class of each clip, or which classes it has."""


def load_gains(
    runs: Sequence[Run], table: ComparisonTable, class_names: Sequence[str] | None, *, joint: str | None
) -> ClassGains | None:
    """The gains of the joint method that is shown; None where there is none, no single modality, or no clip to compare
    it on.

    Args:
        runs: As read by `gblend.runs`.
        table: Of the same runs and of one task.
        class_names: In the order of the labels; None: numbers.
        joint: The joint method, as `shown_joint` says; with several tasks one for all.
    """
    if joint is None or table.best_single is None:
        return None
    methods = (joint, table.best_single)
    found = {method: {r.result.seed: r for r in runs if r.result.method == method} for method in methods}
    seeds = tuple(sorted(set(found[joint]) & set(found[table.best_single])))
    per_seed = []
    for seed in seeds:
        ours, theirs = (
            answers_of(found[method][seed], split=table.split, task=table.task) for method in (joint, table.best_single)
        )
        if ours is None or theirs is None:
            return None
        per_seed.append(compare_classes(ours, theirs))
    if not per_seed:
        return None
    count = np.min([found.clips for found in per_seed], axis=0)
    names = class_names or [f"class {label}" for label in range(len(count))]
    classes = [
        ClassGain(
            name=names[label],
            clips=int(count[label]),
            gains=tuple(float(found.gains[label]) for found in per_seed),
        )
        for label in np.flatnonzero(count > 0).tolist()
    ]
    if not classes:
        return None
    ordered = sorted(classes, key=lambda found: (-found.mean, found.name))
    return ClassGains(
        joint=joint,
        way=found[joint][seeds[0]].result.primary,
        single=table.best_single,
        split=table.split,
        seeds=seeds,
        classes=tuple(ordered),
        metric="accuracy" if table.metric == ACCURACY else "average precision",
        task=table.task,
        chosen_by=table.measure,
    )


def shown_joint(runs: Sequence[Run], table: ComparisonTable) -> str | None:
    """The method on all modalities whose answers are looked at: the one that is recommended, or where that is a single
    modality the one that predicts best on the validation split, by its mean.
    """
    method = recommended([run.result for run in runs], table)
    if method is not None and not method.startswith("uni:"):
        return method
    rows = [row for row in table.rows if not row.method.startswith("uni:")]
    scored = {row.method: row.val[row.primary].mean for row in rows if row.primary in row.val}
    finite = [method for method, value in scored.items() if math.isfinite(value)]
    return max(finite, key=scored.__getitem__, default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassDifferences:
    """Two networks on every class, over the clips that both answer for."""

    clips: Int[np.ndarray, " classes"]
    """Clips of the class."""
    gains: Float[np.ndarray, " classes"]
    """The first network's metric minus the second's; NaN without a clip."""


def compare_classes(joint: ClassAnswers, single: ClassAnswers) -> ClassDifferences:
    """Who is better by how much, class by class.

    >>> sure = np.log([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
    >>> other = np.log([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])
    >>> labels, everywhere = np.array([0, 0, 1, 1]), np.ones(4, dtype=bool)
    >>> joint, single = (ClassAnswers(log_probs=said, answered=everywhere, labels=labels) for said in (sure, other))
    >>> found = compare_classes(joint, single)
    >>> found.clips.tolist(), found.gains.tolist()
    ([2, 2], [0.5, -0.5])
    """
    both = joint.answered & single.answered
    labels = joint.labels[both]
    ours, theirs = joint.log_probs[both], single.log_probs[both]
    if labels.ndim == 2:
        gains = rank_clips(ours, labels).average_precision - rank_clips(theirs, labels).average_precision
        return ClassDifferences(clips=labels.sum(axis=0), gains=gains)
    classes = ours.shape[1]
    clips = np.bincount(labels, minlength=classes)
    right = [np.bincount(labels[said.argmax(axis=1) == labels], minlength=classes) for said in (ours, theirs)]
    with np.errstate(invalid="ignore"):
        return ClassDifferences(clips=clips, gains=(right[0] - right[1]) / clips)


def answers_of(run: Run, *, split: str, task: str = "") -> ClassAnswers | None:
    """What a run predicts by what it is judged by; None where it kept no predictions of the split."""
    try:
        outputs = load_outputs(f"{run.directory}/{OUTPUTS_FILE}", task).get(split)
    except ValueError:  # A run that was copied without them.
        return None
    if outputs is None:
        return None
    way, found = run.result.primary, run.result.predictions
    if way in outputs.heads or found is None:
        at = outputs.heads.index(way)
        said = Said(log_probs=outputs.log_probs[at], answered=np.asarray(outputs.usable()[at]))
    else:
        said = dict(ways(outputs, choice_of(found, outputs.heads, task)))[way]
    return ClassAnswers(log_probs=said.log_probs, answered=said.answered, labels=outputs.labels)
