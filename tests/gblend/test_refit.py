"""The refitted fused head: trained from scratch on trunks that stay, beside a run that does not notice."""

import copy
from dataclasses import replace

import pytest
import torch

from gblend.config import BlendConfig, OptimConfig
from gblend.heads import FUSED
from gblend.measure import measure
from gblend.methods import RunSpec
from gblend.model import make_model
from gblend.refit import refit
from gblend.runner import Runner
from tests.gblend.tiny import CLASSES, MODALITIES, tiny_config, tiny_data


def network(seed: int = 0):
    return make_model(MODALITIES, len(CLASSES), tiny_config().model, seed=seed)


def head_of(model):
    return copy.deepcopy(model.heads[FUSED].state_dict())


def refitted(model, **changes):
    fresh = head_of(network(seed=7))
    return refit(model, tiny_data(), tiny_config(**changes), fresh_head=fresh, seed=0), fresh


def test_only_the_head_is_trained_and_the_network_is_left_as_it_was():
    model = network()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found, fresh = refitted(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, values in found.encoders.state_dict().items():  # parameters, and the statistics of BatchNorm
        assert torch.equal(values, before[f"encoders.{name}"]), name
    assert not any(torch.equal(values, fresh[name]) for name, values in found.heads[FUSED].state_dict().items())


def test_a_fusion_with_parameters_and_statistics_stays_as_it_was():
    layers = {"visual_layers": (1, 1), "audio_layers": (1, 1), "mid_stages": 1}
    config = tiny_config(model=replace(tiny_config().model, fusion="mid", **layers))
    model = make_model(MODALITIES, len(CLASSES), config.model, seed=0)
    before = copy.deepcopy(model.state_dict())
    found = refit(model, tiny_data(), config, fresh_head=head_of(model), seed=0)
    below = {name: values for name, values in found.state_dict().items() if not name.startswith("heads.")}
    assert any(name.startswith("fusion.") and name.endswith("running_mean") for name in below)
    assert all(torch.equal(values, before[name]) for name, values in below.items())


def test_it_starts_from_the_given_head_not_from_the_trained_one():
    slow = OptimConfig(learning_rate=1e-12, weight_decay=0.0, schedule="constant")
    found, fresh = refitted(network(), optim=slow)
    for name, values in found.heads[FUSED].state_dict().items():
        torch.testing.assert_close(values, fresh[name], rtol=0, atol=1e-8)


def test_it_goes_through_the_whole_schedule(monkeypatch):
    rates = []
    step = torch.optim.SGD.step

    def watched(self, closure=None):
        rates.append(self.param_groups[0]["lr"])
        return step(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    optim = OptimConfig(learning_rate=1.0, schedule="step", milestones=(3,), warmup_epochs=1.5)
    refitted(network(), epochs=6, optim=optim, blend=BlendConfig(refit_epochs=2))
    # 8 steps for 6 epochs of the schedule: .75 of an epoch each.
    assert rates == pytest.approx([0.0, 0.5, 1.0, 1.0, 0.1, 0.1, 0.1, 0.1])


def test_a_run_is_the_same_with_and_without_it_and_says_what_it_cost(tmp_path):
    results = {}
    for epochs in (0, 2):
        config = tiny_config(blend=replace(tiny_config().blend, refit_epochs=epochs))
        runner = Runner(data=tiny_data(), config=config, data_path="memory")
        results[epochs] = runner.run(RunSpec(method="equal", seed=0), str(tmp_path / str(epochs)))
    one, other = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("0", "2"))
    assert all(torch.equal(values, other[name]) for name, values in one.items())
    assert [result.refit_epochs for result in results.values()] == [0, 2]
    assert results[0].branch_epochs == results[2].branch_epochs
    assert results[0].scores == results[2].scores
    without, with_refit = (results[epochs].predictions.scores["test"] for epochs in (0, 2))
    assert with_refit == {**without, "refit": with_refit["refit"]}


def test_the_head_that_was_scored_is_the_one_saved(tmp_path):
    runner = Runner(data=tiny_data(), config=tiny_config(), data_path="memory")
    result = runner.run(RunSpec(method="equal", seed=0), str(tmp_path))
    model = network(seed=99)
    model.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    model.heads[FUSED].load_state_dict(torch.load(tmp_path / "refit.pt", weights_only=True))
    data = tiny_data()
    assert (
        measure(model, data.splits["test"], spec=data.spec)[FUSED].score() == result.predictions.scores["test"]["refit"]
    )


@pytest.mark.parametrize("method", ["uni:rgb", "naive"])
def test_a_run_of_one_head_is_not_refitted(tmp_path, method):
    runner = Runner(data=tiny_data(), config=tiny_config(), data_path="memory")
    result = runner.run(RunSpec(method=method, seed=0), str(tmp_path))
    assert result.refit_epochs == 0
    assert result.predictions is None
