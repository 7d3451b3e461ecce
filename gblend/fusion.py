"""Where modalities meet: each fusion maps the list of their features to one tensor and states its ``output_dim``.

    concat    vectors end to end (the paper's late concat)
    se-gate   the concatenation, each channel scaled by a gate that sees all of them (Hu et al., CVPR 2018)
    nl-gate   the concatenation, each modality having attended to all of them (Wang et al., CVPR 2018)
    lmf       a low-rank form of their outer product (Liu et al., ACL 2018)
    mid       maps side by side, then the remaining stages of a visual trunk (after Owens and Efros, ECCV 2018)

The paper compares them all (Fig. 1, Table 4) and describes none of them: layer, sizes and alignment are ours and are
said below. Vectors of k >= 2 modalities may differ in length. A modality that a clip lacks arrives as zeros.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gblend.config import ModelConfig


class Concat(nn.Module):
    """Vectors end to end."""

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.output_dim = sum(dims)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Per modality (batch, dim) to (batch, sum of dims)."""
        return torch.cat(list(features), dim=1)


class SqueezeGate(nn.Module):
    """Squeeze-and-excitation on the concatenation: z * sigmoid(W2 relu(W1 z)), W1 ``reduction`` times narrower.

    Open in the paper: where it sits. Ours is at the trunks' ends, whose pooling is the squeeze; so one modality opens
    and closes channels of another.
    """

    def __init__(self, dims: Sequence[int], *, reduction: int) -> None:
        super().__init__()
        self.output_dim = sum(dims)
        hidden = max(1, self.output_dim // reduction)
        self.excite = nn.Sequential(
            nn.Linear(self.output_dim, hidden), nn.ReLU(), nn.Linear(hidden, self.output_dim), nn.Sigmoid()
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Per modality (batch, dim) to (batch, sum of dims)."""
        joined = torch.cat(list(features), dim=1)
        return joined * self.excite(joined)


class NonLocalGate(nn.Module):
    """A non-local block whose positions are the modalities: x_i + W_i sum over j of softmax_j(q_i . k_j) v_j.

    Open in the paper: the layer and what the positions are. Ours is at the trunks' ends; queries, keys and values are
    linear, one set a modality since lengths differ, in a space ``reduction`` times narrower than the longest vector;
    dot products are divided by the root of its width. Nothing has a bias, so an absent modality adds nothing. W begins
    at zero: before training this is the concatenation.
    """

    def __init__(self, dims: Sequence[int], *, reduction: int) -> None:
        super().__init__()
        self.output_dim = sum(dims)
        self._width = max(1, max(dims) // reduction)
        self.query, self.key, self.value = (
            nn.ModuleList(nn.Linear(dim, self._width, bias=False) for dim in dims) for _ in range(3)
        )
        self.out = nn.ModuleList(nn.Linear(self._width, dim, bias=False) for dim in dims)
        for layer in self.out:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Per modality (batch, dim) to (batch, sum of dims)."""
        q, k, v = (
            torch.stack([layer(x) for layer, x in zip(layers, features, strict=True)], dim=1)
            for layers in (self.query, self.key, self.value)
        )  # each (batch, modalities, width)
        attended = torch.softmax(q @ k.transpose(1, 2) / self._width**0.5, dim=2) @ v
        added = [layer(attended[:, i]) for i, layer in enumerate(self.out)]
        return torch.cat([x + y for x, y in zip(features, added, strict=True)], dim=1)


class LowRank(nn.Module):
    """Low-rank multimodal fusion: sum over r of the product over modalities of W_m^r [x_m; 1], plus a bias.

    It equals a full weight tensor of rank ``rank`` applied to the outer product of all [x_m; 1], which holds every
    product of one feature of each of any subset of modalities. Weights begin normal, with the variance at which the sum
    has variance one for features of variance one.
    """

    def __init__(self, dims: Sequence[int], *, output_dim: int, rank: int) -> None:
        super().__init__()
        self.output_dim = output_dim
        self.factors = nn.ParameterList(nn.Parameter(torch.empty(rank, dim + 1, output_dim)) for dim in dims)
        self.bias = nn.Parameter(torch.zeros(output_dim))
        for dim, factor in zip(dims, self.factors, strict=True):
            nn.init.normal_(factor, std=(dim + 1) ** -0.5 * rank ** (-0.5 / len(dims)))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Per modality (batch, dim) to (batch, output_dim)."""
        product: Tensor | None = None
        for x, factor in zip(features, self.factors, strict=True):
            term = torch.einsum("bi,rio->bro", F.pad(x, (0, 1), value=1.0), factor)
            product = term if product is None else product * term
        assert product is not None
        return product.sum(dim=1) + self.bias


class MidConcat(nn.Module):
    """Maps side by side in their channels, then the stages that a trunk has left.

    Open in the paper: the layer, how sound meets pictures, and which stages follow. Ours: after ``mid_stages`` stages;
    maps of (time, mel) are averaged over mel, brought to the time steps of the picture and repeated over its height and
    width; maps of (time, height, width) are brought to the size of the first of them. What follows are the stages of
    the visual trunk, the first with the joined channels as input; they begin at random also where the trunks are
    pre-trained. With two stages alone and hidden layers half as wide as what they read (so the authors' code has
    them), R3D-50 with the audio network has 51.9 M parameters, 37.6 % less than with late concat;
    the paper says 37 %.
    """

    def __init__(self, stages: nn.Module) -> None:
        super().__init__()
        self.stages = stages
        self.output_dim: int = stages.output_dim  # type: ignore[assignment]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(batch, channels, time, height, width) or (batch, channels, time, mel) each, to (batch, output_dim)."""
        time, height, width = next(x.shape[2:] for x in maps if x.dim() == 5)
        return self.stages(torch.cat([_on_grid(x, (time, height, width)) for x in maps], dim=1))


def _on_grid(x: Tensor, size: tuple[int, int, int]) -> Tensor:
    """A map of either kind on (time, height, width)."""
    if x.dim() == 5:
        return x if x.shape[2:] == size else F.adaptive_avg_pool3d(x, size)
    steps = F.adaptive_avg_pool1d(x.mean(dim=3), size[0])
    return steps[..., None, None].expand(-1, -1, *size)


LATE: Mapping[str, Callable[[Sequence[int], ModelConfig], nn.Module]] = {
    "concat": lambda dims, config: Concat(dims),
    "se-gate": lambda dims, config: SqueezeGate(dims, reduction=config.se_reduction),
    "nl-gate": lambda dims, config: NonLocalGate(dims, reduction=config.nl_reduction),
    "lmf": lambda dims, config: LowRank(dims, output_dim=config.fused_hidden, rank=config.lmf_rank),
}
"""Fusions of vectors: lengths and configuration to module."""


def fused_head(input_dim: int, classes: int, config: ModelConfig) -> nn.Sequential:
    """Fused features to logits through two hidden layers (paper, section 4)."""
    return nn.Sequential(
        nn.Dropout(config.fused_dropout),
        nn.Linear(input_dim, config.fused_hidden),
        nn.ReLU(),
        nn.Linear(config.fused_hidden, config.fused_hidden),
        nn.ReLU(),
        nn.Linear(config.fused_hidden, classes),
    )
