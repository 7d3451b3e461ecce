"""The training loop: any networks of `gblend.model`, any loss weights, some epochs. Plain torch.

A run, a single-modality baseline and a probe differ only in the network and the weights they bring; several networks
can train side by side on the same batches, each as if it were alone. Randomness is a function of (seed, stream, epoch),
never of global state: a probe between two epochs of a run cannot change the run. Between any two steps a training can
stop and go on elsewhere: `Progress` says where.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gblend import collective
from gblend.batches import Batch, training_batches, training_loader
from gblend.config import TrainConfig
from gblend.data import RunData
from gblend.encoders import OwnEncoder
from gblend.heads import key_of
from gblend.inputs import to_inputs
from gblend.loss import LearnedWeights, blended_loss, class_weights_by_task, labelled
from gblend.measure import head_mask
from gblend.model import BlendModel
from gblend.modulation import modulate
from gblend.randomness import Randomness, seed_of
from gblend.schedule import learning_rate_at

RUN_STREAM = 0
"""Random stream of main runs; a probe from epoch e uses ``1 + e``, all branches the same."""

ALL_RANKS = 2**32 - 1
"""Stands for the rank in the entropy of what must be the same on all workers."""

SGD_MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Epochs to train, on the schedule of the whole run."""

    start_epoch: int
    """Finished epochs when training starts."""
    epochs: int
    """How many to train."""
    stretch: float = 1.0
    """Epochs of the schedule that pass in one epoch: a training of 2 epochs goes through the schedule of 10 with 5."""

    @property
    def end_epoch(self) -> int:
        """Finished epochs when training ends."""
        return self.start_epoch + self.epochs


@dataclass(kw_only=True, slots=True)
class Progress:
    """How far a training has come: with its networks and optimisers, all that the rest of it depends on."""

    epoch: int
    """Finished epochs, counted as `Position` does."""
    step: int = 0
    """Finished steps of the epoch under way."""
    generators: list[list[Tensor]] = field(default_factory=list)
    """Per learner, where its random generators are on this worker. Empty before the first step of an epoch, and where
    another number of workers goes on: theirs begin anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """A network while it learns."""

    model: BlendModel
    """On its device, the same on every worker. A part whose parameters are all frozen also keeps its statistics."""
    weights: Mapping[str, float] | LearnedWeights
    """Loss weight of every head of ``model``."""
    optimizer: torch.optim.Optimizer
    """Of its parameters, and of learned weights."""
    ogm_alpha: float | None = None
    """Strength of the gradient modulation OGM-GE; None: gradients as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lane:
    """A learner in an epoch."""

    learner: Learner
    network: torch.nn.Module
    """Its model, sharing gradients with other workers."""
    randomness: Randomness
    noise: torch.Generator
    """Of modulated gradients; the same on all workers."""

    @classmethod
    def of(cls, learner: Learner, network: torch.nn.Module, entropy: tuple[int, ...], states: list[Tensor]) -> "_Lane":
        """Its generators as `generators` gave them, or where ``entropy`` starts them."""
        device = next(learner.model.parameters()).device
        noise = torch.Generator(device).manual_seed(seed_of((*entropy, ALL_RANKS)))
        if states:
            noise.set_state(states[0])
        own = (*entropy, collective.rank())
        randomness = Randomness(device=device, entropy=own, states=states[1:])
        return cls(learner=learner, network=network, randomness=randomness, noise=noise)

    def generators(self) -> list[Tensor]:
        """Where they are after a step."""
        return [self.noise.get_state(), *self.randomness.states]


def make_optimizer(
    model: torch.nn.Module, config: TrainConfig, learned: LearnedWeights | None = None
) -> torch.optim.Optimizer:
    """A fresh optimiser for all parameters that are not frozen; weight decay leaves learned loss weights alone."""
    optim = config.optim
    groups: list[dict] = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    if learned is not None:
        groups.append({"params": list(learned.parameters()), "weight_decay": 0.0})
    rate, decay = optim.learning_rate, optim.weight_decay
    if optim.name == "sgd":
        momentum = SGD_MOMENTUM if optim.momentum is None else optim.momentum
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, weight_decay=decay)
    if optim.name == "adagrad":
        return torch.optim.Adagrad(groups, lr=rate, weight_decay=decay)
    kind = torch.optim.AdamW if optim.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, weight_decay=decay, fused=True)


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
    """Train one network in place: `train_together` with one learner, whose optimiser is a fresh one unless given."""
    optimizer = make_optimizer(model, config) if optimizer is None else optimizer
    learner = Learner(model=model, weights=weights, optimizer=optimizer)
    train_together([learner], data, config, position=position, seed=seed, stream=stream, after_epoch=after_epoch)


def train_together(
    learners: Sequence[Learner],
    data: RunData,
    config: TrainConfig,
    *,
    position: Position,
    seed: int,
    stream: int = RUN_STREAM,
    part: Sequence[int] | None = None,
    progress: Progress | None = None,
    after_step: Callable[[], object] | None = None,
    after_epoch: Callable[[int, float], object] | None = None,
) -> None:
    """Train networks in place, all on the same batches: a clip is decoded once for all of them.

    Every learner has its own random state, seeded as if it were alone: it ends with the same parameters.

    Args:
        learners: Networks with weights and optimisers.
        data: What to train on.
        config: Batch size, schedule, training loss.
        position: Which epochs.
        seed: With ``stream`` and the epoch, decides batches, windows and dropout.
        stream: Keeps the randomness of runs and probes apart.
        part: Positions in ``data.train`` to train on; None: all.
        progress: How far it is, moved on with every step; learners are as they were then. None: at the start.
        after_step: Called after every step, on every worker, when ``progress`` and the learners agree.
        after_epoch: Called with the number of finished epochs and the last learning rate, on every worker.

    Raises:
        ValueError: Weights that are not those of the network's heads, class weights that do not fit the classes.
    """
    for learner in learners:
        _require_weights(learner)
    device = next(learners[0].model.parameters()).device
    class_weights = class_weights_by_task(config.loss, data.class_counts or {}, data.tasks, device)
    networks = [_shared(learner, config) for learner in learners]
    modalities = tuple(m for m in data.modalities if any(m in learner.model.modalities for learner in learners))
    clips = data.train.only(modalities)
    chosen = range(len(data.train)) if part is None else part
    progress = Progress(epoch=position.start_epoch) if progress is None else progress
    goes_on = (progress.epoch, progress.step) != (position.start_epoch, 0)
    while progress.epoch < position.end_epoch:
        epoch = progress.epoch
        entropy = (seed, stream, epoch)
        batches = [
            [chosen[i] for i in batch]
            for batch in training_batches(
                len(chosen),
                batch_size=config.batch_size,
                entropy=entropy,
                rank=collective.rank(),
                world=collective.world_size(),
                micro_batches=config.micro_batches,
            )
        ]
        rates = [
            learning_rate_at(config.optim, (epoch + step / len(batches)) * position.stretch, config.epochs)
            for step in range(len(batches))
        ]
        states = progress.generators or [[] for _ in learners]
        began = (*entropy, progress.step) if progress.step else entropy
        lanes = [
            _Lane.of(learner, network, began, state)
            for learner, network, state in zip(learners, networks, states, strict=True)
        ]
        for lane in lanes:
            _to_training_mode(lane)
        if goes_on and collective.world_size() > 1:
            for batch in training_loader(clips, batches[:1], entropy):
                batch = _on_device(batch, modalities, data, device)
                for lane in lanes:
                    _rehearse(lane, batch.pieces(config.micro_batches)[0], config)
        goes_on = False
        for batch in training_loader(clips, batches[progress.step :], entropy):
            masks = [_masks(learner.model, batch, device) for learner in learners]
            batch = _on_device(batch, modalities, data, device)
            for lane, mask in zip(lanes, masks, strict=True):
                with lane.randomness.in_use():
                    _step(lane, batch, mask, rates[progress.step], config=config, class_weights=class_weights)
            progress.step += 1
            progress.generators = [lane.generators() for lane in lanes]
            if after_step is not None:
                after_step()
        for learner in learners:
            collective.average_buffers(learner.model)
        progress.epoch, progress.step, progress.generators = epoch + 1, 0, []
        if after_epoch is not None:
            after_epoch(progress.epoch, rates[-1])


def _step(
    lane: _Lane,
    batch: Batch,
    masks: Mapping[str, Tensor],
    rate: float,
    *,
    config: TrainConfig,
    class_weights: Mapping[str, Tensor | None],
) -> None:
    learner, model, optimizer = lane.learner, lane.learner.model, lane.learner.optimizer
    for group in optimizer.param_groups:
        group["lr"] = rate
    counts = _counts(masks, batch.labels, class_weights)
    optimizer.zero_grad(set_to_none=True)
    pieces = batch.pieces(config.micro_batches)
    cut = {name: mask.tensor_split(len(pieces)) for name, mask in masks.items()}
    for number, piece in enumerate(pieces, start=1):
        last = number == len(pieces)
        if isinstance(learner.weights, LearnedWeights):
            weights, penalty = learner.weights()
        else:
            weights, penalty = learner.weights, 0.0
        with nullcontext() if last else collective.keep_gradients(lane.network):
            loss = (penalty if last else 0.0) + blended_loss(
                _logits(lane, piece, config),
                piece.labels,
                {name: parts[number - 1] for name, parts in cut.items()},
                weights,
                counts,
                loss=config.loss,
                class_weights=class_weights,
            )
            loss.backward()
    if isinstance(learner.weights, LearnedWeights):
        collective.average_gradients(learner.weights)
    if learner.ogm_alpha is not None:
        present = {name: batch.present[name] for name in model.modalities}
        modulate(model, batch.arrays, present, batch.labels, alpha=learner.ogm_alpha, generator=lane.noise)
    if config.optim.clip_norm is not None:
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, config.optim.clip_norm)
    optimizer.step()


def _logits(lane: _Lane, piece: Batch, config: TrainConfig) -> dict[str, Tensor]:
    """Forward pass in the precision of training."""
    model = lane.learner.model
    present = {name: piece.present[name] for name in model.modalities}
    if model.compiled:
        for name in model.modalities:
            # Sizes of batches differ by one clip: one program for all, instead of another at the second size.
            torch._dynamo.maybe_mark_dynamic(piece.arrays[name], 0)
    if config.precision == "fp32":
        return lane.network(piece.arrays, present)
    with torch.autocast(lane.randomness.device.type, dtype=torch.bfloat16):
        return lane.network(piece.arrays, present)


def _masks(model: BlendModel, batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """Per head, the labelled clips it can answer for, bool (batch), on the device.

    The batch is still on the CPU, where that is known at once: a GPU would first end all that it has to do.
    """
    present = {name: batch.present[name] for name in model.modalities}
    known = {key: labelled(label) for key, label in batch.labels.items()}
    masks = torch.stack([head_mask(name, present) & known[key_of(name)] for name in model.head_names])
    return dict(zip(model.head_names, masks.to(device, non_blocking=True).unbind(), strict=True))


def _rehearse(lane: _Lane, piece: Batch, config: TrainConfig) -> None:
    """A backward pass that leaves its trace only in what shares the network's gradients.

    DistributedDataParallel cuts gradients into buckets by the order in which its first backward pass finds them. The
    last bits of a sum over three workers or more depend on its place in a bucket, so a training that goes on must have
    such a pass behind it, as one that was never stopped has.
    """
    buffers = [(buffer, buffer.clone()) for buffer in lane.learner.model.buffers()]
    with Randomness(device=lane.randomness.device, entropy=(0,)).in_use():
        logits = _logits(lane, piece, config)
        torch.stack([values.float().sum() for values in logits.values()]).sum().backward()
    lane.learner.optimizer.zero_grad(set_to_none=True)
    for buffer, before in buffers:
        buffer.copy_(before)


def _counts(
    masks: Mapping[str, Tensor], labels: Mapping[str, Tensor], class_weights: Mapping[str, Tensor | None]
) -> dict[str, Tensor]:
    """What the clips of each head count, over the whole batch of all workers, for the mean each worker contributes to.

    Workers' shares may differ in size, in classes and in missing modalities, so a mean of means would be another one.
    Of several labels a clip counts 1: class weights are inside its loss.
    """
    each = {
        key: torch.ones(len(label), device=label.device)
        if (weights := class_weights.get(key)) is None or label.dim() == 2
        else weights[label.clamp(min=0)]
        for key, label in labels.items()
    }
    totals = collective.sum_over_workers(torch.stack([(mask * each[key_of(m)]).sum() for m, mask in masks.items()]))
    shares = torch.where(totals > 0, totals, 1.0) / collective.world_size()
    return dict(zip(masks, shares.unbind(), strict=True))


def _on_device(batch: Batch, modalities: tuple[str, ...], data: RunData, device: torch.device) -> Batch:
    """The batch with arrays as networks take them."""
    moved = replace(batch, arrays={name: batch.arrays[name] for name in modalities}).on(device)
    return replace(moved, arrays=to_inputs(moved.arrays, data.spec, enlarged=moved.enlarged))


def _require_weights(learner: Learner) -> None:
    names = learner.weights.heads if isinstance(learner.weights, LearnedWeights) else tuple(learner.weights)
    if set(names) != set(learner.model.head_names):
        raise ValueError(f"weights for {sorted(names)}, but the network's heads are {sorted(learner.model.head_names)}")


def _shared(learner: Learner, config: TrainConfig) -> torch.nn.Module:
    given = {} if isinstance(learner.weights, LearnedWeights) else learner.weights
    # No gradient goes to a head of weight 0, to an encoder on a worker whose clips all lack its modality, or perhaps to
    # some parameter of a user's network.
    own = any(isinstance(encoder, OwnEncoder) for encoder in learner.model.encoders.values())
    unused = own or config.missing == "zero" or any(weight == 0.0 for weight in given.values())
    return collective.share_gradients(learner.model, unused=unused)


def _to_training_mode(lane: _Lane) -> None:
    lane.network.train()
    for part in lane.learner.model.modules():
        trains = any(parameter.requires_grad for parameter in part.parameters())
        if not trains and next(part.parameters(), None) is not None:
            part.eval()
