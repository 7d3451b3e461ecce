"""Probes: the same side by side or one after another, one pass over the clips, and no trace in the run."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gblend import probes as probes_module
from gblend.config import BlendConfig, EncodersConfig, LossConfig, OptimConfig
from gblend.estimate import ENDS
from gblend.loop import Learner, Position, make_optimizer, train, train_together
from gblend.model import make_model
from gblend.moments import PARTS, measure_both
from gblend.probes import Probes
from tests.gblend.tiny import CLASSES, MODALITIES, tiny_config, tiny_data

HEADS = (*MODALITIES, "fused")
AHEAD = Position(start_epoch=1, epochs=2)


def network():
    return make_model(MODALITIES, len(CLASSES), tiny_config().model, seed=0)


def learner(model, config):
    weights = dict.fromkeys(model.head_names, 1.0)
    return Learner(model=model, weights=weights, optimizer=make_optimizer(model, config))


def probes_of(model, data, config, start):
    probes = Probes(model=model, data=data, config=config, ahead=AHEAD, seed=5)
    probes.run()
    return probes.losses(start)


def probe(model, data, **blend):
    config = tiny_config(blend=BlendConfig(**blend))
    return probes_of(model, data, config, measure_both(model, data, config.loss))


def test_branches_trained_side_by_side_end_with_the_bits_of_branches_trained_alone():
    data, config = tiny_data(train=25, absent={"logmel": [0, 3]}), tiny_config(optim=OptimConfig(name="adam"))
    heads = (*HEADS, "fused")  # two with dropout: each draws on a random state of its own
    together = [network().branch(head) for head in heads]
    alone = [network().branch(head) for head in heads]
    train_together([learner(m, config) for m in together], data, config, position=AHEAD, seed=5, stream=2)
    for model in alone:
        train(model, data, config, weights={model.head_names[0]: 1.0}, position=AHEAD, seed=5, stream=2)
    assert together[-1].heads["fused"][0].p > 0
    for one, other in zip(together, alone, strict=True):
        for name, values in one.state_dict().items():
            assert torch.equal(values, other.state_dict()[name]), name


def test_shared_and_sequential_probes_find_the_same_losses():
    shared, sequential = (probe(network(), tiny_data(), probes=kind) for kind in ("shared", "sequential"))
    assert list(shared) == list(sequential) == list(HEADS)
    for head in HEADS:
        for end in ENDS:
            for part in PARTS:
                one, other = (getattr(getattr(found[head], end), part) for found in (shared, sequential))
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("fusion", ["mid", "se-gate", "nl-gate", "lmf"])
def test_so_they_do_with_every_fusion(fusion):
    layers = {"visual_layers": (1, 1), "audio_layers": (1, 1), "mid_stages": 1}
    model = replace(tiny_config().model, fusion=fusion, **layers)
    losses = []
    for kind in ("shared", "sequential"):
        config = tiny_config(model=model, blend=BlendConfig(probes=kind))
        network, data = make_model(MODALITIES, len(CLASSES), model, seed=0), tiny_data()
        found = probes_of(network, data, config, measure_both(network, data, config.loss))
        losses.append([found[head].end_valid.loss_nats for head in HEADS])
    np.testing.assert_array_equal(*losses)


@pytest.mark.parametrize(("kind", "networks_at_once"), [("shared", 4), ("sequential", 1)])
def test_sequential_probes_hold_one_network_at_a_time(kind, networks_at_once, monkeypatch):
    seen = []
    together = probes_module.train_together

    def watched(learners, *args, **settings):
        seen.append(len(learners))
        return together(learners, *args, **settings)

    monkeypatch.setattr(probes_module, "train_together", watched)
    probe(network(), tiny_data(), probes=kind)
    assert set(seen) == {networks_at_once}


def test_a_shared_pass_decodes_every_clip_once_an_epoch_for_all_probes():
    data = tiny_data()
    probe(network(), data)
    drawn = [position for position, entropy in data.train.drawn if entropy is not None]
    assert sorted(drawn) == sorted(list(range(24)) * AHEAD.epochs)


@pytest.mark.parametrize("kind", ["shared", "sequential"])
def test_probing_leaves_the_network_and_the_random_state_as_they_are(kind):
    model = network().train()
    before, state = {n: v.clone() for n, v in model.state_dict().items()}, torch.get_rng_state()
    probe(model, tiny_data(), probes=kind)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_probes_train_on_their_part_of_the_clips_only():
    part = [1, 2, 3, 5, 8, 13, 21]
    data = replace(tiny_data(), probe_part=part, train_slice=part)
    probe(network(), data)
    drawn = [position for position, entropy in data.train.drawn if entropy is not None]
    assert sorted(drawn) == sorted(part * AHEAD.epochs)


def test_the_losses_before_a_probe_are_those_of_the_heads_of_the_run():
    model, data = network(), tiny_data()
    found = probe(model, data)
    for head in HEADS:
        alone = measure_both(model.branch(head), data, LossConfig())
        np.testing.assert_array_equal(found[head].start_valid.loss_nats, alone.heldout[head].loss_nats)
        np.testing.assert_array_equal(found[head].start_train.loss_nats, alone.train[head].loss_nats)


class InPlace(torch.nn.Module):
    """A user's network that changes its input."""

    output_dim = 3

    def __init__(self, channels):
        super().__init__()
        self.layer = torch.nn.Linear(channels, 3)

    def forward(self, x):
        return self.layer(x.sub_(0.5).mean(dim=(2, 3, 4)))


def test_a_users_network_that_changes_its_input_does_not_reach_the_probes_beside_it():
    own = replace(tiny_config().model, encoders=EncodersConfig(rgb="tests.gblend.test_probes:InPlace"))
    found = []
    for kind in ("shared", "sequential"):
        model, data = make_model(MODALITIES, len(CLASSES), own, seed=0), tiny_data()
        found.append(probe(model, data, probes=kind)["fused"].end_valid.loss_nats)
    np.testing.assert_array_equal(*found)


def test_both_ends_of_a_probe_are_measured_by_the_users_loss_it_trains_on(tmp_path, monkeypatch):
    """Cross-entropy in bits trains and measures like cross-entropy, times 1 / ln 2."""
    (tmp_path / "own_bits.py").write_text(
        "import math\nimport torch.nn.functional as F\n\n"
        "def bits(logits, label):\n    return F.cross_entropy(logits, label, reduction='none') / math.log(2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model, data = network(), tiny_data()
    found = {}
    for own in (None, "own_bits:bits"):
        # Adam's steps do not depend on the loss's unit.
        config = tiny_config(loss=LossConfig(callable=own), optim=OptimConfig(name="adam", weight_decay=0.0))
        start = measure_both(model, data, config.loss)
        found[own] = probes_of(model, data, config, start)
    for head in HEADS:
        for end in ("start_train", "start_valid", "end_train", "end_valid"):
            nats, bits = (getattr(found[own][head], end).loss_nats for own in (None, "own_bits:bits"))
            np.testing.assert_allclose(bits * np.log(2), nats, rtol=1e-2)
