"""One run while it trains: which loss weights when, what is recorded, what is kept, how it scores.

Here is everything in which methods differ once their network is made; epochs, batches and steps are the loop's. A run
can be left at any moment and gone on with by another process: `Training.stage` decides from what is done what comes
next, and `Training.state` is what is done, as plain values.
"""

import copy
import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from torch import Tensor

from gblend import collective
from gblend.best_epoch import best_epoch
from gblend.clip_dataset import WindowDataset
from gblend.config import TrainConfig
from gblend.cost import Pace
from gblend.data import RunData
from gblend.heads import FUSED, head_name, key_of
from gblend.joint import score_branches, score_tasks
from gblend.later import config_at, next_change
from gblend.loop import Learner, Position, Progress, make_optimizer, train_together
from gblend.loss import LearnedWeights
from gblend.measure import measure_outputs
from gblend.methods import RunSpec
from gblend.model import BlendModel
from gblend.moments import Measured, measure_both
from gblend.outputs import HELDOUT, HeadOutputs
from gblend.probe_task import Elsewhere
from gblend.probes import Probes
from gblend.records import (
    REFIT,
    EpochRecord,
    EstimateRecord,
    HeadScore,
    PredictionScores,
    epoch_record,
)
from gblend.refit import begin_refit, continue_refit
from gblend.run_state import Lesson, State, how_far, moments_of, moments_state, part_of, within
from gblend.state_files import StateFiles
from gblend.weights_ahead import WeightsAhead
from gblend.workload import Workload

Stage = Literal["start", "weights", "epochs", "refit", "scores"]
"""What a run does next: measure the untrained network, decide the weights of a super-epoch, train its epochs, train the
fused head anew, score."""


@dataclass(kw_only=True)
class Training:
    """One run while it trains."""

    data: RunData
    config: TrainConfig
    spec: RunSpec
    model: BlendModel
    needed: Mapping[str, str]
    fresh_head: Mapping[str, Tensor] | None = None
    """Where the fused head starts that is trained anew after the run; None: none is."""
    files: StateFiles | None = None
    """Where the run is saved as it goes; None: nowhere."""
    checkpoint_every: int = 0
    """Steps without a save, at most; 0: any number."""
    elsewhere: Elsewhere | None = None
    """Worker 0: where ``spread`` probes train."""
    decider: WeightsAhead = field(init=False)
    """Decides ``weights``."""
    workload: Workload = field(init=False)
    """What it does in all."""
    lesson: Lesson = field(init=False)
    """The network, and how far it is."""
    weights: dict[str, float] | None = None
    """Loss weights of the super-epoch under way, None until they are decided; empty when they are learned."""
    refitting: Lesson | None = None
    """The new fused head, once begun."""
    moments: list[Measured] = field(default_factory=list)
    """The network before training and after every epoch."""
    history: list[EpochRecord] = field(default_factory=list)
    workers: list[int] = field(default_factory=lambda: [collective.world_size()])
    """Sizes of the worker groups that trained it, one after another."""
    kept_epoch: int | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)
    """Parameters and buffers of ``early-stop``, after ``kept_epoch``."""
    started_s: float = field(default_factory=time.monotonic)
    """On the clock of this process; earlier by the time that a run had taken when it was saved."""
    unsaved_steps: int = 0
    pace: Pace | None = None
    """Of the worker that says where the run is; None: this one does not."""
    after_record: Callable[[EpochRecord | EstimateRecord], object] | None = None
    """Called with every record that is made, on every worker."""
    after_epoch: Callable[["Training"], object] | None = None
    """Called with this on every worker, once the end of an epoch is saved, and when a run goes on from there."""
    outputs: dict[str, dict[str, HeadOutputs]] = field(default_factory=dict)
    """Per task key (`gblend.heads`) and split, V among them."""
    scores: dict[str, dict[str, HeadScore]] = field(default_factory=dict)
    predictions: PredictionScores | None = None

    def __post_init__(self) -> None:
        method, blend = self.spec.method, self.config.blend
        learned = None
        if method == "uncertainty":
            total = blend.total(len(self.model.branches)) * len(self.model.classes)
            learned = LearnedWeights(self.model.head_names, total=total).to(next(self.model.parameters()).device)
            self.weights = {}
        learner = Learner(
            model=self.model,
            weights={} if learned is None else learned,
            optimizer=make_optimizer(self.model, self.config, learned),
            ogm_alpha=blend.ogm_alpha if method == "ogm-ge" else None,
        )
        self.lesson = Lesson(learners=[learner], progress=Progress(epoch=0))
        self.decider = WeightsAhead(
            model=self.model,
            data=self.data,
            config=self.config,
            spec=self.spec,
            needed=self.needed,
            elsewhere=self.elsewhere,
            announce=self._announce_probes,
        )
        self.workload = Workload(
            config=self.config,
            method=self.spec.method,
            branches=len(self.model.branches),
            clips=len(self.data.train),
            probe_clips=len(self.data.train if self.data.probe_part is None else self.data.probe_part),
            refit_epochs=0 if self.fresh_head is None else blend.refit_epochs,
        )

    def train(self) -> None:
        """Go on from where the run is, up to its scores."""
        done = self.lesson.progress
        if self.after_epoch is not None and done.epoch > 0 and done.step == 0 and self.refitting is None:
            self.after_epoch(self)
        while (stage := self.stage) != "scores":
            if stage == "start":
                self._record(0, {}, 0.0)
            elif stage == "weights":
                self.weights = self.weights_for(self.ahead)
                self.save()
            elif stage == "epochs":
                self._train_super_epoch(self.ahead)
            else:
                self._refit()
        if self.kept:
            self.model.load_state_dict(self.kept)

    @property
    def stage(self) -> Stage:
        """What comes next: it follows from what is done, and is decided nowhere else."""
        if not self.history:
            return "start"
        if self.lesson.progress.epoch < self.config.epochs:
            return "weights" if self.weights is None else "epochs"
        refitted_epochs = 0 if self.refitting is None else self.refitting.progress.epoch
        if self.fresh_head is not None and refitted_epochs < self.config.blend.refit_epochs:
            return "refit"
        return "scores"

    @property
    def ahead(self) -> Position:
        """The super-epoch under way or next."""
        return self.decider.super_epoch(self.lesson.progress.epoch)

    @property
    def estimates(self) -> list[EstimateRecord]:
        """Of weights, so far."""
        return self.decider.estimates

    @property
    def branch_epochs(self) -> float:
        """Training epochs of all networks so far, those of finished estimates included."""
        return self.lesson.progress.epoch + self.decider.probe_epochs

    @property
    def super_epochs_begun(self) -> int:
        """How many super-epochs it has trained in."""
        return 1 + sum(end < self.lesson.progress.epoch for end in itertools.accumulate(self.decider.lengths))

    @property
    def refitted(self) -> BlendModel | None:
        """The network with the new fused head."""
        return None if self.refitting is None else self.refitting.learners[0].model

    @property
    def records(self) -> list[EpochRecord | EstimateRecord]:
        """All there are, in the order in which they were made: estimates after the epoch they start from."""
        return sorted([*self.history, *self.estimates], key=lambda record: record.epoch)

    @property
    def title(self) -> str:
        """Of the run, in lines about it."""
        return f"{self.spec.method} seed {self.spec.seed}"

    @property
    def probes_under_way(self) -> Probes | None:
        """Those that the run waits for."""
        return self.decider.probes if self.weights is None else None

    @property
    def in_words(self) -> str:
        """Where the run is."""
        parts = [how_far(self.lesson.progress, 0, self.config.epochs)]
        if self.probes_under_way is not None:
            parts.append(self.probes_under_way.in_words)
        if self.refitting is not None:
            parts.append(f"new fused head {how_far(self.refitting.progress, 0, self.config.blend.refit_epochs)}")
        return ", ".join(parts)

    def state(self) -> State:
        """All that the rest of the run depends on, besides its settings."""
        records = {
            "history": [asdict(record) for record in self.history],
            "weights": self.weights,
            "workers": self.workers,
            "kept_epoch": self.kept_epoch,
            "seconds": time.monotonic() - self.started_s,
        }
        return {
            "records": json.dumps(records),
            "kept": self.kept,
            **within("moments", moments_state(self.moments)),
            **within("lesson", self.lesson.state()),
            **within("weights", self.decider.state()),
            **within("refit", {} if self.refitting is None else self.refitting.state()),
        }

    def restore(self, state: State) -> None:
        """Go back to where `state` was taken; this run has the same settings, and has just been made."""
        records = json.loads(state["records"])
        self.history = [epoch_record(values) for values in records["history"]]
        self.weights = records["weights"]
        self.workers = [*records["workers"], *(size for size in self.workers if size != records["workers"][-1])]
        self.kept_epoch, self.kept = records["kept_epoch"], state["kept"]
        self.started_s -= records["seconds"]
        self.moments = moments_of(part_of(state, "moments"))
        self.lesson.restore(part_of(state, "lesson"))
        self.decider.restore(part_of(state, "weights"))
        if self.spec.method == "fixed" and self.lesson.progress.step == 0:
            self.weights = None  # they may change here, which the run whose state this is did not know
        refitting = part_of(state, "refit")
        if refitting:
            self.refitting = self._first_refitting()
            self.refitting.restore(refitting)

    def save(self) -> None:
        """Save the run as it is now, where it is saved at all."""
        self.unsaved_steps = 0
        if self.files is not None:
            self.files.write(self.state(), at=self.in_words)

    def _count_step(self) -> None:
        of_this = self.workload.step_under_way(probes=self.probes_under_way, refits=self.refitting is not None)
        if self.pace is not None and self.pace.count(of_this):
            self._tell(self.pace)
        self.unsaved_steps += 1
        if self.unsaved_steps == self.checkpoint_every:
            self.save()

    def _tell(self, pace: Pace) -> None:
        left = self.steps_left()
        if pace.step is not None:
            pace.step(1.0 - left / pace.whole, f"{self.title}: {self.in_words}")
            return
        of_epoch = self.workload.steps_of_epoch
        pace.say(f"{self.title}: {self.in_words} ({of_epoch} an epoch), {pace.in_words(left)} left")

    def _announce_probes(self, ahead: Position) -> None:
        if self.pace is not None:
            self.pace.say(f"{self.title}: {self.workload.probes_in_words(ahead, self.pace)}")

    def steps_left(self) -> float:
        """Up to the end of the training, in steps of the whole network."""
        undecided_epoch = self.lesson.progress.epoch
        if undecided_epoch < self.config.epochs and self.weights is not None:
            undecided_epoch = self.ahead.end_epoch
        return self.workload.steps_left(
            self.lesson.progress,
            undecided_epoch=undecided_epoch,
            probes=self.probes_under_way,
            refitted=None if self.refitting is None else self.refitting.progress,
        )

    def _train_super_epoch(self, ahead: Position) -> None:
        (learner,) = self.lesson.learners
        if self.weights:
            learner = replace(learner, weights=self.weights)

        def after_epoch(epoch: int, rate: float) -> None:
            weights = learner.weights.values() if isinstance(learner.weights, LearnedWeights) else learner.weights
            self._record(epoch, weights, rate)
            if self.spec.method == "early-stop" and best_epoch(self.history) == epoch:
                self.kept_epoch, self.kept = epoch, copy.deepcopy(self.model.state_dict())
            if epoch == ahead.end_epoch:
                self.weights = None
            self.save()
            if self.after_epoch is not None:
                self.after_epoch(self)

        # A change of settings cuts it; the loop goes on from there, as after a stop.
        now = self.lesson.progress.epoch
        end = next_change(self.config, now, ahead.end_epoch)
        train_together(
            [learner],
            self.data,
            config_at(self.config, now),
            position=replace(ahead, epochs=end - ahead.start_epoch),
            seed=self.spec.seed,
            progress=self.lesson.progress,
            after_step=self._count_step,
            after_epoch=after_epoch,
        )

    def _refit(self) -> None:
        self.refitting = self.refitting or self._first_refitting()
        continue_refit(
            self.refitting,
            self.data,
            self.config,
            seed=self.spec.seed,
            after_step=self._count_step,
            after_epoch=lambda _epoch, _rate: self.save(),
        )

    def _first_refitting(self) -> Lesson:
        assert self.fresh_head is not None
        return begin_refit(self.model, self.config, fresh_head=self.fresh_head)

    def weights_for(self, ahead: Position) -> dict[str, float]:
        """Loss weights of the epochs ahead."""
        known = len(self.estimates)
        weights = self.decider.decide(ahead, self.moments, after_step=self._count_step, after_epoch=self.save)
        if self.after_record is not None:
            for record in self.estimates[known:]:
                self.after_record(record)
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

    def judged(self, split: str) -> HeadScore:
        """A network of several heads as it is now, by what it is judged by, with several tasks on all together."""
        way, sets = self.config.predict_by, {HELDOUT: self.data.heldout, split: self.data.splits[split]}
        if way == FUSED:
            return score_branches(self._outputs_of(self.model, {split: sets[split]}))[split][way]
        return score_tasks(self._outputs_of(self.model, sets)).scores[split][way]

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
        record = EpochRecord(
            epoch=epoch,
            train={head: losses.score() for head, losses in now.train.items()},
            heldout={head: losses.score() for head, losses in now.heldout.items()},
            weights=dict(weights),
            learning_rate=rate,
        )
        self.history.append(record)
        if self.after_record is not None:
            self.after_record(record)
