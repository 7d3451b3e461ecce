"""Losses as the weights need them: every clip once, eval mode, central windows, no trace left in the network.

Each worker fills in its own clips of a vector over all of them and the vectors are added, so the means are taken over
the same numbers in the same order on any number of workers, and clip-wise differences between two moments can be
paired.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from gblend import collective
from gblend.data import WindowDataset, measuring_loader
from gblend.inputs import to_inputs
from gblend.loss import clip_losses
from gblend.model import BlendModel
from gblend.outputs import HeadOutputs
from gblend.records import FUSED, HeadScore
from schemas import FeatureSpec

MEASURE_BATCH = 16
"""Clips per forward pass; in eval mode it decides memory, not results."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadLosses:
    """One head on a set of clips, clip by clip."""

    loss_nats: Float[np.ndarray, " clips"]
    """0 where not counted; of a user's own loss, in its own unit."""
    correct: Bool[np.ndarray, " clips"]
    """The highest logit is the label, and the loss is finite."""
    counted: Bool[np.ndarray, " clips"]
    """False where the clip lacks what the head needs."""

    def per_clip(self, measure: Literal["loss", "accuracy"]) -> Float[np.ndarray, " clips"]:
        """What O and G are computed from: the loss, or 1 for a wrong and 0 for a right answer.

        A clip whose loss is not finite has no error rate either: a network that answers NaN is not half right.
        """
        if measure == "loss":
            return self.loss_nats
        wrong = (self.counted & ~self.correct).astype(np.float64)
        return np.where(np.isfinite(self.loss_nats), wrong, np.nan)

    def mean(self, measure: Literal["loss", "accuracy"]) -> float:
        """Mean of `per_clip` over the counted clips; NaN when there are none."""
        return float(self.per_clip(measure)[self.counted].mean()) if self.counted.any() else float("nan")

    def score(self) -> HeadScore:
        """Mean over the counted clips; NaN when there are none.

        >>> losses = HeadLosses(
        ...     loss_nats=np.array([1.0, 0.0, 3.0]), correct=np.array([True, False, False]),
        ...     counted=np.array([True, False, True]))
        >>> losses.score()
        HeadScore(loss_nats=2.0, accuracy=0.5, count=2)
        """
        count = int(self.counted.sum())
        if count == 0:
            return HeadScore(loss_nats=float("nan"), accuracy=float("nan"), count=0)
        return HeadScore(
            loss_nats=float(self.loss_nats[self.counted].mean()),
            accuracy=float(self.correct[self.counted].mean()),
            count=count,
        )


def head_mask(head: str, present: dict[str, torch.Tensor]) -> torch.Tensor:
    """Clips a head can answer for: its own modality is there; for the fused head, any is."""
    if head == FUSED:
        return torch.stack(list(present.values())).any(dim=0)
    return present[head]


def measure(
    model: BlendModel,
    data: WindowDataset,
    positions: Sequence[int] | None = None,
    *,
    spec: FeatureSpec,
    own_loss: str | None = None,
) -> dict[str, HeadLosses]:
    """Per head, the loss of every clip (of those at ``positions``, in that order).

    It is plain cross-entropy, or ``own_loss``, the user's ``module:callable``, as in training.
    The model's training mode is restored; buffers, gradients and random state are not touched.
    """
    chosen = list(range(len(data))) if positions is None else list(positions)
    device = next(model.parameters()).device
    # Per head: loss, correct, counted. Double precision adds zeros exactly.
    filled = torch.zeros(len(model.head_names), 3, len(chosen), dtype=torch.float64, device=device)
    for part in _parts(model, data, chosen, spec):
        for head, name in enumerate(model.head_names):
            log_probs, counted = part.log_probs[name], part.counted[name]
            loss = clip_losses(part.logits[name], part.label, own=own_loss)
            correct = (log_probs.argmax(dim=1) == part.label) & loss.isfinite()
            filled[head, 0, part.at] = torch.where(counted, loss, 0.0).double()
            filled[head, 1, part.at] = (counted & correct).double()
            filled[head, 2, part.at] = counted.double()
    values = collective.sum_over_workers(filled).cpu().numpy()
    return {
        name: HeadLosses(loss_nats=values[head, 0], correct=values[head, 1] > 0, counted=values[head, 2] > 0)
        for head, name in enumerate(model.head_names)
    }


def measure_outputs(
    model: BlendModel, data: WindowDataset, positions: Sequence[int] | None = None, *, spec: FeatureSpec
) -> HeadOutputs:
    """What every head says about every clip, for predictions that join heads; touches as little as `measure` does.

    Holds 4 bytes per head, clip and class on every worker, and on the device those of one head at a time.
    """
    chosen = list(range(len(data))) if positions is None else list(positions)
    device = next(model.parameters()).device
    # Made before the first batch: this worker may have no clip at all.
    log_probs = {name: torch.zeros(len(chosen), model.classes) for name in model.head_names}
    # Labels, then whether each head counts the clip.
    about = torch.zeros(1 + len(model.head_names), len(chosen), dtype=torch.int64)
    for part in _parts(model, data, chosen, spec):
        at = part.at.cpu()
        about[0, at] = part.label.cpu()
        for head, name in enumerate(model.head_names):
            values, counted = part.log_probs[name], part.counted[name]
            log_probs[name][at] = torch.where(counted[:, None], values, 0.0).cpu()
            about[1 + head, at] = counted.long().cpu()
    about = collective.sum_over_workers(about.to(device)).cpu().numpy()
    return HeadOutputs(
        heads=model.head_names,
        log_probs=np.stack(
            [collective.sum_over_workers(log_probs[name].to(device)).cpu().numpy() for name in model.head_names]
        ),
        counted=about[1:] > 0,
        labels=about[0],
        positions=np.array(chosen, dtype=np.int64),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """A batch as the network answered it, on its device."""

    at: Tensor  # int64 (batch): place among the chosen clips
    label: Tensor  # int64 (batch)
    logits: dict[str, Tensor]  # per head, float (batch, classes)
    log_probs: dict[str, Tensor]  # per head, float32 (batch, classes)
    counted: dict[str, Tensor]  # per head, bool (batch)


def _parts(model: BlendModel, data: WindowDataset, chosen: list[int], spec: FeatureSpec) -> Iterator[_Part]:
    """This worker's share of the chosen clips, in eval mode and without gradients; the mode is restored at the end."""
    place = {position: at for at, position in enumerate(chosen)}
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        for batch in measuring_loader(
            data.only(model.modalities),
            chosen,
            batch_size=MEASURE_BATCH,
            rank=collective.rank(),
            world=collective.world_size(),
        ):
            inputs = to_inputs({name: batch.arrays[name].to(device) for name in model.modalities}, spec)
            present = {name: batch.present[name].to(device) for name in model.modalities}
            with torch.no_grad():
                logits = model(inputs, present)
            yield _Part(
                at=torch.tensor([place[int(p)] for p in batch.position], device=device),
                label=batch.label.to(device),
                logits=logits,
                log_probs={name: F.log_softmax(values.float(), dim=1) for name, values in logits.items()},
                counted={name: head_mask(name, present) for name in logits},
            )
    finally:
        model.train(was_training)
