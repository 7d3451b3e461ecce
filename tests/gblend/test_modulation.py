"""OGM-GE: the paper's formula where the fused head is linear, and what it leaves alone."""

import math

import pytest
import torch

from gblend.batches import training_loader
from gblend.inputs import to_inputs
from gblend.model import make_model
from gblend.modulation import factors_of, label_scores, modulate
from tests.gblend.tiny import CLASSES, MODALITIES, tiny_config, tiny_data


def network():
    return make_model(MODALITIES, len(CLASSES), tiny_config().model, seed=0)


def batch(absent=None):
    data = tiny_data(absent=absent)
    found = next(training_loader(data.train, [list(range(8))], (0,)))
    return to_inputs(found.arrays, data.spec), found.present, found.labels


def test_a_linear_fused_head_gives_the_scores_of_the_paper():
    """Softmax of W_u f_u at the label, over the batch; W_u are the columns of the classifier for modality u."""
    model = network().eval()
    dims = [encoder.output_dim for encoder in model.encoders.values()]
    model.heads["fused"] = linear = torch.nn.Linear(sum(dims), len(CLASSES), bias=False)
    inputs, present, labels = batch()
    scores = label_scores(model, inputs, present, labels)
    for name, columns in zip(MODALITIES, linear.weight.split(dims, dim=1), strict=True):
        with torch.no_grad():
            probability = (model.encoders[name](inputs[name]) @ columns.T).softmax(dim=1)
        assert scores[name] == pytest.approx(float(probability[torch.arange(8), labels[""]].mean()), rel=1e-5)


def test_two_modalities_have_the_factors_of_the_paper():
    found = factors_of({"rgb": 0.3, "logmel": 0.6}, alpha=0.4)
    assert found == {"rgb": 1.0, "logmel": pytest.approx(1 - math.tanh(0.4 * 2.0))}


def test_of_three_modalities_each_is_compared_with_the_mean_of_the_others():
    found = factors_of({"rgb": 0.6, "flow": 0.4, "logmel": 0.2}, alpha=0.5)
    assert found == {"rgb": pytest.approx(1 - math.tanh(0.5 * 0.6 / 0.3)), "flow": 1.0, "logmel": 1.0}


@pytest.mark.parametrize("scores", [{"rgb": 0.0, "logmel": 0.0}, {"rgb": 0.25, "logmel": 0.25}])
def test_nobody_is_slowed_where_nobody_is_ahead(scores):
    assert factors_of(scores, alpha=0.5) == {"rgb": 1.0, "logmel": 1.0}


def test_clips_that_lack_a_modality_do_not_lower_its_score():
    model = network().eval()
    inputs, present, labels = batch(absent={"logmel": [0, 3]})
    found = label_scores(model, inputs, present, labels)["logmel"]
    has = present["logmel"]
    only = {name: values[has] for name, values in inputs.items()}
    everywhere = {name: torch.ones(int(has.sum()), dtype=torch.bool) for name in MODALITIES}
    assert int(has.sum()) < 8
    assert found == pytest.approx(label_scores(model, only, everywhere, {"": labels[""][has]})["logmel"])


def test_scoring_leaves_buffers_gradients_mode_and_random_state_alone():
    model = network().train()
    before, state = {n: b.clone() for n, b in model.named_buffers()}, torch.get_rng_state()
    label_scores(model, *batch())
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_encoders_get_their_factor_and_noise_of_the_gradients_spread_and_the_head_stays():
    model = network()
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    before = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    factors = modulate(model, *batch(), alpha=0.5, generator=torch.Generator().manual_seed(2))
    assert sorted(factors.values())[0] < 1.0
    for name, parameter in model.named_parameters():
        kind, modality, *_ = name.split(".")
        change = parameter.grad - before[name] * (factors[modality] if kind == "encoders" else 1.0)
        if kind == "heads":
            assert not change.any(), name
        elif change.numel() >= 200:
            assert float(change.std()) == pytest.approx(float(before[name].std()), rel=0.25), name
            assert abs(float(change.mean())) < 0.25, name


def test_the_same_generator_gives_the_same_noise():
    gradients = []
    for _ in range(2):
        model = network()
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter).cumsum(0)
        modulate(model, *batch(), alpha=0.5, generator=torch.Generator().manual_seed(2))
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_scoring_leaves_frozen_parts_in_eval_mode():
    model = network().train()
    model.encoders["rgb"].eval()
    label_scores(model, *batch())
    assert model.training
    assert model.encoders["logmel"].training
    assert not any(part.training for part in model.encoders["rgb"].modules())
