"""Probes (Algorithm 1): from a checkpoint, train a copy of every branch alone and measure it before and after.

The copies train side by side on the same batches, each decoded once, or one after another when memory is short. They
are independent of each other and of the run: fresh optimisers, random streams of their own, thrown away at the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gblend.config import BlendConfig, TrainConfig
from gblend.data import RunData
from gblend.estimate import ProbeLosses, probe_losses
from gblend.heads import branch_of
from gblend.loop import Learner, Position, Progress, make_optimizer, train_together
from gblend.model import BlendModel
from gblend.moments import Measured, measure_both
from gblend.run_state import Lesson, State, moments_of, moments_state, part_of, within


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
    start: Measured
    """The network's losses at the checkpoint: a branch's are those of its head."""
    ahead: Position
    """Epochs of the super-epoch."""
    seed: int
    """Of the run."""
    moments: dict[str, list[Measured]] = field(default_factory=dict)
    """Per branch, what was measured after its epochs so far."""
    group: int = 0
    """Which of `groups` is next."""
    lesson: Lesson | None = None
    """That group while it trains."""

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """Branches that train side by side, one group after another."""
        names = self.model.branches
        return [names] if self.config.blend.probe_pass == "shared" else [(name,) for name in names]

    def run(
        self, *, after_step: Callable[[], object] | None = None, after_epoch: Callable[[], object] | None = None
    ) -> dict[str, ProbeLosses]:
        """Go on to the end.

        Args:
            after_step: Called after every step, on every worker.
            after_epoch: Likewise after every epoch but the very last, when `state` is that of its end.

        Returns:
            Per head, both ends of its probe.
        """
        while self.group < len(self.groups):
            self._train_group(after_step, after_epoch)
            self.lesson, self.group = None, self.group + 1
            if after_epoch is not None and self.group < len(self.groups):
                after_epoch()
        return {
            head: losses_of([self.start, *self.moments[branch_of(head)]], head, self.config.blend)
            for head in self.model.head_names
        }

    def state(self) -> State:
        """All that the rest of them depends on, besides the run's own state."""
        found: State = {"group": self.group}
        for at, branch in enumerate(self.model.branches):
            found |= within(f"moments.{at}", moments_state(self.moments.get(branch, [])))
        return found | within("lesson", {} if self.lesson is None else self.lesson.state())

    def restore(self, state: State) -> None:
        """Go back to where `state` was taken."""
        self.group = state["group"]
        for at, branch in enumerate(self.model.branches):
            self.moments[branch] = moments_of(part_of(state, f"moments.{at}"))
        training = part_of(state, "lesson")
        if training:
            self.lesson = self._first_lesson()
            self.lesson.restore(training)

    def _train_group(self, after_step: Callable[[], object] | None, after_epoch: Callable[[], object] | None) -> None:
        lesson = self.lesson = self.lesson or self._first_lesson()
        branches = dict(zip(self.groups[self.group], (learner.model for learner in lesson.learners), strict=True))

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
        """The branches of the next group before their first step."""
        branches = [self.model.branch(name) for name in self.groups[self.group]]
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
