"""OGM-GE: on-the-fly gradient modulation with generalisation enhancement (Peng et al., CVPR 2022), the rival.

It trains the fused head alone, and slows the encoder of a modality that is ahead of the others. How far a modality is
ahead is read from the fused prediction: s_u is the sum over the batch of the probability of the label, given modality
u. Its discrepancy ratio is s_u over the mean of the others' (the paper has two modalities), the factor of its encoder's
gradient (Eq. 10)

    k_u = 1 - tanh(alpha ratio_u)   if ratio_u > 1,   else 1

and Gaussian noise with the standard deviation of each gradient tensor is added to every encoder.

The paper splits a *linear* fused classifier by modality. Ours has hidden layers, which do not split, so s_u is what the
fused head says when the clip has only modality u: the other features are zero, as for a clip that lacks them. For a
linear head that is the paper's score but for the bias, of which each modality gets all instead of a share. It is
taken in eval mode, so that neither dropout nor BatchNorm's statistics notice. Kernels, offsets and scales are all
modulated; the authors' code leaves out all but the kernels of 2D convolutions. With several tasks s_u is the sum of the
tasks' scores. Of several labels a clip there is no such score, and the method is refused.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gblend import collective
from gblend.heads import FUSED, head_name
from gblend.model import BlendModel, eager


@torch.no_grad()
def modulate(
    model: BlendModel,
    inputs: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    *,
    alpha: float,
    generator: torch.Generator,
) -> dict[str, float]:
    """Change the encoders' gradients, after the backward pass and before the optimiser's step.

    Args:
        model: With a fused head and gradients.
        inputs: Per modality, float (batch, channels, ...).
        present: Per modality, bool (batch).
        labels: Per task key, int64 (batch); -1: unlabelled.
        alpha: Strength.
        generator: Of the noise, on the model's device; in the same state on every worker.

    Returns:
        The factor per modality.
    """
    factors = factors_of(label_scores(model, inputs, present, labels), alpha)
    for name, encoder in model.encoders.items():
        for parameter in encoder.parameters():
            if parameter.grad is not None:
                spread = parameter.grad.std(correction=0)
                noise = torch.randn(parameter.grad.shape, generator=generator, device=parameter.grad.device)
                parameter.grad.mul_(factors[name]).add_(noise * spread)
    return factors


@torch.no_grad()
def label_scores(
    model: BlendModel, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor], labels: Mapping[str, Tensor]
) -> dict[str, float]:
    """Per modality, the mean probability of the label, over the clips of all workers that have both; 0 without any.

    With several tasks it is the sum of these means.
    """
    modes = [(module, module.training) for module in model.modules()]  # Frozen parts are in eval mode already.
    model.eval()
    sums = []
    for name in model.modalities:
        alone = {other: mask if other == name else torch.zeros_like(mask) for other, mask in present.items()}
        with eager(model):
            logits = model(inputs, alone)
        for key, label in labels.items():
            mask = present[name].to(label.device) & (label >= 0)
            probability = logits[head_name(key, FUSED)].float().softmax(dim=1).gather(1, label.clamp(min=0)[:, None])
            sums.append(torch.stack([(probability[:, 0] * mask).sum(), mask.sum().float()]))
    for module, was_training in modes:
        module.training = was_training
    totals = collective.sum_over_workers(torch.stack(sums)).reshape(len(model.modalities), len(labels), 2).tolist()
    return {
        name: sum(total / max(count, 1.0) for total, count in tasks)
        for name, tasks in zip(model.modalities, totals, strict=True)
    }


def factors_of(scores: Mapping[str, float], alpha: float) -> dict[str, float]:
    """The factor of every modality's gradient from the modalities' scores.

    >>> {name: round(k, 3) for name, k in factors_of({"rgb": 0.6, "logmel": 0.3}, alpha=0.5).items()}  # 1 - tanh(1)
    {'rgb': 0.238, 'logmel': 1.0}
    """
    factors = {}
    for name, score in scores.items():
        others = [other for key, other in scores.items() if key != name]
        mean = sum(others) / len(others)
        # Equal scores, among them all 0, are no lead.
        ahead = score > mean
        ratio = score / mean if mean > 0 else float("inf")
        factors[name] = 1.0 - math.tanh(alpha * ratio) if ahead else 1.0
    return factors
