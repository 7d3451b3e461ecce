"""The visual trunks: one family of 3D residual networks, five kinds of convolution, from CI size to depth 152.

    r3d        every convolution 3x3x3
    mc3        3x3x3 in the stem and the first stage, 1x3x3 after it
    r2plus1d   1x3x3 then 3x1x1, between them as many channels as keep the parameters of one 3x3x3
               (Tran et al., CVPR 2018, section 3.5)
    ir_csn     3x3x3 of one channel each: the channels interact in the pointwise convolutions of the bottleneck only
    ip_csn     the same with a pointwise convolution before it, so that they interact as often as in r3d
               (Tran et al., ICCV 2019, figure 2)

The stem is 3x7x7 with stride (1, 2, 2); the CSNs pool after it (their paper's table 1), which the published costs of
ip-CSN-152 need and R3D-50's do not. Every stage after the first halves time, height and width; average pooling ends it.
Channel-separated networks are published as bottlenecks. In the basic blocks of depth 18 and 34 ip_csn replaces both
convolutions, as the authors' code does; for ir_csn, where two convolutions of single channels would leave channels that
never meet, we keep the pointwise one in the first of the two.
"""

from collections.abc import Callable, Mapping

from torch import nn

from gblend.config import ModelConfig
from gblend.resnet import EXPANSION, ResidualBlock, Trunk, initialise, stage_blocks

Size = tuple[int, int, int]
"""Time, height, width."""


def resnet3d(config: ModelConfig, *, in_channels: int) -> Trunk:
    """The visual trunk of a configuration: (batch, channels, time, height, width) to (batch, ``output_dim``)."""
    stem, stride = _stem(config, in_channels)
    return _trunk(config, stem=stem, stem_stride=stride, inputs=config.visual_width, first=0)


def last_stages(config: ModelConfig, *, inputs: int, first: int) -> Trunk:
    """The visual trunk from stage ``first`` (from 0) on, for maps of any number of channels."""
    return _trunk(config, stem=nn.Identity(), stem_stride=(1, 1, 1), inputs=inputs, first=first)


def _trunk(config: ModelConfig, *, stem: nn.Module, stem_stride: Size, inputs: int, first: int) -> Trunk:
    stages, channels, strides = [], [inputs], [stem_stride]
    for number in range(first, len(stage_blocks(config.visual_depth, config.visual_layers))):
        stages.append(_stage(config, number, inputs=channels[-1]))
        channels.append(config.visual_width * 2**number * EXPANSION[config.visual_kind])
        strides.append(_stage_stride(config, number))
    trunk = Trunk(
        stem=stem,
        stages=stages,
        pool=nn.AdaptiveAvgPool3d((1, config.visual_grid, config.visual_grid)),
        channels=tuple(channels),
        strides=tuple(strides),
        pooled_cells=config.visual_grid**2,
    )
    initialise(trunk)
    return trunk


def _stage(config: ModelConfig, number: int, *, inputs: int) -> nn.Sequential:
    count = stage_blocks(config.visual_depth, config.visual_layers)[number]
    width = config.visual_width * 2**number
    outputs = width * EXPANSION[config.visual_kind]
    blocks = [_block(config, number, inputs=inputs, width=width, stride=_stage_stride(config, number))]
    blocks += [_block(config, number, inputs=outputs, width=width, stride=(1, 1, 1)) for _ in range(count - 1)]
    return nn.Sequential(*blocks)


def matched_width(inputs: int, outputs: int) -> int:
    """Channels between 1x3x3 and 3x1x1 with which both together have the parameters of one 3x3x3, rounded down.

    >>> matched_width(64, 64), matched_width(64, 128)
    (144, 230)
    """
    return (3 * 3 * 3 * inputs * outputs) // (3 * 3 * inputs + 3 * outputs)


def _stage_stride(config: ModelConfig, number: int) -> Size:
    if number == 0:
        return (1, 1, 1)
    return (1, 2, 2) if config.visual_block == "mc3" else (2, 2, 2)


def _stem(config: ModelConfig, in_channels: int) -> tuple[nn.Sequential, Size]:
    """The stem and its stride."""
    width = config.visual_width
    if config.visual_block == "r2plus1d":
        # 45 at width 64, in the authors' code whatever the input: not the matched width, which would be 83.
        middle = max(1, round(45 * width / 64))
        first = _conv(in_channels, middle, (1, 7, 7), (1, 2, 2))
        layers = [first, nn.BatchNorm3d(middle), nn.ReLU(inplace=True), _conv(middle, width, (3, 1, 1))]
    else:
        layers = [_conv(in_channels, width, (3, 7, 7), (1, 2, 2))]
    layers += [nn.BatchNorm3d(width), nn.ReLU(inplace=True)]
    if config.visual_block in ("ip_csn", "ir_csn"):
        return nn.Sequential(*layers, nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))), (1, 4, 4)
    return nn.Sequential(*layers), (1, 2, 2)


def _block(config: ModelConfig, number: int, *, inputs: int, width: int, stride: Size) -> ResidualBlock:
    outputs = width * EXPANSION[config.visual_kind]
    name = "r3d" if config.visual_block == "mc3" and number == 0 else config.visual_block
    spatial = _SPATIAL[name]
    if config.visual_kind == "basic":
        shared = config.r2plus1d_middle == "block"
        first = _SPATIAL["ip_csn"] if name == "ir_csn" else spatial
        middle = matched_width(inputs, width)
        convs = [
            _normed(first(inputs, width, stride, middle), width),
            _normed(spatial(width, width, (1, 1, 1), middle if shared else matched_width(width, width)), width),
        ]
    else:
        convs = [
            _normed(_conv(inputs, width, (1, 1, 1)), width),
            _normed(spatial(width, width, stride, matched_width(width, width)), width),
            _normed(_conv(width, outputs, (1, 1, 1)), outputs),
        ]
    same = inputs == outputs and stride == (1, 1, 1)
    shortcut = nn.Identity() if same else _normed(_conv(inputs, outputs, (1, 1, 1), stride), outputs)
    return ResidualBlock(convs=convs, shortcut=shortcut)


def _conv(inputs: int, outputs: int, kernel: Size, stride: Size = (1, 1, 1), groups: int = 1) -> nn.Conv3d:
    time, height, width = kernel
    padding = (time // 2, height // 2, width // 2)
    return nn.Conv3d(inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=False)


def _normed(conv: nn.Module, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm3d(outputs))


def _r3d(inputs: int, outputs: int, stride: Size, _middle: int) -> nn.Module:
    return _conv(inputs, outputs, (3, 3, 3), stride)


def _mc3(inputs: int, outputs: int, stride: Size, _middle: int) -> nn.Module:
    return _conv(inputs, outputs, (1, 3, 3), stride)


def _r2plus1d(inputs: int, outputs: int, stride: Size, middle: int) -> nn.Module:
    time, height, width = stride
    return nn.Sequential(
        _conv(inputs, middle, (1, 3, 3), (1, height, width)),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        _conv(middle, outputs, (3, 1, 1), (time, 1, 1)),
    )


def _ir_csn(inputs: int, outputs: int, stride: Size, _middle: int) -> nn.Module:
    return _conv(inputs, outputs, (3, 3, 3), stride, groups=inputs)


def _ip_csn(inputs: int, outputs: int, stride: Size, _middle: int) -> nn.Module:
    depthwise = _conv(outputs, outputs, (3, 3, 3), stride, groups=outputs)
    return nn.Sequential(_conv(inputs, outputs, (1, 1, 1)), nn.BatchNorm3d(outputs), depthwise)


_SPATIAL: Mapping[str, Callable[[int, int, Size, int], nn.Module]] = {
    "r3d": _r3d,
    "mc3": _mc3,
    "r2plus1d": _r2plus1d,
    "ir_csn": _ir_csn,
    "ip_csn": _ip_csn,
}
"""What stands for a 3x3x3 convolution: (inputs, outputs, stride, channels between its two parts)."""
