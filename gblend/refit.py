"""A new fused head on the run's frozen trunks (paper, Fig. 5b): what the features are worth, whatever trained them.

A fused head that had little weight in the blend is undertrained however good its features are. All below it is frozen,
BatchNorm statistics included, and the run itself is not touched. The training is short and goes through the run's whole
learning-rate schedule.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from gblend.config import TrainConfig
from gblend.data import RunData
from gblend.heads import FUSED
from gblend.loop import Learner, Position, Progress, make_optimizer, train_together
from gblend.model import BlendModel
from gblend.run_state import Lesson


def refit(
    model: BlendModel,
    data: RunData,
    config: TrainConfig,
    *,
    fresh_head: Mapping[str, Tensor],
    seed: int,
) -> BlendModel:
    """The branch of the fused head, the head trained from scratch for ``blend.refit_epochs``.

    Args:
        model: The trained network.
        data: What to train on: T, as the run did.
        config: Of the run.
        fresh_head: Parameters the fused head starts from, those the run started from.
        seed: Of the run.
    """
    lesson = begin_refit(model, config, fresh_head=fresh_head)
    continue_refit(lesson, data, config, seed=seed)
    return lesson.learners[0].model


def begin_refit(model: BlendModel, config: TrainConfig, *, fresh_head: Mapping[str, Tensor]) -> Lesson:
    """The new head before its first step; arguments as those of `refit`."""
    branch = model.branch(FUSED)
    branch.requires_grad_(False)
    branch.heads.requires_grad_(True)
    branch.heads[FUSED].load_state_dict(fresh_head)
    weights = dict.fromkeys(branch.head_names, 1.0)
    learner = Learner(model=branch, weights=weights, optimizer=make_optimizer(branch, config))
    return Lesson(learners=[learner], progress=Progress(epoch=0))


def continue_refit(
    lesson: Lesson,
    data: RunData,
    config: TrainConfig,
    *,
    seed: int,
    after_step: Callable[[], object] | None = None,
    after_epoch: Callable[[int, float], object] | None = None,
) -> None:
    """Train what is left of it; arguments as those of `refit` and of `gblend.loop.train_together`."""
    epochs = config.blend.refit_epochs
    train_together(
        lesson.learners,
        data,
        config,
        position=Position(start_epoch=0, epochs=epochs, stretch=config.epochs / epochs),
        seed=seed,
        stream=1 + config.epochs,  # no probe starts where the run ends
        progress=lesson.progress,
        after_step=after_step,
        after_epoch=after_epoch,
    )
