"""Probes (Algorithm 1): from a checkpoint, train a copy of every branch alone and measure it before and after.

The copies train side by side on the same batches, each decoded once, or one after another when memory is short. They
are independent of each other and of the run: fresh optimisers, random streams of their own, thrown away at the end.
"""

from collections.abc import Mapping, Sequence

from gblend.config import BlendConfig, TrainConfig
from gblend.data import RunData
from gblend.estimate import ProbeLosses, probe_losses
from gblend.loop import Learner, Position, make_optimizer, train_together
from gblend.model import BlendModel
from gblend.moments import Measured, measure_both


def losses_of(moments: Sequence[Measured], head: str, config: BlendConfig) -> ProbeLosses:
    """Both ends of one head's probe from its network at every moment there is: before, and after its epochs."""
    return probe_losses([(moment.train[head], moment.heldout[head]) for moment in moments], config)


def run_probes(
    model: BlendModel, data: RunData, config: TrainConfig, *, start: Measured, ahead: Position, seed: int
) -> dict[str, ProbeLosses]:
    """Probe every branch of the network, which stays as it is; a branch trains its heads of all tasks together.

    Args:
        model: The run's network at the checkpoint.
        data: Clips; probes train on ``data.probe_part``.
        config: Of the run; its optimiser at the same place of its schedule.
        start: The network's losses at the checkpoint: a branch's are those of its head.
        ahead: Epochs of the super-epoch.
        seed: Of the run.
    """
    names = model.branches
    found: dict[str, ProbeLosses] = {}
    for group in [names] if config.blend.probe_pass == "shared" else [(name,) for name in names]:
        branches = {name: model.branch(name) for name in group}
        moments = {name: [start] for name in group}

        def after_epoch(epoch: int, _rate: float, branches: Mapping = branches, moments: Mapping = moments) -> None:
            if config.blend.probe_end == "best-v" or epoch == ahead.start_epoch + ahead.epochs:
                for name, branch in branches.items():
                    moments[name].append(measure_both(branch, data, config.loss))

        train_together(
            [
                Learner(
                    model=branch,
                    weights=dict.fromkeys(branch.head_names, 1.0),
                    optimizer=make_optimizer(branch, config),
                )
                for branch in branches.values()
            ],
            data,
            config,
            position=ahead,
            seed=seed,
            stream=1 + ahead.start_epoch,
            part=data.probe_part,
            after_epoch=after_epoch,
        )
        for name, branch in branches.items():
            found |= {head: losses_of(moments[name], head, config.blend) for head in branch.head_names}
    return {head: found[head] for head in model.head_names}
