"""Means over seeds that figures, captions and the report's tables share, so that all three tell the same numbers."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gblend.runs import Run
from gblend.table import head_order, method_order


@dataclass(frozen=True, kw_only=True, slots=True)
class LossCurve:
    """One head of one method over its seeds."""

    epochs: tuple[int, ...]
    """Epochs every seed has."""
    train: Float[np.ndarray, "seeds epochs"]
    """Mean loss in nats on T', the training clips that are measured."""
    heldout: Float[np.ndarray, "seeds epochs"]
    """Mean loss in nats on V, the clips held out of the training split."""

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
class HeadEstimate:
    """One head in the estimates made at the same epoch of a method, over its seeds."""

    head: str
    """Modality or ``fused``."""
    overfitting: tuple[float, ...]
    """O per seed, in the step's unit."""
    generalization: tuple[float, ...]
    """G per seed, in the step's unit."""
    weights: tuple[float, ...]
    """Per seed."""

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
    """What decided the weights besides the plain formula; empty where nothing did."""
    unit: str
    """Of O and G: nats, or error rate where accuracy is measured."""
    warnings: tuple[str, ...]
    """Why the weights may mean little, of every estimate that says so."""


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


def loss_curves(runs: Sequence[Run]) -> dict[str, LossCurve]:
    """Per head, the curves of one method's runs on the epochs all of them have; empty without histories."""
    runs = [run for run in runs if run.history]
    if not runs:
        return {}
    records = [{record.epoch: record for record in run.history} for run in runs]
    epochs = tuple(sorted(set.intersection(*(set(found) for found in records))))
    heads = head_order(set.intersection(*(set(r.train) & set(r.heldout) for found in records for r in found.values())))
    if not epochs:
        return {}
    return {
        head: LossCurve(
            epochs=epochs,
            train=np.array([[found[epoch].train[head].loss_nats for epoch in epochs] for found in records], float),
            heldout=np.array([[found[epoch].heldout[head].loss_nats for epoch in epochs] for found in records], float),
        )
        for head in heads
    }


def estimate_steps(runs: Sequence[Run]) -> tuple[Step, ...]:
    """The estimates of one method's runs, by epoch, each averaged over the seeds that made one there."""
    epochs = sorted({estimate.epoch for run in runs for estimate in run.estimates})
    if not epochs:
        return ()
    last = max(run.result.epochs for run in runs)
    steps = []
    for epoch, following in zip(epochs, [*epochs[1:], last], strict=True):
        here = [estimate for run in runs for estimate in run.estimates if estimate.epoch == epoch]
        heads = []
        for head in head_order(head for estimate in here for head in estimate.heads):
            rows = [(estimate, estimate.heads.index(head)) for estimate in here if head in estimate.heads]
            heads.append(
                HeadEstimate(
                    head=head,
                    overfitting=tuple(estimate.overfitting[i] for estimate, i in rows),
                    generalization=tuple(estimate.generalization[i] for estimate, i in rows),
                    weights=tuple(estimate.weights[i] for estimate, i in rows),
                )
            )
        reasons = tuple(dict.fromkeys(estimate.reason for estimate in here if estimate.reason))
        steps.append(
            Step(
                epoch=epoch,
                end_epoch=max(following, epoch),
                heads=tuple(heads),
                reasons=reasons,
                unit="error rate" if any(estimate.measure == "accuracy" for estimate in here) else "nats",
                warnings=tuple(warning for estimate in here for warning in estimate.warnings),
            )
        )
    return tuple(steps)
