"""Options of the training step: pieces, clipping, precision, BatchNorm. Several workers are in ``test_collective``."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gblend.config import ComputeConfig, EncodersConfig, ModelConfig, OptimConfig, TrainConfig
from gblend.loop import Position, train
from gblend.measure import measure
from gblend.model import BlendModel, make_model
from gblend.prepare import prepare
from tests.gblend.tiny import CLASSES, MODALITIES, tiny_config, tiny_data

HEADS = (*MODALITIES, "fused")
PLAIN_SGD = OptimConfig(learning_rate=0.1, momentum=0.0, weight_decay=0.0, schedule="constant")


def network_of(config: TrainConfig, **compute) -> BlendModel:
    network = make_model(MODALITIES, len(CLASSES), config.model, seed=0)
    prepare(network, config, ComputeConfig(**compute))
    return network


def one_step(network: BlendModel, config: TrainConfig) -> dict[str, torch.Tensor]:
    """What a step on all clips changes the parameters by."""
    before = {name: values.detach().clone() for name, values in network.named_parameters()}
    weights = dict.fromkeys(HEADS, 0.25)
    train(network, tiny_data(), config, weights=weights, position=Position(start_epoch=0, epochs=1), seed=0)
    return {name: values.detach() - before[name] for name, values in network.named_parameters()}


def test_a_gradient_that_is_too_long_is_scaled_to_the_norm_over_all_parameters_together():
    free = one_step(network_of(config := tiny_config(batch_size=24, optim=PLAIN_SGD)), config)
    norm = sum(float((change / 0.1).double().square().sum()) for change in free.values()) ** 0.5
    for clip, scale in ((0.5 * norm, 0.5), (2.0 * norm, 1.0)):
        config = tiny_config(batch_size=24, optim=replace(PLAIN_SGD, clip_norm=clip))
        for name, change in one_step(network_of(config), config).items():
            torch.testing.assert_close(change, scale * free[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("fusion", ["concat", "se-gate", "nl-gate", "lmf", "mid"])
def test_in_bf16_layers_compute_in_bf16_and_parameters_stay_in_fp32(fusion):
    sizes = {"visual_layers": (1, 1), "visual_width": 4, "audio_layers": (1, 1), "audio_width": 4, "fused_hidden": 8}
    model = ModelConfig(**sizes, fusion=fusion, mid_stages=1)
    config = tiny_config(model=model, batch_size=24, precision="bf16", missing="zero", optim=PLAIN_SGD)
    network, seen = network_of(config), {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            module.register_forward_hook(lambda _m, _x, out, name=name: seen.setdefault(out.dtype, set()).add(name))
    changes = one_step(network, config)
    assert list(seen) == [torch.bfloat16]
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert all(change.isfinite().all() for change in changes.values())


def test_what_bf16_trains_is_measured_in_fp32():
    config = tiny_config(batch_size=24, precision="bf16", optim=PLAIN_SGD)
    network, data = network_of(config), tiny_data()
    one_step(network, config)
    dtypes = set()
    network.heads["rgb"].register_forward_hook(lambda _module, _x, out: dtypes.add(out.dtype))
    measure(network, data.heldout, spec=data.spec)
    assert dtypes == {torch.float32}


def test_bf16_takes_nearly_the_step_of_fp32():
    whole, half = (tiny_config(batch_size=24, precision=name, optim=PLAIN_SGD) for name in ("fp32", "bf16"))
    steps = [torch.cat([c.flatten() for c in one_step(network_of(c), c).values()]) for c in (whole, half)]
    assert 0.0 < float((steps[1] - steps[0]).norm() / steps[0].norm()) < 0.2


class OwnNorm(nn.BatchNorm3d):
    """As networks have it that put more into it than normalising."""


def test_batch_norm_over_workers_refuses_norms_of_other_classes():
    network = make_model(MODALITIES, len(CLASSES), tiny_config().model, seed=0)
    network.encoders["rgb"].stem[1] = OwnNorm(4)
    with pytest.raises(ValueError, match=r"batch_norm sync is for PyTorch's own BatchNorm, .*OwnNorm; use"):
        prepare(network, tiny_config(batch_norm="sync"), ComputeConfig())


def test_batch_norm_over_workers_keeps_the_names_the_values_and_the_answers_of_a_network():
    local, shared = (network_of(tiny_config(batch_norm=name)) for name in ("local", "sync"))
    one, other = local.state_dict(), shared.state_dict()
    assert list(one) == list(other)
    assert all(torch.equal(values, other[name]) for name, values in one.items())
    steps = [one_step(network, tiny_config()) for network in (local, shared)]
    assert all(torch.equal(change, steps[1][name]) for name, change in steps[0].items())


class Small(nn.Module):
    """What is compiled in a few seconds."""

    output_dim = 3

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Linear(channels, 3)

    def forward(self, x):
        return torch.tanh(self.layer(x.mean(dim=(2, 3))))


def sound_alone(**compute) -> tuple[list[float], list[str]]:
    """Measured losses of the branch of log-mel after one epoch, batches of 9 and 8 clips, and which parts compile."""
    own = replace(tiny_config().model, encoders=EncodersConfig(logmel="tests.gblend.test_step:Small"))
    config, data = tiny_config(batch_size=9, optim=PLAIN_SGD, model=own), tiny_data(train=25)
    branch = network_of(config, **compute).branch("logmel")
    train(branch, data, config, weights={"logmel": 1.0}, position=Position(start_epoch=0, epochs=1), seed=0)
    losses = measure(branch, data.heldout, spec=data.spec)["logmel"].loss_nats
    return losses.tolist(), [name for name, part in branch.named_modules() if part._compiled_call_impl is not None]


def test_a_compiled_network_learns_the_same():
    torch._dynamo.utils.counters.clear()
    losses, parts = sound_alone(compile="inductor")
    assert parts == ["encoders.logmel"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # of both sizes; measuring needs none
    assert losses == pytest.approx(sound_alone()[0], rel=1e-3)


def test_the_order_in_memory_changes_no_result():
    config, data, found = tiny_config(batch_size=9), tiny_data(train=25), {}
    for order in ("channels-last", "contiguous"):
        network = network_of(config, memory_format=order)
        one_step(network, config)
        assert network.encoders["rgb"].stem[0].weight.is_contiguous() is (order == "contiguous")
        found[order] = measure(network, data.heldout, spec=data.spec)
    for head, losses in found["contiguous"].items():
        assert losses.loss_nats == pytest.approx(found["channels-last"][head].loss_nats, rel=1e-3)
