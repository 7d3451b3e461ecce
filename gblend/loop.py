"""The training loop: any network of `gblend.model`, any loss weights, some epochs. Plain torch.

A run, a single-modality baseline and a probe differ only in the network and the weights they bring. Randomness is a
function of (seed, stream, epoch), never of global state: a probe between two epochs of a run cannot change the run.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gblend import collective
from gblend.config import TrainConfig
from gblend.data import RunData, training_batches, training_loader
from gblend.inputs import to_inputs
from gblend.measure import head_mask
from gblend.model import BlendModel
from gblend.schedule import learning_rate_at

RUN_STREAM = 0
"""Random stream of main runs; a probe from epoch e uses ``1 + e``, all branches the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Epochs to train, on the schedule of the whole run."""

    start_epoch: int
    """Finished epochs when training starts."""
    epochs: int
    """How many to train."""


def make_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """A fresh optimiser for all parameters."""
    optim = config.optim
    if optim.name == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=optim.learning_rate, momentum=optim.momentum, weight_decay=optim.weight_decay
        )
    return torch.optim.AdamW(model.parameters(), lr=optim.learning_rate, weight_decay=optim.weight_decay, fused=True)


def blended_loss(
    logits: Mapping[str, Tensor],
    label: Tensor,
    masks: Mapping[str, Tensor],
    weights: Mapping[str, float],
    counts: Mapping[str, float | Tensor],
) -> Tensor:
    """L_blend = sum of w_i L_i (Eq. 7); L_i is the sum over its clips divided by ``counts``.

    Heads of weight 0 are left out, not multiplied by 0: a diverged head must not reach the others.

    >>> logits = {"rgb": torch.zeros(2, 4), "fused": torch.zeros(2, 4)}
    >>> everywhere = {name: torch.ones(2, dtype=torch.bool) for name in logits}
    >>> label, counts = torch.tensor([0, 1]), {"rgb": 2.0, "fused": 2.0}
    >>> round(float(blended_loss(logits, label, everywhere, {"rgb": 0.25, "fused": 0.5}, counts)), 4)  # 0.75 ln 4
    1.0397
    """
    total = torch.zeros((), device=label.device)
    for name, weight in weights.items():
        if weight != 0.0:
            loss = F.cross_entropy(logits[name].float(), label, reduction="none")
            total = total + weight * torch.where(masks[name], loss, 0.0).sum() / counts[name]
    return total


def train(
    model: BlendModel,
    data: RunData,
    config: TrainConfig,
    *,
    weights: Mapping[str, float],
    position: Position,
    seed: int,
    stream: int = RUN_STREAM,
    optimizer: torch.optim.Optimizer | None = None,
    after_epoch: Callable[[int, float], object] | None = None,
) -> None:
    """Train in place.

    Args:
        model: On its device, the same on every worker.
        data: What to train on.
        config: Batch size, optimiser, schedule.
        weights: Loss weight of every head of ``model``.
        position: Which epochs.
        seed: With ``stream`` and the epoch, decides batches, windows and dropout.
        stream: Keeps the randomness of runs and probes apart.
        optimizer: To go on with; none starts a fresh one.
        after_epoch: Called with the number of finished epochs and the last learning rate, on every worker.
    """
    if set(weights) != set(model.head_names):
        raise ValueError(f"weights for {sorted(weights)}, but the network's heads are {sorted(model.head_names)}")
    optimizer = make_optimizer(model, config) if optimizer is None else optimizer
    # A head of weight 0 gets no gradient, nor does an encoder on a worker whose clips all lack its modality.
    unused = config.missing == "zero" or any(weight == 0.0 for weight in weights.values())
    shared = collective.share_gradients(model, unused=unused)
    for epoch in range(position.start_epoch, position.start_epoch + position.epochs):
        entropy = (seed, stream, epoch)
        batches = training_batches(
            len(data.train),
            batch_size=config.batch_size,
            entropy=entropy,
            rank=collective.rank(),
            world=collective.world_size(),
        )
        with _seeded(model, (*entropy, collective.rank())):
            rate = _train_epoch(
                shared,
                optimizer,
                training_loader(data.train.only(model.modalities), batches, entropy),
                data=data,
                modalities=model.modalities,
                weights=weights,
                rates=[
                    learning_rate_at(config.optim, epoch + step / len(batches), config.epochs)
                    for step in range(len(batches))
                ],
            )
        collective.average_buffers(model)
        if after_epoch is not None:
            after_epoch(epoch + 1, rate)


def _train_epoch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable,
    *,
    data: RunData,
    modalities: tuple[str, ...],
    weights: Mapping[str, float],
    rates: list[float],
) -> float:
    model.train()
    device = next(model.parameters()).device
    world = collective.world_size()
    for batch, rate in zip(batches, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs = to_inputs({name: batch.arrays[name].to(device) for name in modalities}, data.spec)
        present = {name: batch.present[name].to(device) for name in modalities}
        masks = {name: head_mask(name, present) for name in weights}
        # Means over the whole batch of all workers: workers' shares may differ in size and in missing modalities.
        totals = collective.sum_over_workers(torch.stack([mask.sum() for mask in masks.values()]).float())
        counts = dict(zip(masks, (totals.clamp(min=1.0) / world).unbind(), strict=True))
        loss = blended_loss(model(inputs, present), batch.label.to(device), masks, weights, counts)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return rates[-1]


@contextmanager
def _seeded(model: torch.nn.Module, entropy: tuple[int, ...]) -> Iterator[None]:
    """Seeds the global generators of the CPU and of the model's device; afterwards they are as they were before."""
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    device = next(model.parameters()).device
    devices = [device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the other devices as well
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
