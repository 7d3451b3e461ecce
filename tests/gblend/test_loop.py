"""Training, against a loop written by hand, and the gradient of a blend against those of its parts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gblend.batches import training_batches
from gblend.config import OptimConfig
from gblend.inputs import to_inputs
from gblend.loop import Position, make_optimizer, train
from gblend.loss import blended_loss
from gblend.model import BlendModel, make_model
from gblend.schedule import learning_rate_at
from tests.gblend.tiny import CLASSES, MODALITIES, tiny_config, tiny_data

HEADS = (*MODALITIES, "fused")
EQUAL = dict.fromkeys(HEADS, 0.25)


def model(config=None) -> BlendModel:
    return make_model(MODALITIES, len(CLASSES), (config or tiny_config()).model, seed=0)


def copy_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: values.clone() for name, values in network.state_dict().items()}


def batch_of(data, positions, epoch_entropy) -> tuple[dict, torch.Tensor, dict]:
    samples = [data.train[i, (*epoch_entropy, i)] for i in positions]
    arrays = {name: torch.from_numpy(np.stack([s["arrays"][name] for s in samples])) for name in MODALITIES}
    present = {name: torch.tensor([s["present"][name] for s in samples]) for name in MODALITIES}
    return to_inputs(arrays, data.spec), torch.tensor([s["labels"][""] for s in samples]), present


def train_some(network, data, config, weights=None, *, start=0, epochs=2, **more) -> None:
    position = Position(start_epoch=start, epochs=epochs)
    train(network, data, config, weights=weights or EQUAL, position=position, seed=7, **more)


@pytest.mark.parametrize("name", ["sgd", "adamw", "adam", "adagrad"])
def test_training_is_the_loop_one_would_write_by_hand(name):
    config = tiny_config(optim=OptimConfig(name=name, learning_rate=0.02, warmup_epochs=1.0))
    weights = {"rgb": 0.5, "flow": 0.2, "logmel": 0.1, "fused": 0.2}
    data, ours, theirs = tiny_data(train=20), model(config), model(config)
    for network in (ours, theirs):
        network.heads["fused"][0].p = 0.0
    train_some(ours, data, config, weights)

    theirs.train()
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    kind = kinds.get(name, torch.optim.Adagrad)
    optimizer = kind(theirs.parameters(), lr=0.02, weight_decay=config.optim.weight_decay, **momentum)
    for epoch in range(2):
        batches = training_batches(20, batch_size=6, entropy=(7, 0, epoch), rank=0, world=1)
        for step, positions in enumerate(batches):
            inputs, label, present = batch_of(data, positions, (7, 0, epoch))
            loss = sum(
                weights[head] * F.cross_entropy(logits, label) for head, logits in theirs(inputs, present).items()
            )
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(config.optim, epoch + step / len(batches), config.epochs)
            optimizer.step()
    for key, values in ours.state_dict().items():
        torch.testing.assert_close(values, theirs.state_dict()[key], rtol=2e-4, atol=1e-6)


def test_the_gradient_of_a_blend_is_the_weighted_sum_of_the_gradients_of_its_losses():
    weights = {"rgb": 0.6, "flow": 0.05, "logmel": 0.1, "fused": 0.25}
    data, network = tiny_data(), model().eval()
    inputs, label, present = batch_of(data, range(8), (0,))
    masks = {head: torch.ones(8, dtype=torch.bool) for head in HEADS}

    def gradients(loss: torch.Tensor) -> dict[str, torch.Tensor]:
        names, parameters = zip(*network.named_parameters(), strict=True)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, found, strict=True)}

    counts = dict.fromkeys(HEADS, 8.0)
    blend = gradients(blended_loss(network(inputs, present), label, masks, weights, counts))
    single = {head: gradients(F.cross_entropy(network(inputs, present)[head], label)) for head in HEADS}
    for name, gradient in blend.items():
        expected = sum(weights[head] * single[head][name] for head in HEADS)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_a_head_of_weight_zero_and_what_only_it_reads_keep_every_bit():
    network = model()
    before = copy_of(network)
    train_some(network, tiny_data(), tiny_config(), {"rgb": 0.5, "flow": 0.0, "logmel": 0.5, "fused": 0.0})
    after = network.state_dict()
    parameters = {name for name, _ in network.named_parameters()}
    still = {name for name in parameters if torch.equal(after[name], before[name])}
    assert still == {n for n in parameters if n.startswith(("encoders.flow", "heads.flow", "heads.fused"))}


def test_a_head_whose_weight_becomes_zero_stops_where_it_is_despite_its_momentum():
    network, config = model(), tiny_config()
    optimizer = make_optimizer(network, config)
    train_some(network, tiny_data(), config, epochs=1, optimizer=optimizer)
    before = copy_of(network)
    train_some(network, tiny_data(), config, {**EQUAL, "rgb": 0.0}, start=1, epochs=1, optimizer=optimizer)
    assert torch.equal(network.state_dict()["heads.rgb.weight"], before["heads.rgb.weight"])
    assert not torch.equal(network.state_dict()["heads.flow.weight"], before["heads.flow.weight"])


def test_a_diverged_head_of_weight_zero_does_not_spread():
    network = model()
    with torch.no_grad():
        network.heads["rgb"].weight.fill_(float("nan"))
    train_some(network, tiny_data(), tiny_config(), {**EQUAL, "rgb": 0.0})
    others = {n: v for n, v in network.state_dict().items() if not n.startswith("heads.rgb")}
    assert all(torch.isfinite(values).all() for values in others.values())


def test_clips_that_lack_a_modality_do_not_count_in_its_loss():
    logits = {"rgb": torch.randn(6, 3, generator=torch.Generator().manual_seed(0))}
    label, mask = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([True, True, False, True, False, True])
    got = blended_loss(logits, label, {"rgb": mask}, {"rgb": 0.5}, {"rgb": 4.0})
    torch.testing.assert_close(got, 0.5 * F.cross_entropy(logits["rgb"][mask], label[mask]))


def test_a_modality_that_no_clip_has_trains_nothing_and_breaks_nothing():
    data = tiny_data(absent={"logmel": list(range(9))}, train=9)
    network = model()
    before = copy_of(network)
    config = tiny_config(optim=OptimConfig(weight_decay=0.0))
    train_some(network, data, config)
    assert torch.equal(network.state_dict()["heads.logmel.weight"], before["heads.logmel.weight"])
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


def test_the_learning_rate_follows_the_schedule_from_the_epoch_training_starts_at():
    config = tiny_config(epochs=4, optim=OptimConfig(learning_rate=0.1, schedule="cosine"))
    network, rates, reported = model(config), [], []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    optimizer = Watched(network.parameters(), lr=123.0)
    train_some(
        network, tiny_data(), config, start=1, optimizer=optimizer, after_epoch=lambda *said: reported.append(said)
    )
    expected = [0.05 * (1 + np.cos(np.pi * (1 + step / 4) / 4)) for step in range(8)]  # 24 clips in batches of 6
    assert rates == pytest.approx(expected)
    assert reported == [(2, pytest.approx(expected[3])), (3, pytest.approx(expected[7]))]


def test_two_super_epochs_with_one_optimizer_are_one_run():
    config, networks = tiny_config(), [model(), model()]
    optimizer = make_optimizer(networks[0], config)
    train_some(networks[0], tiny_data(), config, start=0, epochs=1, optimizer=optimizer)
    train_some(networks[0], tiny_data(), config, start=1, epochs=2, optimizer=optimizer)
    train_some(networks[1], tiny_data(), config, start=0, epochs=3)
    one, other = (network.state_dict() for network in networks)
    assert all(torch.equal(values, other[name]) for name, values in one.items())


def test_training_does_not_depend_on_global_random_state_and_leaves_it_alone():
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before, network = torch.get_rng_state(), model()
        train_some(network, tiny_data(), tiny_config())
        assert torch.equal(torch.get_rng_state(), before)
        results.append(network.state_dict())
    assert all(torch.equal(values, results[1][name]) for name, values in results[0].items())


def test_no_gpu_that_the_network_is_not_on_is_seeded(monkeypatch):
    def forbidden(seed):
        raise AssertionError("a GPU's generator was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", forbidden)
    train_some(model(), tiny_data(), tiny_config(), epochs=1)


def test_weights_must_name_the_heads_of_the_network():
    with pytest.raises(ValueError, match=r"weights for \['fused', 'rgb'\], but the network's heads are"):
        train_some(model(), tiny_data(), tiny_config(), {"rgb": 0.5, "fused": 0.5})
