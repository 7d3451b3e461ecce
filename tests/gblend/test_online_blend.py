"""Weights for a loop of the user's own: those of the algorithm, and nothing of the run is touched by finding them."""

import copy
import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gblend import BlendConfig, BlendModel, OnlineBlend
from gblend.randomness import undisturbed
from tests.gblend.own_loop import HELDOUT, TRAINING, fit, net

HEADS = ("sound", "picture", "fused")
EPOCHS = 4


def online(train=None, loader: DataLoader | None = None, **changes) -> OnlineBlend:
    loader = loader or DataLoader(TRAINING, 16, shuffle=True)
    settings = {
        "epochs": EPOCHS,
        "train": train or (lambda network, probe: fit(network, probe.weights, probe.epochs, loader)),
        "train_batches": DataLoader(TRAINING, 16),
        "valid_batches": DataLoader(HELDOUT, 16),
        "blend": BlendConfig(first_epochs=3, next_epochs=2),
    }
    return OnlineBlend(**{**settings, **changes})


def start_of_run() -> None:
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002


def run(weights_at, loader: DataLoader) -> dict[str, torch.Tensor]:
    start_of_run()
    network = net()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(EPOCHS):
        fit(network, weights_at(epoch, network), 1, loader, optimizer)
    return network.state_dict()


def mean_losses(network: nn.Module, data: TensorDataset) -> dict[str, float]:
    network.eval()
    with torch.no_grad():
        logits = network(*data.tensors[:2])
    return {head: float(F.cross_entropy(logits[head], data.tensors[2])) for head in HEADS}


def test_weights_are_g_over_o_squared_of_every_head_trained_alone():
    def train(network, probe):  # without chance, so that this test can do the same by itself
        optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
        for _ in range(probe.epochs):
            network.eval()
            optimizer.zero_grad()
            sound, picture, labels = TRAINING.tensors
            F.cross_entropy(network(sound, picture)[probe.head], labels).backward()
            optimizer.step()

    found = online(train).weights_at(0, net())
    start, scores = net(), []
    for head in HEADS:
        branch = net()
        optimizer = torch.optim.SGD(branch.parameters(), lr=0.3)
        branch.eval()
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(branch(*TRAINING.tensors[:2])[head], TRAINING.tensors[2]).backward()
            optimizer.step()
        train_change, valid_change = (
            mean_losses(branch, data)[head] - mean_losses(start, data)[head] for data in (TRAINING, HELDOUT)
        )
        scores.append(max(-valid_change, 0) / (valid_change - train_change) ** 2)
    assert found == pytest.approx({h: s / sum(scores) for h, s in zip(HEADS, scores, strict=True)}, rel=1e-4)


def test_a_run_that_asks_for_weights_ends_with_the_bits_of_one_that_is_given_them():
    loader = DataLoader(TRAINING, 16, shuffle=True)
    blend = online(loader=loader)
    asked = run(blend.weights_at, loader)
    assert [(found.epoch, found.probe_epochs) for found in blend.estimates] == [(0, 3), (3, 1)]
    given = {epoch: blend.estimates[epoch // 3].loss_weights for epoch in range(EPOCHS)}
    expected = run(lambda epoch, _: given[epoch], loader)
    assert all(torch.equal(values, expected[name]) for name, values in asked.items())


def test_pythons_own_generator_is_put_back_as_well():  # by itself: in tests beartype draws from it too
    with undisturbed():
        before = random.getstate()
        random.random()
    assert random.getstate() == before


def test_a_loaders_own_generator_is_put_back_and_gives_all_probes_the_same_order():
    generator = torch.Generator().manual_seed(3)
    loader, orders = DataLoader(TRAINING, 16, shuffle=True, generator=generator), []

    def train(network, probe):
        orders.append([sound.sum().item() for sound, _, _ in loader])

    before = generator.get_state()
    online(train, generators=(generator,)).weights_at(0, net())
    assert torch.equal(generator.get_state(), before)
    assert orders[0] == orders[1] == orders[2]


def test_all_probes_of_an_estimate_draw_the_same_numbers_and_those_of_the_next_draw_others():
    drawn = []

    def train(network, probe):
        drawn.append((torch.rand(1).item(), np.random.rand(), random.random()))  # noqa: NPY002

    blend = online(train)
    for epoch in range(EPOCHS):
        blend.weights_at(epoch, net())
    assert drawn[:3] == drawn[:1] * 3
    assert drawn[3:] == drawn[3:4] * 3
    assert len(set(drawn)) == 2


def test_the_network_keeps_its_mode_and_gradients_and_probes_are_copies_in_training_mode_without():
    network = net().eval()
    network.heads["sound"].weight.grad = torch.ones(3, 8)
    seen = []

    def train(branch, probe):
        seen.append((branch.training, branch.heads["sound"].weight.grad))

    online(train).weights_at(0, network)
    assert seen == [(True, None)] * 3
    assert not network.training
    assert torch.equal(network.heads["sound"].weight.grad, torch.ones(3, 8))


def test_what_a_head_does_not_read_stays_as_it_is_in_its_probe():
    network, probed = net(), {}

    def train(branch, probe):
        fit(branch, probe.weights, probe.epochs, DataLoader(TRAINING, 16))
        probed[probe.head] = branch

    online(train).weights_at(0, network)
    assert torch.equal(probed["sound"].picture[0].weight, network.picture[0].weight)
    assert not torch.equal(probed["sound"].sound[0].weight, network.sound[0].weight)


def test_of_a_blend_model_only_the_branch_is_copied():
    torch.manual_seed(0)
    encoders = {"sound": nn.Linear(5, 8), "picture": nn.Linear(3, 8)}
    for encoder in encoders.values():
        encoder.output_dim = 8
    model = BlendModel(
        encoders=encoders, heads={name: nn.Linear(8, 3) for name in encoders} | {"fused": nn.Linear(16, 3)}
    )
    branches = {}
    batches = [({"sound": sound, "picture": picture}, labels) for sound, picture, labels in DataLoader(TRAINING, 16)]
    blend = online(
        lambda branch, probe: branches.update({probe.head: branch}), train_batches=batches, valid_batches=batches
    )
    blend.weights_at(0, model)
    assert {head: branch.modalities for head, branch in branches.items()} == {
        "sound": ("sound",),
        "picture": ("picture",),
        "fused": ("sound", "picture"),
    }


def test_a_restart_goes_on_with_the_weights_it_had_and_without_a_probe():
    blend = online()
    weights = blend.weights_at(0, net())
    state = json.loads(json.dumps(blend.state_dict()))

    def train(network, probe):
        raise AssertionError("a probe of an estimate that is there")

    again = online(train)
    again.load_state_dict(state)
    assert again.weights_at(0, net()) == weights
    assert again.weights_at(2, net()) == weights


def test_smoothing_reads_the_estimate_before():
    blend = online(blend=BlendConfig(first_epochs=3, next_epochs=2, smoothing=0.5))
    for epoch in range(EPOCHS):
        blend.weights_at(epoch, net())
    assert blend.estimates[1].previous_weights == blend.estimates[0].weights


def test_samples_a_head_cannot_answer_for_are_left_out_for_it_alone():
    def forward(network, batch):
        sound, picture, labels = batch
        silent = sound[:, 0] < 0
        by_head = {"sound": labels.masked_fill(silent, -1), "picture": labels, "fused": labels}
        return network(sound, picture), by_head

    blend = online(forward=forward)
    blend.weights_at(0, net())
    audible = int((HELDOUT.tensors[0][:, 0] >= 0).sum())
    assert 0 < audible < 30
    assert blend.estimates[0].valid_clips == (audible, 30, 30)


def test_a_loss_that_is_one_for_a_wrong_answer_makes_o_and_g_of_error_rates():
    blend = online(loss=lambda logits, labels: (logits.argmax(dim=1) != labels).float())
    network = net()
    blend.weights_at(0, network)
    with torch.no_grad():
        wrong = network.eval()(*HELDOUT.tensors[:2])["sound"].argmax(dim=1) != HELDOUT.tensors[2]
    assert blend.estimates[0].start_valid[0] == pytest.approx(wrong.float().mean().item())


def refused(match: str, *, epoch: int = 0, network: nn.Module | None = None, train=None, **changes) -> None:
    with pytest.raises(ValueError, match=match):
        online(train or (lambda branch, probe: None), **changes).weights_at(epoch, network or net())


def test_a_function_that_trains_the_runs_network_is_found_out():
    network = net()
    refused(
        "train changed the run's own network",
        train=lambda branch, probe: fit(network, probe.weights, 1, DataLoader(TRAINING, 16)),
        network=network,
    )


def test_batches_in_another_order_each_time_are_found_out():
    refused("valid_batches brought other samples", valid_batches=DataLoader(HELDOUT, 16, shuffle=True))


def test_batches_that_are_there_only_once_are_found_out():
    refused("no batch to measure", valid_batches=iter(list(DataLoader(HELDOUT, 16))))


def test_a_branch_that_shares_parameters_with_the_network_is_found_out():
    refused("what it returned for sound shares parameters", branch=lambda network, head: copy.copy(network))


def test_a_loss_that_is_a_mean_is_refused():
    refused("loss must return one number for each of 16 samples", loss=F.cross_entropy)


def test_a_network_that_answers_with_a_tensor_is_refused():
    batches = [(torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64))]
    refused(
        "the network must answer with a dict", network=nn.Linear(5, 3), train_batches=batches, valid_batches=batches
    )


def test_labels_that_lack_a_head_are_refused():
    refused(
        r"labels must have one entry for every head, and there is none for \w+; they have other",
        forward=lambda network, batch: (network(*batch[:-1]), {"other": batch[-1]}),
    )


def test_weights_in_the_middle_of_a_super_epoch_need_its_estimate():
    refused("epoch 2 is within the super-epoch that began at 0", epoch=2)


def test_an_epoch_beyond_the_run_is_refused():
    refused("epoch must be in 0 to 3", epoch=4)
