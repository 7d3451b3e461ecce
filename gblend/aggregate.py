"""Means over seeds that figures, captions and the report's tables share, so that all three tell the same numbers."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gblend.heads import branch_of, for_task, head_name, key_of, of_each_task
from gblend.runs import Run
from gblend.table import head_order, method_order

MEASURED = {"nats": "error rate", "nats per class": "1 − LRAP"}
"""What ``blend.measure accuracy`` takes in place of a loss, by the unit of the loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossCurve:
    """One head of one method over its seeds."""

    epochs: tuple[int, ...]
    """Epochs every seed has."""
    train: Float[np.ndarray, "seeds epochs"]
    """Mean loss in nats on T', the training clips that are measured."""
    heldout: Float[np.ndarray, "seeds epochs"]
    """Mean loss in nats on V, the clips held out of the training split. Of several labels a clip, nats per class."""

    @property
    def gap(self) -> float:
        """Held-out minus training loss at the last epoch, in nats, mean over seeds."""
        return float((self.heldout[:, -1] - self.train[:, -1]).mean())

    @property
    def best_epoch(self) -> int:
        """Epoch at which the mean held-out loss is lowest; the last one where no loss is finite."""
        mean = self.heldout.mean(axis=0)
        return self.epochs[-1] if np.isnan(mean).all() else self.epochs[int(np.nanargmin(mean))]

    @property
    def rise(self) -> float:
        """How far the mean held-out loss ends above its minimum, in nats."""
        mean = self.heldout.mean(axis=0)
        return math.nan if np.isnan(mean).all() else float(mean[-1] - np.nanmin(mean))


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One method's runs, as far as one task goes."""

    method: str
    """Name of the method."""
    task: str
    """Key of the task (`gblend.heads`)."""
    runs: list[Run]
    """By seed."""

    @property
    def title(self) -> str:
        """Of a figure's panel."""
        return f"{self.method}, {self.task}" if self.task else self.method

    @property
    def unit(self) -> str:
        """Of the loss."""
        return loss_unit(self.runs, self.task)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadEstimate:
    """One head in the estimates made at the same epoch of a method, over its seeds."""

    head: str
    """Its branch: a modality or ``fused``."""
    overfitting: tuple[float, ...]
    """O per seed, in the step's unit."""
    generalization: tuple[float, ...]
    """G per seed, in the step's unit."""
    weights: tuple[float, ...]
    """Per seed."""
    overfitting_se: tuple[float, ...]
    """Standard error of O per seed, by the choice of clips."""
    generalization_se: tuple[float, ...]
    """Standard error of G per seed, by the choice of clips."""

    @property
    def overfitting_error(self) -> float:
        """Standard error of the mean O: seeds share V, so it does not become smaller by their number."""
        return _root_mean_square(self.overfitting_se)

    @property
    def generalization_error(self) -> float:
        """Standard error of the mean G, likewise."""
        return _root_mean_square(self.generalization_se)

    @property
    def mean_overfitting(self) -> float:
        """Mean O."""
        return math.fsum(self.overfitting) / len(self.overfitting)

    @property
    def mean_generalization(self) -> float:
        """Mean G."""
        return math.fsum(self.generalization) / len(self.generalization)

    @property
    def mean_weight(self) -> float:
        """Mean weight."""
        return math.fsum(self.weights) / len(self.weights)

    @property
    def ogr(self) -> float:
        """|mean O / mean G|: a mean of ratios would be ruled by the seed whose G is nearest to 0."""
        return ogr(self.mean_overfitting, self.mean_generalization)

    @property
    def seed_ogr(self) -> tuple[float, ...]:
        """|O / G| per seed."""
        return tuple(ogr(o, g) for o, g in zip(self.overfitting, self.generalization, strict=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """The estimates of all seeds of a method at one epoch."""

    epoch: int
    """Finished epochs when the estimate was made."""
    end_epoch: int
    """The weights hold for epochs ``epoch + 1`` to ``end_epoch``."""
    heads: tuple[HeadEstimate, ...]
    """The fused head last."""
    reasons: tuple[str, ...]
    """What decided the weights besides the plain formula, and of which seeds; empty where nothing did."""
    unit: str
    """Of O and G: that of the loss, or what is measured in its place: error rate, of several labels 1 − LRAP."""
    warnings: tuple[str, ...]
    """Why the weights may mean little, of every estimate that says so."""


def _reasons(by_reason: Mapping[str, Sequence[int]], *, seeds: int) -> tuple[str, ...]:
    """Each reason with the seeds it holds for, unless those are all.

    >>> _reasons({"G is 0: rgb": [0, 1], "shrunk by .3": [1]}, seeds=2)
    ('G is 0: rgb', 'seed 1: shrunk by .3')
    """
    return tuple(
        reason
        if len(of) == seeds
        else f"{'seed' if len(of) == 1 else 'seeds'} {', '.join(map(str, sorted(of)))}: {reason}"
        for reason, of in by_reason.items()
    )


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in values) / len(values))


def ogr(overfitting: float, generalization: float) -> float:
    """Eq. 3; infinite where only G is 0.

    >>> ogr(0.5, 0.25), ogr(0.5, 0.0), ogr(0.0, 0.0)
    (2.0, inf, nan)
    """
    if generalization == 0:
        return math.nan if overfitting == 0 or math.isnan(overfitting) else math.inf
    return abs(overfitting / generalization)


def by_method(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs of each method, by seed, in the order in which tables and figures list methods."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.result.seed, run.name)):
        found[run.result.method].append(run)
    return {method: found[method] for method in method_order(found)}


def task_keys(runs: Iterable[Run]) -> tuple[str, ...]:
    """Keys of the tasks that the runs have heads for (`gblend.heads`)."""
    return tuple(of_each_task(head for run in runs for head in run.result.heads))


def groups(runs: Sequence[Run]) -> list[Group]:
    """Runs of each method, once for every task: what one panel of a figure is about."""
    keys = task_keys(runs)
    return [Group(method=m, task=key, runs=found) for m, found in by_method(runs).items() for key in keys]


def loss_unit(runs: Iterable[Run], task: str = "") -> str:
    """What losses of a task are in: several labels a clip have a loss per class."""
    scores = (score for run in runs for heads in run.result.scores.values() for score in for_task(heads, task).values())
    return "nats per class" if any("mAP" in score.metrics for score in scores) else "nats"


def loss_curves(runs: Sequence[Run], task: str = "") -> dict[str, LossCurve]:
    """Per branch, the curves of one method's runs on the epochs all of them have; empty without histories."""
    runs = [run for run in runs if run.history]
    if not runs:
        return {}
    records = [{record.epoch: record for record in run.history} for run in runs]
    epochs = tuple(sorted(set.intersection(*(set(found) for found in records))))
    names = set.intersection(*(set(r.train) & set(r.heldout) for found in records for r in found.values()))
    if not epochs:
        return {}

    def losses(part: str, head: str) -> np.ndarray:
        return np.array([[getattr(found[epoch], part)[head].loss_nats for epoch in epochs] for found in records], float)

    return {
        branch: LossCurve(
            epochs=epochs,
            train=losses("train", head_name(task, branch)),
            heldout=losses("heldout", head_name(task, branch)),
        )
        for branch in head_order(branch_of(name) for name in names if key_of(name) == task)
    }


def estimate_steps(runs: Sequence[Run], task: str = "") -> tuple[Step, ...]:
    """The estimates of one method's runs for one task, by epoch, each averaged over the seeds that made one there."""
    made = [estimate for run in runs for estimate in run.estimates if key_of(estimate.heads[0]) == task]
    unit = loss_unit(runs, task)
    epochs = sorted({estimate.epoch for estimate in made})
    if not epochs:
        return ()
    last = max(run.result.epochs for run in runs)
    steps = []
    for epoch, following in zip(epochs, [*epochs[1:], last], strict=True):
        here = [estimate for estimate in made if estimate.epoch == epoch]
        heads = []
        for branch in head_order(branch_of(head) for estimate in here for head in estimate.heads):
            head = head_name(task, branch)
            rows = [(estimate, estimate.heads.index(head)) for estimate in here if head in estimate.heads]
            heads.append(
                HeadEstimate(
                    head=branch,
                    overfitting=tuple(estimate.overfitting[i] for estimate, i in rows),
                    generalization=tuple(estimate.generalization[i] for estimate, i in rows),
                    weights=tuple(estimate.weights[i] for estimate, i in rows),
                    overfitting_se=tuple(estimate.overfitting_se[i] for estimate, i in rows),
                    generalization_se=tuple(estimate.generalization_se[i] for estimate, i in rows),
                )
            )
        by_reason: dict[str, list[int]] = {}
        for run in runs:
            for estimate in run.estimates:
                if estimate.reason and estimate.epoch == epoch and key_of(estimate.heads[0]) == task:
                    by_reason.setdefault(estimate.reason, []).append(run.result.seed)
        steps.append(
            Step(
                epoch=epoch,
                end_epoch=max(following, epoch),
                heads=tuple(heads),
                reasons=_reasons(by_reason, seeds=len(here)),
                unit=MEASURED[unit] if any(estimate.measure == "accuracy" for estimate in here) else unit,
                warnings=tuple(warning for estimate in here for warning in estimate.warnings),
            )
        )
    return tuple(steps)
