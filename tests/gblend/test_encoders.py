"""Trunks: sizes the paper's networks have, and shapes for any clip. Parameters are counted without allocating them."""

from dataclasses import replace

import pytest
import torch

from gblend.config import ModelConfig
from gblend.encoders import IN_CHANNELS, ResNet, make_encoder
from gblend.model import fused_head
from jobs.recipes import paper_r3d50

PAPER = paper_r3d50().model


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def paper_encoder(modality: str) -> ResNet:
    with torch.device("meta"):
        return make_encoder(modality, PAPER)


@pytest.mark.parametrize(("modality", "millions"), [("rgb", 46.2), ("logmel", 23.5)])
def test_the_trunks_of_the_paper_have_its_number_of_parameters(modality, millions):
    assert round(count(paper_encoder(modality)) / 1e6, 1) == millions


def test_the_fused_head_of_the_paper_has_its_number_of_parameters():
    width = paper_encoder("rgb").output_dim + paper_encoder("logmel").output_dim
    assert width == 4096
    with torch.device("meta"):
        head = fused_head(width, 400, PAPER)
    # 4096 to 2048 to 2048 to 400, with biases, by hand.
    assert count(head) == 4096 * 2048 + 2048 + 2048 * 2048 + 2048 + 2048 * 400 + 400
    assert round(count(head) / 1e6, 1) == 13.4


def test_the_three_dimensional_trunk_halves_the_sizes_the_paper_halves():
    """16 x 224 x 224: the stem halves the picture, each later stage everything."""
    encoder = paper_encoder("rgb")
    x = encoder.stem(torch.empty(1, 3, 16, 224, 224, device="meta"))
    assert tuple(x.shape) == (1, 64, 16, 112, 112)
    shapes = []
    for stage in encoder.stages:
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(256, 16, 112, 112), (512, 8, 56, 56), (1024, 4, 28, 28), (2048, 2, 14, 14)]


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 16), (3, 17, 31), (8, 40, 40)])
@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_clips_of_any_size_give_one_feature_vector(block, frames, height, width, modality):
    encoder = make_encoder(modality, ModelConfig(visual_block=block, visual_width=4)).eval()
    with torch.no_grad():
        features = encoder(torch.zeros(2, IN_CHANNELS[modality], frames, height, width))
    assert features.shape == (2, encoder.output_dim)
    assert encoder.output_dim == 16 * (4 if block == "bottleneck" else 1)


@pytest.mark.parametrize("frames", [1, 17, 100])
def test_sound_of_any_length_gives_one_feature_vector(frames):
    encoder = make_encoder("logmel", ModelConfig()).eval()
    with torch.no_grad():
        assert encoder(torch.zeros(2, 1, frames, 40)).shape == (2, encoder.output_dim)


def test_a_block_that_changes_nothing_in_size_adds_to_its_input():
    encoder = make_encoder("rgb", replace(ModelConfig(), visual_layers=(2,)))
    first, second = encoder.stages[0]
    assert isinstance(first.shortcut, torch.nn.Identity)
    assert isinstance(second.shortcut, torch.nn.Identity)


def test_a_trunk_without_blocks_is_refused():
    with pytest.raises(ValueError, match=r"at least one block in every stage, got layers \(2, 0\)"):
        ResNet(dims=3, block="basic", layers=(2, 0), width=4, in_channels=3)
