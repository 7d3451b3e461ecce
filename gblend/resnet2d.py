"""The audio trunks: 2D residual networks on (batch, 1, time, mel), with one of three stems.

authors    3x3 to a quarter of the width, three basic blocks at half of it, every stage with stride 2, maximum
           pooling: the paper's audio network, after the code its authors released
imagenet   7x7 with stride 2 and pooling, stride 2 from the second stage on, average pooling: the ResNet whose
           pre-trained weights can be had
small      one 3x3 with stride 2, every stage with stride 2, maximum pooling: a few megaflops, for CPUs
"""

import torch.nn.functional as F
from torch import Tensor, nn

from gblend.config import ModelConfig
from gblend.model_config import Residual
from gblend.resnet import EXPANSION, ResidualBlock, Trunk, initialise, stage_blocks

Size = tuple[int, int]
"""Time, mel."""


def resnet2d(config: ModelConfig, *, in_channels: int) -> Trunk:
    """The audio trunk of a configuration: (batch, channels, time, mel) to (batch, ``output_dim``)."""
    blocks = stage_blocks(config.audio_depth, config.audio_layers)
    imagenet = config.audio_stem == "imagenet"
    stem, stem_stride, inputs = _stem(config, in_channels)
    stages, channels, strides = [], [inputs], [stem_stride]
    for number, count in enumerate(blocks):
        stride = 1 if imagenet and number == 0 else 2
        width = config.audio_width * 2**number
        outputs = width * EXPANSION[config.audio_kind]
        stage = [_block(config.audio_kind, inputs=channels[-1], width=width, stride=stride)]
        stage += [_block(config.audio_kind, inputs=outputs, width=width) for _ in range(count - 1)]
        stages.append(nn.Sequential(*stage))
        channels.append(outputs)
        strides.append((stride, stride))
    trunk = Trunk(
        stem=stem,
        stages=stages,
        pool=nn.AdaptiveAvgPool2d(1) if imagenet else nn.AdaptiveMaxPool2d(1),
        channels=tuple(channels),
        strides=tuple(strides),
    )
    initialise(trunk)
    return trunk


class Shortcut(nn.Conv2d):
    """A 1x1 convolution that steps over its input before it multiplies: the same numbers.

    The CPU kernel for a strided 1x1 convolution in channels-last order writes past its buffer in the backward pass when
    there are fewer input channels than lanes of a vector register (seen with torch 2.14 on AVX2, below 8 channels).
    """

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(batch, inputs, time, mel) to (batch, outputs, ...), each axis divided by the stride."""
        time, mel = self.stride
        return F.conv2d(x[:, :, ::time, ::mel], self.weight)


def _stem(config: ModelConfig, in_channels: int) -> tuple[nn.Sequential, Size, int]:
    """The stem, its stride and its output channels."""
    width = config.audio_width
    if config.audio_stem == "authors":
        quarter, half = width // 4, width // 2
        # The one convolution with a bias, and neither BatchNorm nor ReLU after it: so it is in their code.
        first = nn.Conv2d(in_channels, quarter, 3, padding=1)
        basic = [_block("basic", inputs=quarter, width=half, stride=2)]
        basic += [_block("basic", inputs=half, width=half) for _ in range(2)]
        return nn.Sequential(first, *basic), (2, 2), half
    kernel = 7 if config.audio_stem == "imagenet" else 3
    layers = [_conv(in_channels, width, kernel, 2), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    if config.audio_stem == "imagenet":
        return nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1)), (4, 4), width
    return nn.Sequential(*layers), (2, 2), width


def _block(kind: Residual, *, inputs: int, width: int, stride: int = 1) -> ResidualBlock:
    outputs = width * EXPANSION[kind]
    if kind == "basic":
        convs = [_normed(_conv(inputs, width, 3, stride)), _normed(_conv(width, width, 3))]
    else:
        convs = [
            _normed(_conv(inputs, width, 1)),
            _normed(_conv(width, width, 3, stride)),
            _normed(_conv(width, outputs, 1)),
        ]
    same = inputs == outputs and stride == 1
    shortcut = nn.Identity() if same else _normed(Shortcut(inputs, outputs, 1, stride=stride, bias=False))
    return ResidualBlock(convs=convs, shortcut=shortcut)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


def _normed(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels))
