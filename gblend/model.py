"""k encoders, k linear single-modality heads and one fused head, and the branches that probes train.

The fused head concatenates the features and has two hidden layers (paper, section 4: concat, two FC, prediction). A
*branch* is one head with the encoders it reads. The single-modality network *is* the branch of its head and the naive
joint network *is* the branch of the fused head: a probe, a baseline and a part of the blend are the same object.
"""

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from gblend.config import ModelConfig
from gblend.encoders import ResNet, make_encoder
from gblend.records import FUSED
from schemas import MODALITIES, Modality


class BlendModel(nn.Module):
    """Any set of heads over any set of encoders.

    Inputs are dictionaries by modality, so a loader may bring more than the network reads.
    """

    def __init__(self, *, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))
        self.heads = nn.ModuleDict(dict(heads))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities the network reads."""
        return tuple(self.encoders)

    @property
    def head_names(self) -> tuple[str, ...]:
        """Heads in the order of every list of losses and weights: the fused head last."""
        return tuple(self.heads)

    def forward(self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits of every head.

        Args:
            inputs: Per modality, float (batch, channels, ...).
            present: Per modality, bool (batch): false where the clip lacks it. Its features are zero, and neither the
                encoder nor its BatchNorm sees it.

        Returns:
            Per head, float (batch, classes).
        """
        features = {name: _encode(encoder, inputs[name], present[name]) for name, encoder in self.encoders.items()}
        joined = torch.cat(list(features.values()), dim=1)
        return {name: head(joined if name == FUSED else features[name]) for name, head in self.heads.items()}

    def branch(self, head: str) -> "BlendModel":
        """A deep copy of one head and the encoders it reads; training it leaves this network alone."""
        if head not in self.heads:
            raise ValueError(f"there is no head {head!r}; heads: {', '.join(self.head_names)}")
        read = self.modalities if head == FUSED else (head,)
        return BlendModel(
            encoders={name: copy.deepcopy(self.encoders[name]) for name in read},
            heads={head: copy.deepcopy(self.heads[head])},
        )


def _encode(encoder: nn.Module, values: Tensor, present: Tensor) -> Tensor:
    """Features of the clips that have the modality; zero for the others."""
    if bool(present.all()):
        return encoder(values)
    features = values.new_zeros(len(values), cast(int, encoder.output_dim))
    if bool(present.any()):
        features = features.index_put((present,), encoder(values[present]))
    return features


def fused_head(input_dim: int, classes: int, config: ModelConfig) -> nn.Sequential:
    """Concatenated features to logits through two hidden layers."""
    return nn.Sequential(
        nn.Dropout(config.fused_dropout),
        nn.Linear(input_dim, config.fused_hidden),
        nn.ReLU(),
        nn.Linear(config.fused_hidden, config.fused_hidden),
        nn.ReLU(),
        nn.Linear(config.fused_hidden, classes),
    )


def make_model(modalities: tuple[Modality, ...], classes: int, config: ModelConfig, *, seed: int) -> BlendModel:
    """The joint network, its parameters decided by the seed alone (phi^0 of the paper).

    Raises:
        ValueError: Fewer than two modalities, or none that exists.
    """
    unknown = [name for name in modalities if name not in MODALITIES]
    if unknown:
        raise ValueError(f"unknown modality {unknown[0]!r}; allowed: {', '.join(MODALITIES)}")
    if len(modalities) < 2:
        raise ValueError(f"blending needs at least two modalities, got {list(modalities)}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every CUDA device as well
        encoders: dict[str, ResNet] = {name: make_encoder(name, config) for name in modalities}
        heads: dict[str, nn.Module] = {name: nn.Linear(e.output_dim, classes) for name, e in encoders.items()}
        heads[FUSED] = fused_head(sum(e.output_dim for e in encoders.values()), classes, config)
    return BlendModel(encoders=encoders, heads=heads)
