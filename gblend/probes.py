"""Probes (Algorithm 1): from a checkpoint, train a copy of every branch alone and measure it before and after.

The copies train side by side on the same batches, each decoded once, or one after another when memory is short, or each
on workers of its own. They are independent of each other and of the run: fresh optimisers, random streams of their own,
thrown away at the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from gblend import collective
from gblend.config import BlendConfig, ComputeConfig, TrainConfig
from gblend.data import RunData
from gblend.estimate import ProbeLosses, probe_losses
from gblend.heads import branch_of
from gblend.loop import Learner, Position, Progress, make_optimizer, train_together
from gblend.model import BlendModel, make_model
from gblend.moments import Measured, measure_both
from gblend.prepare import prepare
from gblend.probe_task import Arrivals, Elsewhere, ProbeTask
from gblend.run_state import Lesson, State, how_far, moments_of, moments_state, part_of, within


def losses_of(moments: Sequence[Measured], head: str, config: BlendConfig) -> ProbeLosses:
    """Both ends of one head's probe from its network at every moment there is: before, and after its epochs."""
    return probe_losses([(moment.train[head], moment.heldout[head]) for moment in moments], config)


@dataclass(kw_only=True)
class Probes:
    """The probes of one estimate while they train: every branch, with its heads of all tasks together."""

    model: BlendModel
    """The run's network at the checkpoint; it stays as it is."""
    data: RunData
    """Clips; probes train on ``data.probe_part``."""
    config: TrainConfig
    """Of the run; its optimiser at the same place of its schedule."""
    ahead: Position
    """Epochs of the super-epoch."""
    seed: int
    """Of the run."""
    run_name: str = ""
    """Of the run, where probes train on workers of their own."""
    elsewhere: Elsewhere | None = None
    """Worker 0: where ``spread`` probes train."""
    moments: dict[str, list[Measured]] = field(default_factory=dict)
    """Per branch, what was measured after its epochs so far."""
    group: tuple[str, ...] = ()
    """Branches that train side by side at the moment."""
    lesson: Lesson | None = None
    """They, while they train here."""
    arrivals: Arrivals | None = None
    """Worker 0: what comes from elsewhere, once it was asked for."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Branches whose probe is not finished."""
        return tuple(name for name in self.model.branches if name in self.group or name not in self.moments)

    def begin(self) -> None:
        """Have ``spread`` probes begin elsewhere, on every worker, and do not wait; others begin with `run`."""
        if self.config.blend.probes == "spread" and not self.group and collective.rank() == 0 and self.arrivals is None:
            if self.elsewhere is None:
                raise ValueError("blend.probes spread needs workers that no one has given this run; use shared")
            self.arrivals = self.elsewhere(self.task())

    def run(
        self, *, after_step: Callable[[], object] | None = None, after_epoch: Callable[[], object] | None = None
    ) -> None:
        """Go on to the end.

        Args:
            after_step: Called after every step that is done here, on every worker.
            after_epoch: Likewise after every epoch, and when probes elsewhere have become finished, but not at the very
                end.
        """
        while self.missing:
            if self.config.blend.probes == "spread" and not self.group:
                self._collect(after_epoch)
                continue
            self.group = self.group or (self.missing if self.config.blend.probes == "shared" else self.missing[:1])
            self._train_group(after_step, after_epoch)
            self.lesson, self.group = None, ()
            if after_epoch is not None and self.missing:
                after_epoch()

    def losses(self, start: Measured) -> dict[str, ProbeLosses]:
        """Both ends of every head's finished probe.

        Args:
            start: The network at the checkpoint: a branch's losses there are those of its head.
        """
        return {
            head: losses_of([start, *self.moments[branch_of(head)]], head, self.config.blend)
            for head in self.model.head_names
        }

    def state(self) -> State:
        """All that the rest of them depends on, besides the run's own state; wherever the rest of them will train."""
        found: State = {"group": [self.model.branches.index(name) for name in self.group]}
        for at, branch in enumerate(self.model.branches):
            found |= within(f"moments.{at}", moments_state(self.moments.get(branch, [])))
        return found | within("lesson", {} if self.lesson is None else self.lesson.state())

    def restore(self, state: State) -> None:
        """Go back to where `state` was taken."""
        self.group = tuple(self.model.branches[at] for at in state["group"])
        for at, branch in enumerate(self.model.branches):
            moments = moments_of(part_of(state, f"moments.{at}"))
            if moments:
                self.moments[branch] = moments
        training = part_of(state, "lesson")
        if training:
            self.lesson = self._first_lesson()
            self.lesson.restore(training)

    def share_done(self, steps: int) -> float:
        """Of the work, from 0 to 1.

        Args:
            steps: In an epoch.
        """
        done = float(len(self.model.branches) - len(self.missing))
        if self.lesson is not None:
            progress = self.lesson.progress
            done += (
                len(self.group) * (progress.epoch - self.ahead.start_epoch + progress.step / steps) / self.ahead.epochs
            )
        return done / len(self.model.branches)

    @property
    def in_words(self) -> str:
        """How far they are."""
        if self.lesson is not None:
            return f"probes {how_far(self.lesson.progress, self.ahead.start_epoch, self.ahead.epochs)}"
        total = len(self.model.branches)
        return f"{total - len(self.missing)} of {total} probes"

    def task(self) -> ProbeTask:
        """What is missing, for workers elsewhere."""
        return ProbeTask(
            run=self.run_name,
            branches=self.missing,
            config=self.config,
            seed=self.seed,
            ahead=self.ahead,
            checkpoint={name: values.detach().cpu() for name, values in self.model.state_dict().items()},
            workers=collective.world_size(),
        )

    def _collect(self, after_epoch: Callable[[], object] | None) -> None:
        """Take what comes from elsewhere, until nothing is missing. Worker 0 asks; the others wait for its word."""
        device = next(self.model.parameters()).device
        self.begin()
        while self.missing:
            arrived = {} if self.arrivals is None else dict(self.arrivals())
            found = collective.values_of_worker_0(arrived, device=device)
            for branch, state in found.items():
                self.moments[branch] = moments_of(state)
            if after_epoch is not None and found and self.missing:
                after_epoch()

    def _train_group(self, after_step: Callable[[], object] | None, after_epoch: Callable[[], object] | None) -> None:
        lesson = self.lesson = self.lesson or self._first_lesson()
        branches = dict(zip(self.group, (learner.model for learner in lesson.learners), strict=True))

        def measure_branches(epoch: int, _rate: float) -> None:
            last = epoch == self.ahead.end_epoch
            if self.config.blend.probe_end == "best-v" or last:
                for name, branch in branches.items():
                    self.moments.setdefault(name, []).append(measure_both(branch, self.data, self.config.loss))
            if after_epoch is not None and not last:
                after_epoch()

        train_together(
            lesson.learners,
            self.data,
            self.config,
            position=self.ahead,
            seed=self.seed,
            stream=1 + self.ahead.start_epoch,
            part=self.data.probe_part,
            progress=lesson.progress,
            after_step=after_step,
            after_epoch=measure_branches,
        )

    def _first_lesson(self) -> Lesson:
        """The branches of the group before their first step."""
        branches = [self.model.branch(name) for name in self.group]
        return Lesson(
            learners=[
                Learner(
                    model=branch,
                    weights=dict.fromkeys(branch.head_names, 1.0),
                    optimizer=make_optimizer(branch, self.config),
                )
                for branch in branches
            ],
            progress=Progress(epoch=self.ahead.start_epoch),
        )


def carry_out(task: ProbeTask, branch: str, data: RunData, *, device: torch.device, compute: ComputeConfig) -> State:
    """Train one of a task's probes, on all workers of a group together; what `gblend.probe_task.Arrivals` give.

    Args:
        task: From `Probes.task`.
        branch: One of ``task.branches``.
        data: As ``task.config`` opens it.
        device: Where this worker computes.
        compute: How.
    """
    config = replace(task.config, blend=replace(task.config.blend, probes="shared"))
    model = make_model(data.modalities, data.classes, config.model, seed=task.seed, shapes=data.shapes)
    prepare(model, config, compute)
    model.load_state_dict(task.checkpoint)
    alone = model.branch(branch).to(device)
    probes = Probes(model=alone, data=data, config=config, ahead=task.ahead, seed=task.seed)
    probes.run()
    return moments_state(probes.moments[branch])
