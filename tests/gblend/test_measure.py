"""Measured losses, against one clip at a time; and what measuring must not touch."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gblend import measure as measure_module
from gblend.inputs import to_inputs
from gblend.measure import measure, measure_outputs
from gblend.model import BlendModel, make_model
from gblend.predictions import score_heads
from schemas import FeatureSpec
from tests.gblend.tiny import CLASSES, MODALITIES, MemoryClips, tiny_config

HEADS = (*MODALITIES, "fused")
SPEC = FeatureSpec()


def model(seed: int = 0) -> BlendModel:
    """With running statistics of its own, as after training."""
    network = make_model(MODALITIES, len(CLASSES), tiny_config().model, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
    return network


def one_by_one(network: BlendModel, clips: MemoryClips, positions) -> dict[str, list[tuple[float, bool]]]:
    network.eval()
    found: dict[str, list[tuple[float, bool]]] = {name: [] for name in network.head_names}
    for position in positions:
        sample = clips[position, None]
        inputs = to_inputs({name: torch.from_numpy(a)[None] for name, a in sample["arrays"].items()}, SPEC)
        with torch.no_grad():
            answers = network(inputs, {name: torch.tensor([p]) for name, p in sample["present"].items()})
        for name, logits in answers.items():
            loss = F.cross_entropy(logits.double(), torch.tensor([sample["labels"][""]]))
            found[name].append((float(loss), int(logits.argmax()) == sample["labels"][""]))
    return found


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_losses_are_those_of_one_clip_at_a_time(batch, monkeypatch):
    monkeypatch.setattr(measure_module, "MEASURE_BATCH", batch)
    network, clips = model(), MemoryClips(11, seed=0)
    expected = one_by_one(network, clips, range(11))
    for name, losses in measure(network, clips, spec=SPEC).items():
        np.testing.assert_allclose(losses.loss_nats, [loss for loss, _ in expected[name]], rtol=2e-5)
        assert losses.correct.tolist() == [correct for _, correct in expected[name]]


def test_scores_are_means_over_the_clips():
    network, clips = model(), MemoryClips(11, seed=0)
    expected = one_by_one(network, clips, range(11))
    score = measure(network, clips, spec=SPEC)["fused"].score()
    assert score.loss_nats == pytest.approx(np.mean([loss for loss, _ in expected["fused"]]), rel=1e-5)
    assert (score.value, score.count) == (np.mean([correct for _, correct in expected["fused"]]), 11)


def test_chosen_positions_come_back_in_the_order_asked_for():
    network, clips = model(), MemoryClips(11, seed=0)
    everywhere = measure(network, clips, spec=SPEC)["rgb"].loss_nats
    chosen = measure(network, clips, [7, 0, 10], spec=SPEC)["rgb"].loss_nats
    np.testing.assert_allclose(chosen, everywhere[[7, 0, 10]], rtol=1e-5)


def test_every_clip_is_drawn_once_and_in_its_central_window(monkeypatch):
    monkeypatch.setattr(measure_module, "MEASURE_BATCH", 4)
    clips = MemoryClips(11, seed=0)
    measure(model(), clips, spec=SPEC)
    assert sorted(clips.drawn) == [(position, None) for position in range(11)]


def test_a_branch_is_measured_on_its_own_modality_alone():
    clips = MemoryClips(5, seed=0)
    assert list(measure(model().branch("logmel"), clips, spec=SPEC)) == ["logmel"]


def test_a_clip_that_lacks_the_modality_does_not_count_for_its_head():
    clips = MemoryClips(10, seed=0, absent={"logmel": [2, 5]})
    found = measure(model(), clips, spec=SPEC)
    assert found["logmel"].counted.tolist() == [i not in (2, 5) for i in range(10)]
    assert found["rgb"].score().count == found["fused"].score().count == 10
    kept = measure(model(), clips, [i for i in range(10) if i not in (2, 5)], spec=SPEC)
    assert found["logmel"].score().loss_nats == pytest.approx(kept["logmel"].score().loss_nats, rel=1e-6)


def test_the_fused_head_counts_clips_that_have_anything():
    clips = MemoryClips(6, seed=0, absent={"rgb": [0, 1], "flow": [0, 1], "logmel": [0]})
    assert measure(model(), clips, spec=SPEC)["fused"].counted.tolist() == [False, *[True] * 5]


def test_a_head_without_a_single_clip_scores_nan():
    clips = MemoryClips(4, seed=0, absent={"flow": [0, 1, 2, 3]})
    score = measure(model(), clips, spec=SPEC)["flow"].score()
    assert math.isnan(score.loss_nats)
    assert score.count == 0


def test_losses_that_are_not_numbers_are_reported_not_hidden():
    network = model()
    with torch.no_grad():
        network.heads["rgb"].bias.fill_(float("nan"))
    found = measure(network, MemoryClips(4, seed=0), spec=SPEC)
    assert np.isnan(found["rgb"].loss_nats).all()
    assert np.isfinite(found["fused"].loss_nats).all()


def test_a_head_that_answers_nan_is_right_about_nothing():
    network = model()
    with torch.no_grad():
        network.heads["rgb"].bias.fill_(float("nan"))
    assert not measure(network, MemoryClips(6, seed=0), spec=SPEC)["rgb"].correct.any()


def test_outputs_are_the_log_probabilities_of_one_clip_at_a_time(monkeypatch):
    monkeypatch.setattr(measure_module, "MEASURE_BATCH", 4)
    network, clips = model(), MemoryClips(11, seed=0)
    chosen = [7, 0, 10, 3, 5]
    found = measure_outputs(network, clips, chosen, spec=SPEC)[""]
    assert found.heads == HEADS
    assert found.log_probs.dtype == np.float32
    assert found.labels.tolist() == [clips[position, None]["labels"][""] for position in chosen]
    assert found.positions.tolist() == chosen
    network.eval()
    for at, position in enumerate(chosen):
        sample = clips[position, None]
        inputs = to_inputs({name: torch.from_numpy(a)[None] for name, a in sample["arrays"].items()}, SPEC)
        with torch.no_grad():
            answers = network(inputs, {name: torch.tensor([p]) for name, p in sample["present"].items()})
        for head, name in enumerate(HEADS):
            expected = F.log_softmax(answers[name].double(), dim=1)[0]
            np.testing.assert_allclose(found.log_probs[head, at], expected, rtol=2e-5, atol=1e-6)


def test_outputs_say_nothing_for_a_head_whose_modality_a_clip_lacks():
    clips = MemoryClips(10, seed=0, absent={"logmel": [2, 5]})
    found = measure_outputs(model(), clips, spec=SPEC)[""]
    head = HEADS.index("logmel")
    assert np.flatnonzero(~found.counted[head]).tolist() == [2, 5]
    assert (found.log_probs[head, [2, 5]] == 0).all()
    assert found.counted.sum() == 4 * 10 - 2


def test_heads_scored_from_outputs_have_the_scores_that_measuring_gives():
    network, clips = model(), MemoryClips(11, seed=0, absent={"flow": [1, 4]})
    measured = {head: losses.score() for head, losses in measure(network, clips, spec=SPEC).items()}
    assert score_heads(measure_outputs(network, clips, spec=SPEC)[""]) == measured


@pytest.mark.parametrize("way", [measure, measure_outputs])
@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_no_trace(training, way):
    network = model().train(training)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    state = {name: values.clone() for name, values in network.state_dict().items()}
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    way(network, MemoryClips(9, seed=0), spec=SPEC)
    assert all(module.training is training for module in network.modules())
    assert all(torch.equal(values, state[name]) for name, values in network.state_dict().items())
    assert all((parameter.grad == 1).all() for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_the_mode_is_restored_when_reading_fails():
    class Broken(MemoryClips):
        def only(self, modalities):
            return self

        def __getitem__(self, draw):
            raise ValueError("damaged")

    network = model().train()
    with pytest.raises(ValueError, match="damaged"):
        measure(network, Broken(4, seed=0), spec=SPEC)
    assert network.training
