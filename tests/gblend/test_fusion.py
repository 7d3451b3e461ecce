"""Each fusion against its formula written out, for two and three modalities of different lengths."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gblend.config import ModelConfig
from gblend.fusion import LATE, Concat, LowRank, MidConcat, NonLocalGate, SqueezeGate
from gblend.resnet3d import last_stages

SIZES = [(5, 3), (4, 6, 3)]


def features(dims: tuple[int, ...], batch: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, dim, generator=generator, dtype=torch.float64) for dim in dims]


@pytest.mark.parametrize("dims", SIZES)
@pytest.mark.parametrize("name", LATE)
def test_a_fusion_states_the_length_of_what_it_gives(name, dims):
    fusion = LATE[name](dims, ModelConfig(fused_hidden=7)).double()
    assert fusion(features(dims)).shape == (4, fusion.output_dim)
    assert fusion.output_dim == (7 if name == "lmf" else sum(dims))


@pytest.mark.parametrize("dims", SIZES)
def test_concatenation_puts_vectors_end_to_end(dims):
    x = features(dims)
    assert Concat(dims)(x)[2].tolist() == [float(value) for vector in x for value in vector[2]]


@pytest.mark.parametrize("dims", SIZES)
@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_fusion_is_a_full_weight_tensor_applied_to_the_outer_product(dims, rank):
    """The tensor over every combination of one entry of each [x; 1], element by element."""
    fusion = LowRank(dims, output_dim=2, rank=rank).double()
    nn.init.normal_(fusion.bias)
    x = features(dims)
    extended = [torch.cat([values, torch.ones(len(values), 1, dtype=torch.float64)], dim=1) for values in x]
    expected = fusion.bias.detach().expand(4, 2).clone()
    for places in itertools.product(*(range(dim + 1) for dim in dims)):
        outer = torch.ones(4, dtype=torch.float64)
        for values, place in zip(extended, places, strict=True):
            outer = outer * values[:, place]
        weight = torch.zeros(2, dtype=torch.float64)
        for r in range(rank):
            term = torch.ones(2, dtype=torch.float64)
            for factor, place in zip(fusion.factors, places, strict=True):
                term = term * factor[r, place].detach()
            weight = weight + term
        expected = expected + outer[:, None] * weight
    torch.testing.assert_close(fusion(x).detach(), expected)


@pytest.mark.parametrize("dims", [(50, 30), (40, 60, 30)])
def test_low_rank_fusion_begins_with_the_variance_of_its_features(dims):
    torch.manual_seed(0)
    outputs = LowRank(dims, output_dim=400, rank=5)([torch.randn(300, dim) for dim in dims])
    assert float(outputs.detach().var()) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("dims", SIZES)
def test_the_squeeze_gate_scales_each_channel_by_a_sigmoid_of_all(dims):
    fusion = SqueezeGate(dims, reduction=2).double()
    x = torch.cat(features(dims), dim=1)
    first, second = fusion.excite[0], fusion.excite[2]
    assert first.out_features == sum(dims) // 2
    hidden = (x @ first.weight.T + first.bias).clamp(min=0)
    gate = 1 / (1 + torch.exp(-(hidden @ second.weight.T + second.bias)))
    torch.testing.assert_close(fusion(features(dims)), x * gate)


@pytest.mark.parametrize("reduction", [1, 1000])
def test_a_gate_is_never_narrower_than_one(reduction):
    assert SqueezeGate((2, 3), reduction=reduction)(features_float((2, 3))).shape == (4, 5)
    assert NonLocalGate((2, 3), reduction=reduction)(features_float((2, 3))).shape == (4, 5)


def features_float(dims: tuple[int, ...]) -> list[torch.Tensor]:
    return [x.float() for x in features(dims)]


@pytest.mark.parametrize("dims", SIZES)
def test_the_non_local_gate_begins_as_concatenation(dims):
    x = features(dims)
    assert torch.equal(NonLocalGate(dims, reduction=2).double()(x), torch.cat(x, dim=1))


@pytest.mark.parametrize("dims", SIZES)
def test_the_non_local_gate_adds_what_each_modality_attends_to(dims):
    fusion = NonLocalGate(dims, reduction=2).double()
    for layer in fusion.out:
        nn.init.normal_(layer.weight)
    x = features(dims)
    q, k, v = (
        [layer(values) for layer, values in zip(part, x, strict=True)]
        for part in (fusion.query, fusion.key, fusion.value)
    )
    width = q[0].shape[1]
    assert width == max(dims) // 2
    expected = []
    for i in range(len(dims)):
        scores = torch.stack([(q[i] * k[j]).sum(dim=1) / width**0.5 for j in range(len(dims))])
        shares = scores.exp() / scores.exp().sum(dim=0)
        attended = sum(shares[j][:, None] * v[j] for j in range(len(dims)))
        expected.append(x[i] + attended @ fusion.out[i].weight.T)
    torch.testing.assert_close(fusion(x), torch.cat(expected, dim=1))


def test_the_order_of_modalities_only_permutes_what_a_gate_gives():
    """With layers permuted alike: no modality is special."""
    fusion = NonLocalGate((4, 4, 4), reduction=2).double()
    for layer in fusion.out:
        nn.init.normal_(layer.weight)
    x, order = features((4, 4, 4)), [2, 0, 1]
    other = NonLocalGate((4, 4, 4), reduction=2).double()
    for name in ("query", "key", "value", "out"):
        for place, source in enumerate(order):
            getattr(other, name)[place].load_state_dict(getattr(fusion, name)[source].state_dict())
    permuted = other([x[i] for i in order]).split(4, dim=1)
    for place, source in enumerate(order):
        torch.testing.assert_close(permuted[place], fusion(x).split(4, dim=1)[source])


def mid(inputs: int) -> MidConcat:
    return MidConcat(last_stages(ModelConfig(visual_width=4), inputs=inputs, first=1)).eval()


def test_sound_joins_pictures_at_its_own_time_and_everywhere_in_the_picture():
    fusion = mid(3)
    seen = []
    fusion.stages.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    picture, sound = torch.randn(2, 2, 3, 4, 5), torch.randn(2, 1, 6, 7)
    with torch.no_grad():
        fusion([picture, sound])
    steps = sound.mean(dim=3).reshape(2, 1, 3, 2).mean(dim=3)  # two steps of sound for each of the picture
    assert torch.equal(seen[0][:, :2], picture)
    for row, column in itertools.product(range(4), range(5)):
        torch.testing.assert_close(seen[0][:, 2:, :, row, column], steps)


def test_pictures_of_another_size_are_brought_to_the_first():
    fusion = mid(4)
    seen = []
    fusion.stages.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    first, second = torch.randn(2, 2, 2, 4, 4), torch.randn(2, 2, 4, 8, 8)
    with torch.no_grad():
        fusion([first, second])
    torch.testing.assert_close(seen[0][:, 2:], F.avg_pool3d(second, 2))
