"""Trunks: one residual family in 2D (log-mel) and 3D (rgb, flow), from CI size to the paper's ResNet-50s.

The 3D trunk is the authors' R3D: stem 3x7x7 with stride (1, 2, 2), no pooling after it, every stage after the first
halves time, height and width, average pooling at the end. The 2D trunk takes 1 x time x mel: stem 3x3 with stride 2,
every stage halves both axes, maximum pooling at the end; the authors' audio network differs in its first stage.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from gblend.config import ModelConfig
from schemas import Modality

Block = Literal["basic", "bottleneck"]

IN_CHANNELS: Mapping[Modality, int] = {"rgb": 3, "flow": 2, "logmel": 1}
"""Channels of each modality's input; rgb and flow have axes (channel, time, height, width), logmel (1, time, mel)."""

_CONV: Mapping[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM: Mapping[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def _conv_norm(dims: int, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = _CONV[dims](inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, _NORM[dims](outputs))


class ResidualBlock(nn.Module):
    """``basic``: two 3-convolutions. ``bottleneck``: 1, 3, 1, the outer ones four times as wide."""

    def __init__(self, *, dims: int, block: Block, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION[block]
        if block == "basic":
            self.residual = nn.Sequential(
                _conv_norm(dims, inputs, width, 3, stride), nn.ReLU(), _conv_norm(dims, width, width, 3)
            )
        else:
            self.residual = nn.Sequential(
                _conv_norm(dims, inputs, width, 1),
                nn.ReLU(),
                _conv_norm(dims, width, width, 3, stride),
                nn.ReLU(),
                _conv_norm(dims, width, outputs, 1),
            )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _conv_norm(dims, inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Any (batch, inputs, ...) to (batch, outputs, ...), each axis divided by the stride."""
        return torch.relu(self.residual(x) + self.shortcut(x))


EXPANSION: Mapping[Block, int] = {"basic": 1, "bottleneck": 4}


class ResNet(nn.Module):
    """Residual trunk: (batch, channels, ...) to (batch, `output_dim`)."""

    output_dim: int
    """Length of the feature vector."""

    def __init__(
        self,
        *,
        dims: Literal[2, 3],
        block: Block,
        layers: tuple[int, ...],
        width: int,
        in_channels: int,
        grid: int = 1,
    ) -> None:
        super().__init__()
        if not layers or min(layers) < 1:
            raise ValueError(f"a trunk needs at least one block in every stage, got layers {layers}")
        if dims == 3:
            stem = nn.Conv3d(in_channels, width, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)
        else:
            stem = nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False)
        self.stem = nn.Sequential(stem, _NORM[dims](width), nn.ReLU())
        stages, channels = [], width
        for stage, depth in enumerate(layers):
            blocks = []
            for position in range(depth):
                halves = position == 0 and (stage > 0 or dims == 2)
                stage_width = width * 2**stage
                blocks.append(
                    ResidualBlock(dims=dims, block=block, inputs=channels, width=stage_width, stride=2 if halves else 1)
                )
                channels = stage_width * EXPANSION[block]
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool3d((1, grid, grid)) if dims == 3 else nn.AdaptiveMaxPool2d(1)
        self.output_dim = channels * (grid**2 if dims == 3 else 1)
        _initialise(self)
        # Channels last: the same numbers, 1.5 to 2 times the speed of narrow 3D convolutions on a CPU.
        self._memory_format = torch.channels_last_3d if dims == 3 else torch.channels_last
        self.to(memory_format=self._memory_format)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, time, height, width) or (batch, 1, time, mel) to (batch, output_dim)."""
        x = x.contiguous(memory_format=self._memory_format)
        return self.pool(self.stages(self.stem(x))).flatten(1)


def make_encoder(modality: Modality, config: ModelConfig) -> ResNet:
    """The trunk of one modality."""
    if modality == "logmel":
        return ResNet(
            dims=2,
            block=config.audio_block,
            layers=config.audio_layers,
            width=config.audio_width,
            in_channels=IN_CHANNELS[modality],
        )
    return ResNet(
        dims=3,
        block=config.visual_block,
        layers=config.visual_layers,
        width=config.visual_width,
        grid=config.visual_grid,
        in_channels=IN_CHANNELS[modality],
    )


def _initialise(trunk: nn.Module) -> None:
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
