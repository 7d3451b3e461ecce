"""The audio trunks: sizes of the paper's, and shapes for any length of sound."""

import pytest
import torch
from torch import nn

from gblend.config import ModelConfig
from gblend.resnet2d import Shortcut, resnet2d
from jobs.recipes import paper_r3d50

STEMS = ("authors", "imagenet", "small")
PAPER = paper_r3d50().model


def full(stem: str, depth: int) -> ModelConfig:
    return ModelConfig(audio_stem=stem, audio_depth=depth, audio_width=64)


def test_the_audio_trunk_of_the_paper_has_its_number_of_parameters():
    with torch.device("meta"):
        trunk = resnet2d(PAPER, in_channels=1)
    assert round(sum(p.numel() for p in trunk.parameters()) / 1e6, 1) == 23.5


def test_the_authors_trunk_makes_4_by_2_of_100_by_40():
    with torch.device("meta"):
        trunk = resnet2d(PAPER, in_channels=1)
        x = trunk.stem(torch.empty(1, 1, 100, 40))
        shapes = [tuple(x.shape[1:])]
        for stage in trunk.stages:
            x = stage(x)
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(32, 50, 20), (256, 25, 10), (512, 13, 5), (1024, 7, 3), (2048, 4, 2)]
    assert isinstance(trunk.pool, nn.AdaptiveMaxPool2d)


def test_the_authors_stem_is_one_convolution_and_three_basic_blocks():
    with torch.device("meta"):
        stem = resnet2d(PAPER, in_channels=1).stem
    assert [tuple(m.weight.shape) for m in stem.modules() if isinstance(m, nn.Conv2d)] == [
        (16, 1, 3, 3),
        (32, 16, 3, 3),
        (32, 32, 3, 3),
        (32, 16, 1, 1),  # shortcut
        *[(32, 32, 3, 3)] * 4,
    ]


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("depth", [18, 50, 101, 152])
def test_every_stem_exists_at_every_depth(stem, depth):
    with torch.device("meta"):
        trunk = resnet2d(full(stem, depth), in_channels=1)
        assert tuple(trunk(torch.empty(1, 1, 100, 40)).shape) == (1, 512 if depth == 18 else 2048)
    assert sum(isinstance(m, nn.Conv2d) and not isinstance(m, Shortcut) for m in trunk.stages.modules()) == depth - 2


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize(("frames", "mel"), [(1, 40), (17, 1), (100, 40)])
def test_sound_of_any_length_gives_one_feature_vector(stem, frames, mel):
    trunk = resnet2d(ModelConfig(audio_stem=stem), in_channels=1).eval()
    with torch.no_grad():
        assert trunk(torch.zeros(2, 1, frames, mel)).shape == (2, trunk.output_dim)


@pytest.mark.parametrize("stem", STEMS)
def test_the_order_of_channels_in_memory_changes_no_number(stem):
    trunk, plain = (resnet2d(ModelConfig(audio_stem=stem), in_channels=1).eval() for _ in range(2))
    plain.load_state_dict(trunk.state_dict())
    plain.to(memory_format=torch.contiguous_format)
    plain._memory_format = torch.contiguous_format
    x = torch.randn(2, 1, 33, 40)
    with torch.no_grad():
        torch.testing.assert_close(trunk(x), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("stages", [1, 2])
def test_a_trunk_cut_in_two_is_the_trunk(stem, stages):
    trunk = resnet2d(ModelConfig(audio_stem=stem), in_channels=1).eval()
    x = torch.randn(2, 1, 37, 40)
    with torch.no_grad():
        start, end = trunk.start(stages), trunk.end(stages)
        middle = start(x)
        assert torch.equal(end(middle), trunk(x))
    assert tuple(middle.shape[1:]) == (
        start.output_dim,
        *(-(-n // s) for n, s in zip((37, 40), start.strides, strict=True)),
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_a_shortcut_is_a_strided_convolution_in_both_directions(stride):
    shortcut = Shortcut(4, 6, 1, stride=stride, bias=False).double()
    plain = nn.Conv2d(4, 6, 1, stride=stride, bias=False).double()
    plain.load_state_dict(shortcut.state_dict())
    x = torch.randn(3, 4, 9, 10, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    one, other = shortcut(x), plain(y)
    torch.testing.assert_close(one, other)
    weights = torch.randn_like(one)
    (one * weights).sum().backward()
    (other * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(shortcut.weight.grad, plain.weight.grad)
