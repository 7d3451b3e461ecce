"""What a run has still to do, in steps of the whole network (`gblend.cost`), and what is said of it while it trains.

Probes that train elsewhere cost the run no steps; what waiting for them takes is in its pace.
"""

from dataclasses import dataclass

from gblend.batches import steps_of_epoch
from gblend.config import TrainConfig
from gblend.cost import PROBES_STEP, REFIT_STEP, Pace, probed_epochs
from gblend.loop import Position, Progress
from gblend.probes import Probes


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """All that one run does until it is scored."""

    config: TrainConfig
    """Of the run."""
    method: str
    """Of the run."""
    branches: int
    """Of its network."""
    clips: int
    """That it trains on."""
    probe_clips: int
    """That its probes train on."""
    refit_epochs: int
    """Of the fused head that is trained anew afterwards; 0: none is."""

    @property
    def steps_of_epoch(self) -> int:
        """Of the run, and of the head that is trained anew."""
        return steps_of_epoch(self.clips, self.config.batch_size)

    @property
    def steps_of_probe_epoch(self) -> int:
        """Of each probe."""
        return steps_of_epoch(self.probe_clips, self.config.batch_size)

    def step_under_way(self, *, probes: Probes | None, refits: bool) -> float:
        """What the step under way counts.

        Args:
            probes: Those that the run waits for.
            refits: Whether the new fused head trains.
        """
        if probes is not None:
            return PROBES_STEP * len(probes.group) / self.branches
        return REFIT_STEP if refits else 1.0

    def steps_left(
        self, done: Progress, *, undecided_epoch: int, probes: Probes | None, refitted: Progress | None
    ) -> float:
        """Up to the end of the training.

        Args:
            done: Of the run.
            undecided_epoch: First epoch whose loss weights are not decided.
            probes: Those that the run waits for.
            refitted: Of the new fused head; None: not begun.
        """
        left = float((self.config.epochs - done.epoch) * self.steps_of_epoch - done.step)
        if left > 0 and self.config.blend.probes != "spread":
            epochs = float(probed_epochs(self.method, self.config, start_epoch=undecided_epoch))
            if probes is not None:
                epochs -= probes.ahead.epochs * probes.share_done(self.steps_of_probe_epoch)
            left += PROBES_STEP * self.steps_of_probe_epoch * epochs
        if self.refit_epochs > 0:
            of_refit = refitted or Progress(epoch=0)
            left += REFIT_STEP * ((self.refit_epochs - of_refit.epoch) * self.steps_of_epoch - of_refit.step)
        return left

    def probes_in_words(self, ahead: Position, pace: Pace) -> str:
        """What probes will cost, before they begin."""
        epochs = self.branches * ahead.epochs * self.probe_clips / self.clips
        steps = PROBES_STEP * ahead.epochs * self.steps_of_probe_epoch
        spread = self.config.blend.probes == "spread"
        return (
            f"probes epochs {ahead.start_epoch + 1} to {ahead.end_epoch} for weights: {self.branches} branches, "
            f"{epochs:.3g} branch-epochs, {'on workers of their own' if spread else pace.in_words(steps)}"
        )
