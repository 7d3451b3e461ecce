"""One run while it trains: which loss weights when, what is recorded, what is kept, how it scores.

Here is everything in which methods differ once their network is made; epochs, batches and steps are the loop's.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from gblend.config import TrainConfig
from gblend.data import RunData, WindowDataset
from gblend.estimate import estimate
from gblend.heads import FUSED, branch_of, head_name, key_of, of_each_task
from gblend.joint import score_branches, score_tasks
from gblend.loop import Learner, Position, make_optimizer, train_together
from gblend.loss import LearnedWeights
from gblend.measure import measure_outputs
from gblend.methods import RunSpec
from gblend.model import BlendModel
from gblend.moments import Measured, load_moments, measure_both
from gblend.outputs import HELDOUT, HeadOutputs
from gblend.probes import losses_of, run_probes
from gblend.records import REFIT, EpochRecord, EstimateRecord, HeadScore, PredictionScores
from gblend.run_files import LOSSES_FILE
from gblend.schedule import super_epochs


@dataclass(kw_only=True)
class Training:
    """One run while it trains."""

    data: RunData
    config: TrainConfig
    spec: RunSpec
    model: BlendModel
    needed: Mapping[str, str]
    moments: list[Measured] = field(default_factory=list)
    """The network before training and after every epoch."""
    history: list[EpochRecord] = field(default_factory=list)
    estimates: list[EstimateRecord] = field(default_factory=list)
    branch_epochs: float = 0.0
    kept_epoch: int | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)
    """Parameters and buffers of ``early-stop``, after ``kept_epoch``."""
    refitted: BlendModel | None = None
    outputs: dict[str, dict[str, HeadOutputs]] = field(default_factory=dict)
    """Per task key (`gblend.heads`) and split, V among them."""
    scores: dict[str, dict[str, HeadScore]] = field(default_factory=dict)
    predictions: PredictionScores | None = None

    def train(self) -> None:
        """All epochs, super-epoch by super-epoch; the weights are decided anew at the start of each."""
        method, blend, heads = self.spec.method, self.config.blend, self.model.head_names
        self._record(0, {}, 0.0)
        learned = None
        if method == "uncertainty":
            total = blend.total(len(self.model.branches)) * len(self.model.classes)
            learned = LearnedWeights(heads, total=total).to(next(self.model.parameters()).device)
        optimizer = make_optimizer(self.model, self.config, learned)
        lengths = [self.config.epochs]
        if method in ("online", "tracked"):
            lengths = super_epochs(self.config.epochs, blend.first_epochs, blend.next_epochs)
        done = 0
        for length in lengths:
            ahead = Position(start_epoch=done, epochs=length)
            learner = Learner(
                model=self.model,
                weights=self.weights_for(ahead) if learned is None else learned,
                optimizer=optimizer,
                ogm_alpha=blend.ogm_alpha if method == "ogm-ge" else None,
            )
            train_together(
                [learner],
                self.data,
                self.config,
                position=ahead,
                seed=self.spec.seed,
                after_epoch=lambda epoch, rate, learner=learner: self._after_epoch(epoch, learner, rate),
            )
            self.branch_epochs += length
            done += length
        if self.kept:
            self.model.load_state_dict(self.kept)

    def _after_epoch(self, epoch: int, learner: Learner, rate: float) -> None:
        weights = learner.weights.values() if isinstance(learner.weights, LearnedWeights) else learner.weights
        self._record(epoch, weights, rate)
        if self.spec.method == "early-stop" and best_epoch(self.history) == epoch:
            self.kept_epoch, self.kept = epoch, copy.deepcopy(self.model.state_dict())

    def weights_for(self, ahead: Position) -> dict[str, float]:
        """Loss weights of the epochs ahead; those of every task's heads are decided by themselves."""
        heads, method, blend = self.model.head_names, self.spec.method, self.config.blend
        branches = self.model.branches
        if len(branches) == 1:
            return dict.fromkeys(heads, 1.0)
        if method == "fixed":
            return dict(zip(heads, blend.fixed_weights, strict=True))
        total, first = blend.total(len(branches)), ahead.start_epoch == 0
        if method == "equal" or (method == "tracked" and first):
            return dict.fromkeys(heads, total / len(branches))
        probe_epochs = ahead.epochs
        if method == "tracked":
            probe_epochs = blend.next_epochs if self.estimates else blend.first_epochs
            moments = self.moments[ahead.start_epoch - probe_epochs : ahead.start_epoch + 1]
            probes = {head: losses_of(moments, head, blend) for head in heads}
        elif method == "offline" or (first and blend.reuse == "offline"):
            probe_epochs = self.config.epochs
            kept = {name: load_moments(f"{self.needed[name]}/{LOSSES_FILE}") for name in branches}
            probes = {head: losses_of(kept[branch_of(head)], head, blend) for head in heads}
        else:
            probes = run_probes(
                self.model, self.data, self.config, start=self.moments[-1], ahead=ahead, seed=self.spec.seed
            )
            part = 1.0 if self.data.probe_part is None else len(self.data.probe_part) / len(self.data.train)
            self.branch_epochs += len(branches) * ahead.epochs * part
        weights: dict[str, float] = {}
        for names in of_each_task(heads).values():
            previous = [record.weights for record in self.estimates if record.heads == names]
            found = estimate(
                {head: probes[head] for head in names},
                blend,
                epoch=ahead.start_epoch,
                probe_epochs=probe_epochs,
                previous=previous[-1] if previous else (),
            )
            self.estimates.append(found)
            weights |= {head: total * weight for head, weight in zip(names, found.weights, strict=True)}
        return weights

    def score(self) -> None:
        """Every head and every way of predicting with them, on every split."""
        self.outputs = self._outputs_of(self.model, {HELDOUT: self.data.heldout, **self.data.splits})
        self.scores = score_branches(self.outputs)
        if len(self.model.branches) > 1:
            self.predictions = score_tasks(self.outputs)
        if self.predictions is not None and self.refitted is not None:
            again = score_branches(self._outputs_of(self.refitted, self.data.splits))
            ways = {
                split: {**found, **{head_name(key_of(head), REFIT): score for head, score in again[split].items()}}
                for split, found in self.predictions.scores.items()
            }
            self.predictions = replace(self.predictions, scores=ways)

    def _outputs_of(self, model: BlendModel, sets: Mapping[str, WindowDataset]) -> dict[str, dict[str, HeadOutputs]]:
        found = {split: measure_outputs(model, clips, spec=self.data.spec) for split, clips in sets.items()}
        return {key: {split: outputs[key] for split, outputs in found.items()} for key in self.data.tasks}

    def full_length_probe(self) -> list[Measured]:
        """The branch of a single modality or of the naive run at every moment: other runs read it. Else nothing."""
        (branch, *others) = self.model.branches
        plain = self.spec.method == "naive" or (branch != FUSED and not others)
        return self.moments if plain else []

    def _record(self, epoch: int, weights: Mapping[str, float], rate: float) -> None:
        now = measure_both(self.model, self.data, self.config.loss)
        self.moments.append(now)
        self.history.append(
            EpochRecord(
                epoch=epoch,
                train={head: losses.score() for head, losses in now.train.items()},
                heldout={head: losses.score() for head, losses in now.heldout.items()},
                weights=dict(weights),
                learning_rate=rate,
            )
        )


def best_epoch(history: Sequence[EpochRecord]) -> int:
    """Of a run of one branch, the trained epoch of best metric on V; of equals that of lower loss, then the first.

    By the metric, because methods are compared by it, and because the loss turns up long before an accuracy goes down.
    With several tasks by the mean of their metrics, and the sum of their losses.
    """
    trained = [record for record in history if record.epoch > 0]

    def badness(record: EpochRecord) -> tuple[float, float, int]:
        scores = record.heldout.values()
        loss_nats = math.fsum(score.loss_nats for score in scores)
        metric = math.fsum(score.value for score in scores) / len(scores)
        return (
            -metric if math.isfinite(metric) else math.inf,
            loss_nats if math.isfinite(loss_nats) else math.inf,
            record.epoch,
        )

    return min(trained, key=badness).epoch
