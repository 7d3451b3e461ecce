"""One run while it trains: which loss weights when, what is recorded, what is kept, how it scores.

Here is everything in which methods differ once their network is made; epochs, batches and steps are the loop's.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from gblend.config import TrainConfig
from gblend.data import RunData
from gblend.estimate import estimate
from gblend.loop import Learner, Position, make_optimizer, train_together
from gblend.loss import LearnedWeights
from gblend.measure import measure, measure_outputs
from gblend.methods import RunSpec
from gblend.model import BlendModel
from gblend.moments import Measured, load_moments, measure_both
from gblend.outputs import HELDOUT, HeadOutputs
from gblend.predictions import score_heads, score_predictions
from gblend.probes import losses_of, run_probes
from gblend.records import FUSED, REFIT, EpochRecord, EstimateRecord, HeadScore, PredictionScores
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
    outputs: dict[str, HeadOutputs] = field(default_factory=dict)
    scores: dict[str, dict[str, HeadScore]] = field(default_factory=dict)
    predictions: PredictionScores | None = None

    def train(self) -> None:
        """All epochs, super-epoch by super-epoch; the weights are decided anew at the start of each."""
        method, blend, heads = self.spec.method, self.config.blend, self.model.head_names
        self._record(0, {}, 0.0)
        learned = None
        if method == "uncertainty":
            learned = LearnedWeights(heads, total=blend.total(len(heads))).to(next(self.model.parameters()).device)
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
        """Loss weights of the epochs ahead."""
        heads, method, blend = self.model.head_names, self.spec.method, self.config.blend
        if len(heads) == 1:
            return {heads[0]: 1.0}
        if method == "fixed":
            return dict(zip(heads, blend.fixed_weights, strict=True))
        total, first = blend.total(len(heads)), ahead.start_epoch == 0
        if method == "equal" or (method == "tracked" and first):
            return dict.fromkeys(heads, total / len(heads))
        probe_epochs = ahead.epochs
        if method == "tracked":
            probe_epochs = blend.next_epochs if self.estimates else blend.first_epochs
            moments = self.moments[ahead.start_epoch - probe_epochs : ahead.start_epoch + 1]
            probes = {head: losses_of(moments, head, blend) for head in heads}
        elif method == "offline" or (first and blend.reuse == "offline"):
            probe_epochs = self.config.epochs
            probes = {
                head: losses_of(load_moments(f"{self.needed[head]}/{LOSSES_FILE}"), head, blend) for head in heads
            }
        else:
            probes = run_probes(
                self.model, self.data, self.config, start=self.moments[-1], ahead=ahead, seed=self.spec.seed
            )
            part = 1.0 if self.data.probe_part is None else len(self.data.probe_part) / len(self.data.train)
            self.branch_epochs += len(heads) * ahead.epochs * part
        found = estimate(
            probes,
            blend,
            epoch=ahead.start_epoch,
            probe_epochs=probe_epochs,
            previous=self.estimates[-1].weights if self.estimates else (),
        )
        self.estimates.append(found)
        return {head: total * weight for head, weight in zip(heads, found.weights, strict=True)}

    def score(self) -> None:
        """Every head and every way of predicting with them, on every split."""
        splits, spec = self.data.splits, self.data.spec
        sets = {HELDOUT: self.data.heldout, **splits}
        self.outputs = {split: measure_outputs(self.model, clips, spec=spec) for split, clips in sets.items()}
        scored = {split: self.outputs[split] for split in splits}
        self.scores = {split: score_heads(outputs) for split, outputs in scored.items()}
        if len(self.model.head_names) > 1:
            self.predictions = score_predictions(self.outputs[HELDOUT], scored)
        if self.predictions is not None and self.refitted is not None:
            again = {split: measure(self.refitted, clips, spec=spec)[FUSED].score() for split, clips in splits.items()}
            ways = {split: {**found, REFIT: again[split]} for split, found in self.predictions.scores.items()}
            self.predictions = replace(self.predictions, scores=ways)

    def full_length_probe(self) -> list[Measured]:
        """The branch of a single modality or of the naive run at every moment: other runs read it. Else nothing."""
        (head, *others) = self.model.head_names
        plain = self.spec.method == "naive" or (head != FUSED and not others)
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
    """Of a run with one head, the trained epoch of highest accuracy on V; of equals that of lower loss, then the first.

    By accuracy, because methods are compared by it, and because the loss turns up long before the accuracy goes down.
    """
    trained = [record for record in history if record.epoch > 0]
    (head,) = trained[0].heldout

    def badness(record: EpochRecord) -> tuple[float, float, int]:
        score = record.heldout[head]
        loss_nats = score.loss_nats if math.isfinite(score.loss_nats) else math.inf
        return -score.accuracy, loss_nats, record.epoch

    return min(trained, key=badness).epoch
