"""What every residual trunk is made of: blocks, stages, and a trunk that can be cut in two.

`gblend.resnet3d` and `gblend.resnet2d` choose convolutions and stems; nothing here knows how many axes there are. All
convolutions and poolings have an odd kernel k and a padding of k // 2, so that a stride of s leaves ceil(n / s) of n
positions whatever n is: any clip size goes through.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS: Mapping[int, tuple[int, ...]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Depth to residual blocks in every stage (He et al., CVPR 2016, table 1)."""

EXPANSION: Mapping[str, int] = {"basic": 1, "bottleneck": 4}
"""Channels a block puts out for one channel inside it."""


def stage_blocks(depth: int | None, layers: tuple[int, ...]) -> tuple[int, ...]:
    """Residual blocks in every stage: those of the depth, or ``layers``, or one in each of three stages.

    >>> stage_blocks(50, ()), stage_blocks(None, (2, 2)), stage_blocks(None, ())
    ((3, 4, 6, 3), (2, 2), (1, 1, 1))
    """
    return BLOCKS[depth] if depth is not None else layers or (1, 1, 1)


class ResidualBlock(nn.Module):
    """relu(convolutions + shortcut): two spatial convolutions (basic), or one between two pointwise (bottleneck)."""

    def __init__(self, *, convs: Sequence[nn.Module], shortcut: nn.Module) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Any (batch, inputs, ...) to (batch, outputs, ...), each axis divided by its stride."""
        *first, last = self.convs
        y = x
        for conv in first:
            y = F.relu(conv(y), inplace=True)
        return F.relu(last(y) + self.shortcut(x), inplace=True)


class Trunk(nn.Module):
    """Stem, stages and pooling: (batch, channels, ...) to (batch, ``output_dim``), or to a map without pooling.

    Args:
        stem: First layers.
        stages: Residual stages.
        pool: From the last map to one vector a clip; none for the first part of a trunk that was cut.
        channels: Channels after the stem and after every stage.
        strides: Strides of the stem and of every stage, each one a tuple over the axes.
        pooled_cells: Positions the pooling leaves, whose channels are put in one vector.
    """

    output_dim: int
    """Length of the feature vector; channels of a map."""
    strides: tuple[int, ...]
    """Total stride of every axis of a map that comes out: its size is ceil(n / stride). Empty for a vector."""

    def __init__(
        self,
        *,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        pool: nn.Module | None,
        channels: tuple[int, ...],
        strides: tuple[tuple[int, ...], ...],
        pooled_cells: int = 1,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.pool = pool
        self._channels, self._strides, self._pooled_cells = channels, strides, pooled_cells
        self.output_dim = channels[-1] * (1 if pool is None else pooled_cells)
        self.strides = tuple(math.prod(axis) for axis in zip(*strides, strict=True)) if pool is None else ()
        # Channels last: the same numbers, 1.5 to 2 times the speed of narrow 3D convolutions on a CPU.
        self.use_memory_format("channels-last")

    def use_memory_format(self, name: Literal["channels-last", "contiguous"]) -> None:
        """Order of the numbers in memory of parameters and maps."""
        last = torch.channels_last_3d if len(self._strides[0]) == 3 else torch.channels_last
        self._memory_format = last if name == "channels-last" else torch.contiguous_format
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Conv3d):
                part.weight.data = part.weight.data.contiguous(memory_format=self._memory_format)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, time, height, width) or (batch, channels, time, mel) to features."""
        x = self.stages(self.stem(x.contiguous(memory_format=self._memory_format)))
        return x if self.pool is None else self.pool(x).flatten(1)

    def start(self, stages: int) -> "Trunk":
        """The stem and the first stages, the same modules: its features are maps."""
        self._check_cut(stages)
        return Trunk(
            stem=self.stem,
            stages=list(self.stages[:stages]),
            pool=None,
            channels=self._channels[: stages + 1],
            strides=self._strides[: stages + 1],
        )

    def end(self, stages: int) -> "Trunk":
        """What `start` leaves, the same modules: maps to vectors."""
        self._check_cut(stages)
        return Trunk(
            stem=nn.Identity(),
            stages=list(self.stages[stages:]),
            pool=self.pool,
            channels=self._channels[stages:],
            strides=self._strides[stages:],
            pooled_cells=self._pooled_cells,
        )

    def _check_cut(self, stages: int) -> None:
        if not 1 <= stages < len(self.stages):
            raise ValueError(
                f"a trunk of {len(self.stages)} stages cannot be cut after stage {stages}; model.mid_stages must leave "
                "every trunk at least one stage on either side"
            )


def initialise(trunk: nn.Module) -> None:
    """He et al.'s normal initialisation of all convolutions, by fan-out; BatchNorm begins as the identity."""
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
