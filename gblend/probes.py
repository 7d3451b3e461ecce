"""Probes (Algorithm 1): from a checkpoint, train a copy of every branch alone and measure it before and after.

The copies train side by side on the same batches, each decoded once, or one after another when memory is short. They
are independent of each other and of the run: fresh optimisers, random streams of their own, thrown away at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gblend.config import TrainConfig
from gblend.data import RunData
from gblend.estimate import ProbeLosses
from gblend.loop import Learner, Position, make_optimizer, train_together
from gblend.measure import HeadLosses, measure
from gblend.model import BlendModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A network at one moment; per head, clip by clip."""

    train: dict[str, HeadLosses]
    """On T'."""
    heldout: dict[str, HeadLosses]
    """On V."""


def measure_both(model: BlendModel, data: RunData) -> Measured:
    """Every head on T' and on V."""
    return Measured(
        train=measure(model, data.train, data.train_slice, spec=data.spec),
        heldout=measure(model, data.heldout, spec=data.spec),
    )


def probe_losses(start: Measured, end: Measured, head: str) -> ProbeLosses:
    """The two ends of one head's probe."""
    return ProbeLosses(
        start_train=start.train[head],
        start_valid=start.heldout[head],
        end_train=end.train[head],
        end_valid=end.heldout[head],
    )


def run_probes(
    model: BlendModel, data: RunData, config: TrainConfig, *, start: Measured, ahead: Position, seed: int
) -> dict[str, ProbeLosses]:
    """Probe every branch of the network, which stays as it is.

    Args:
        model: The run's network at the checkpoint.
        data: Clips; probes train on ``data.probe_part``.
        config: Of the run; its optimiser at the same place of its schedule.
        start: The network's losses at the checkpoint: a branch's are those of its head.
        ahead: Epochs of the super-epoch.
        seed: Of the run.
    """
    heads = model.head_names
    found: dict[str, ProbeLosses] = {}
    for group in [heads] if config.blend.probe_pass == "shared" else [(head,) for head in heads]:
        branches = [model.branch(head) for head in group]
        _train_alone(branches, data, config, ahead=ahead, seed=seed)
        for head, branch in zip(group, branches, strict=True):
            found[head] = probe_losses(start, measure_both(branch, data), head)
    return found


def _train_alone(
    branches: Sequence[BlendModel], data: RunData, config: TrainConfig, *, ahead: Position, seed: int
) -> None:
    learners = [
        Learner(
            model=branch,
            weights=dict.fromkeys(branch.head_names, 1.0),
            optimizer=make_optimizer(branch, config),
        )
        for branch in branches
    ]
    train_together(
        learners,
        data,
        config,
        position=ahead,
        seed=seed,
        stream=1 + ahead.start_epoch,
        part=data.probe_part,
    )
