"""Losses as the weights need them: every clip once, eval mode, central windows, no trace left in the network.

Each worker fills in its own clips of a vector over all of them and the vectors are added, so the means are taken over
the same numbers in the same order on any number of workers, and clip-wise differences between two moments can be
paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float

from gblend import collective
from gblend.data import WindowDataset, measuring_loader
from gblend.inputs import to_inputs
from gblend.model import BlendModel
from gblend.records import FUSED, HeadScore
from schemas import FeatureSpec

MEASURE_BATCH = 16
"""Clips per forward pass; in eval mode it decides memory, not results."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadLosses:
    """One head on a set of clips, clip by clip."""

    loss_nats: Float[np.ndarray, " clips"]
    """0 where not counted."""
    correct: Bool[np.ndarray, " clips"]
    """The highest logit is the label."""
    counted: Bool[np.ndarray, " clips"]
    """False where the clip lacks what the head needs."""

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


@torch.no_grad()
def measure(
    model: BlendModel, data: WindowDataset, positions: Sequence[int] | None = None, *, spec: FeatureSpec
) -> dict[str, HeadLosses]:
    """Per head, the loss of every clip (of those at ``positions``, in that order).

    The model's training mode is restored; buffers, gradients and random state are not touched.
    """
    chosen = list(range(len(data))) if positions is None else list(positions)
    place = {position: at for at, position in enumerate(chosen)}
    device = next(model.parameters()).device
    # Per head: loss, correct, counted. Double precision adds zeros exactly.
    filled = torch.zeros(len(model.head_names), 3, len(chosen), dtype=torch.float64, device=device)
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
            label = batch.label.to(device)
            at = torch.tensor([place[int(p)] for p in batch.position], device=device)
            for head, (name, logits) in enumerate(model(inputs, present).items()):
                counted = head_mask(name, present)
                loss = F.cross_entropy(logits.float(), label, reduction="none")
                filled[head, 0, at] = torch.where(counted, loss, 0.0).double()
                filled[head, 1, at] = (counted & (logits.argmax(dim=1) == label)).double()
                filled[head, 2, at] = counted.double()
    finally:
        model.train(was_training)
    values = collective.sum_over_workers(filled).cpu().numpy()
    return {
        name: HeadLosses(loss_nats=values[head, 0], correct=values[head, 1] > 0, counted=values[head, 2] > 0)
        for head, name in enumerate(model.head_names)
    }
