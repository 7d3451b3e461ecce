"""Published sizes and costs, counted without allocating or computing anything, and shapes for any clip."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gblend.config import ModelConfig
from gblend.resnet3d import last_stages, resnet3d
from jobs.recipes import paper_r3d50, small_cpu

BLOCKS = ("r3d", "r2plus1d", "ip_csn", "ir_csn", "mc3")
PAPER = paper_r3d50().model


def full(block: str, depth: int, **changes) -> ModelConfig:
    return ModelConfig(visual_block=block, visual_depth=depth, visual_width=64, **changes)


def narrow(block: str, **changes) -> ModelConfig:
    return ModelConfig(visual_block=block, visual_width=4, **changes)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_r3d_50_has_the_number_of_parameters_of_the_paper():
    with torch.device("meta"):
        assert round(count(resnet3d(PAPER, in_channels=3)) / 1e6, 1) == 46.2


# Parameters and costs are those of the authors' model zoo (facebookresearch/VMZ, c2/tutorials/model_zoo.md), with 400
# classes. They count convolutions and the classifier, not BatchNorm, and give the cost of the test on whole pictures:
# 32 frames of 128 px for the networks trained at 112, of 256 px for those trained at 224.
@pytest.mark.parametrize(
    ("block", "depth", "side", "millions", "gflops"),
    [
        ("r2plus1d", 34, 128, 63.6, 199.0),
        ("r2plus1d", 152, 128, 118.0, 329.1),
        ("ir_csn", 152, 256, 29.6, 96.7),
        ("ip_csn", 152, 256, 32.8, 108.8),
    ],
)
def test_size_and_cost_are_the_published_ones(block, depth, side, millions, gflops):
    with torch.device("meta"):
        trunk = resnet3d(full(block, depth), in_channels=3)
        classifier = nn.Linear(trunk.output_dim, 400)
        with FlopCounterMode(display=False) as counter:
            classifier(trunk(torch.empty(1, 3, 32, side, side)))
    weights = sum(module.weight.numel() for module in trunk.modules() if isinstance(module, nn.Conv3d))
    assert round((weights + classifier.weight.numel()) / 1e6, 1) == pytest.approx(millions, abs=0.051)
    assert round(counter.get_total_flops() / 2e9, 1) == gflops


def test_r3d_50_halves_the_sizes_the_paper_halves():
    """16 x 224 x 224: the stem halves the picture, each later stage everything."""
    with torch.device("meta"):
        trunk = resnet3d(PAPER, in_channels=3)
    x = trunk.stem(torch.empty(1, 3, 16, 224, 224, device="meta"))
    assert tuple(x.shape) == (1, 64, 16, 112, 112)
    shapes = []
    for stage in trunk.stages:
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(256, 16, 112, 112), (512, 8, 56, 56), (1024, 4, 28, 28), (2048, 2, 14, 14)]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_every_block_exists_at_every_depth(block, depth):
    with torch.device("meta"):
        trunk = resnet3d(full(block, depth), in_channels=2)
    assert trunk.output_dim == (512 if depth < 50 else 2048)
    convs = sum(isinstance(m, nn.Conv3d) for m in trunk.stages.modules())
    per_convolution = {"r3d": 1, "mc3": 1, "r2plus1d": 2, "ir_csn": 1, "ip_csn": 2}[block]
    spatial = sum(len(b.convs) == 2 for s in trunk.stages for b in s) * 2 or sum(len(s) for s in trunk.stages)
    # The depth counts stem and classifier; what is more are halves of convolutions and shortcuts.
    halves = spatial * (per_convolution - 1) + (spatial // 2 if block == "ir_csn" and depth < 50 else 0)
    shortcuts = 3 if depth < 50 else 4
    assert convs == depth - 2 + halves + shortcuts


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 16), (3, 17, 31)])
def test_clips_of_any_size_give_one_feature_vector(block, kind, frames, height, width):
    trunk = resnet3d(narrow(block, visual_residual=kind), in_channels=5).eval()
    with torch.no_grad():
        assert trunk(torch.zeros(2, 5, frames, height, width)).shape == (2, 16 if kind == "basic" else 64)
    assert trunk.output_dim == (16 if kind == "basic" else 64)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_order_of_channels_in_memory_changes_no_number(block):
    trunk, plain = (resnet3d(narrow(block), in_channels=3).eval() for _ in range(2))
    plain.load_state_dict(trunk.state_dict())
    plain.to(memory_format=torch.contiguous_format)
    plain._memory_format = torch.contiguous_format
    x = torch.randn(2, 3, 3, 17, 15)
    with torch.no_grad():
        assert trunk.stem[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
        torch.testing.assert_close(trunk(x), plain(x), rtol=1e-4, atol=1e-5)


def test_channels_of_a_channel_separated_convolution_do_not_meet():
    for block in ("ir_csn", "ip_csn"):
        with torch.device("meta"):
            trunk = resnet3d(full(block, 50), in_channels=3)
        wide = [m for m in trunk.stages.modules() if isinstance(m, nn.Conv3d) and m.kernel_size == (3, 3, 3)]
        assert len(wide) == 16
        assert all(m.groups == m.in_channels == m.out_channels for m in wide)


@pytest.mark.parametrize("block", ["ir_csn", "ip_csn"])
def test_in_a_basic_block_that_is_channel_separated_every_channel_still_reaches_every_other(block):
    torch.manual_seed(0)  # of four channels a few numbers leave nothing after ReLU
    stage = resnet3d(narrow(block, visual_layers=(2,)), in_channels=3).stages[0]
    x = torch.randn(1, 4, 1, 3, 3, requires_grad=True)
    residual = stage[1].convs[1](torch.relu(stage[1].convs[0](x)))  # without the shortcut
    residual[0, 0].sum().backward()
    assert (x.grad[0].abs().sum(dim=(1, 2, 3)) > 0).all()


def test_mixed_convolutions_see_time_in_the_first_stage_only():
    trunk = resnet3d(full("mc3", 18), in_channels=3)
    kernels = [{m.kernel_size[0] for m in s.modules() if isinstance(m, nn.Conv3d)} for s in trunk.stages]
    assert kernels == [{3}, {1}, {1}, {1}]


def test_a_factorised_convolution_has_no_more_parameters_than_the_full_one_and_almost_as_many():
    for inputs, outputs in ((64, 64), (64, 128), (512, 512)):
        with torch.device("meta"):
            stage = resnet3d(full("r2plus1d", 18), in_channels=3).stages
            convs = [b.convs[0][0] for s in stage for b in s if b.convs[0][0][0].in_channels == inputs]
        pair = next(c for c in convs if c[3].out_channels == outputs)
        full_size = 27 * inputs * outputs
        assert 0 <= full_size - pair[0].weight.numel() - pair[3].weight.numel() < 9 * inputs + 3 * outputs


def test_a_coarse_grid_keeps_where_things_are():
    trunk = resnet3d(narrow("r3d", visual_grid=2), in_channels=3).eval()
    assert trunk.output_dim == 4 * 16
    x = torch.zeros(2, 3, 2, 32, 32)
    x[0, :, :, :8, :8] = 1.0
    x[1, :, :, 24:, 24:] = 1.0
    with torch.no_grad():
        cells = trunk(x).reshape(2, 16, 2, 2)
    one_place, other_place = (
        cells[:, :, i, i] - trunk(torch.zeros_like(x)).reshape(2, 16, 2, 2)[:, :, i, i] for i in (0, 1)
    )
    assert one_place[0].norm() > one_place[1].norm()
    assert other_place[1].norm() > other_place[0].norm()


def test_the_small_recipe_stays_small():
    """Three stages of one basic block, 8, 16 and 32 channels: by hand, without BatchNorm's two numbers a channel."""
    trunk = resnet3d(small_cpu().model, in_channels=3)
    convs = 3 * 147 * 8 + 27 * (8 * 8 * 2 + 8 * 16 + 16 * 16 + 16 * 32 + 32 * 32) + 8 * 16 + 16 * 32
    assert count(trunk) == convs + 2 * (8 + 2 * 8 + 3 * 16 + 3 * 32)
    assert trunk.output_dim == 32 * 16


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("stages", [1, 2])
def test_a_trunk_cut_in_two_is_the_trunk(block, stages):
    trunk = resnet3d(narrow(block, visual_grid=2), in_channels=3).eval()
    x = torch.randn(2, 3, 5, 21, 18)
    with torch.no_grad():
        start, end = trunk.start(stages), trunk.end(stages)
        middle = start(x)
        assert torch.equal(end(middle), trunk(x))
    assert end.output_dim == trunk.output_dim
    assert tuple(middle.shape[1:]) == (
        start.output_dim,
        *(-(-n // s) for n, s in zip((5, 21, 18), start.strides, strict=True)),
    )


@pytest.mark.parametrize("stages", [0, 3])
def test_a_cut_that_leaves_nothing_on_one_side_is_refused(stages):
    trunk = resnet3d(narrow("r3d"), in_channels=3)
    for cut in (trunk.start, trunk.end):
        with pytest.raises(ValueError, match=f"3 stages cannot be cut after stage {stages}; model.mid_stages"):
            cut(stages)


def test_the_last_stages_take_any_number_of_channels():
    config = narrow("r2plus1d")
    stages = last_stages(config, inputs=13, first=1).eval()
    with torch.no_grad():
        assert stages(torch.zeros(2, 13, 2, 5, 5)).shape == (2, resnet3d(config, in_channels=3).output_dim)


def test_a_block_that_changes_nothing_in_size_adds_to_its_input():
    first, second = resnet3d(replace(narrow("r3d"), visual_layers=(2,)), in_channels=3).stages[0]
    assert isinstance(first.shortcut, nn.Identity)
    assert isinstance(second.shortcut, nn.Identity)
