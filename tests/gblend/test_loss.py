"""The training loss, against PyTorch's own cross-entropy, and learned weights, against what calculus says."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from gblend.config import LossConfig
from gblend.loss import LearnedWeights, blended_loss, class_weights_of

CPU = torch.device("cpu")
LABEL = torch.tensor([0, 1, 2, 0, 1, 2, 2, 2])
LOGITS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
CLASS_WEIGHTS = (0.5, 2.0, 1.25)


@pytest.mark.parametrize(("smoothing", "weighted"), list(itertools.product([0.0, 0.1], [False, True])))
def test_smoothed_and_weighted_cross_entropy_is_that_of_pytorch(smoothing, weighted):
    config = LossConfig(label_smoothing=smoothing, class_weights=CLASS_WEIGHTS if weighted else "equal")
    weights = class_weights_of(config, None, "abc", CPU)
    mask = torch.tensor([True] * 6 + [False] * 2)
    count = mask.sum() if weights is None else weights[LABEL][mask].sum()
    got = blended_loss(
        {"rgb": LOGITS}, LABEL, {"rgb": mask}, {"rgb": 0.5}, {"rgb": count}, loss=config, class_weights=weights
    )
    given = torch.tensor(CLASS_WEIGHTS) if weighted else None
    expected = F.cross_entropy(LOGITS[mask], LABEL[mask], weight=given, label_smoothing=smoothing)
    torch.testing.assert_close(got, 0.5 * expected)


def test_balanced_weights_give_every_class_the_same_say():
    counts = [40, 10, 50]
    weights = class_weights_of(LossConfig(class_weights="balanced"), counts, "abc", CPU)
    totals = weights * torch.tensor(counts)
    torch.testing.assert_close(totals, torch.full((3,), 100 / 3))


def test_balanced_weights_need_a_clip_of_every_class():
    with pytest.raises(ValueError, match="needs clips of every class to train on; there are none of b; give numbers"):
        class_weights_of(LossConfig(class_weights="balanced"), [4, 0, 2], "abc", CPU)


def test_given_class_weights_must_fit_the_classes():
    with pytest.raises(ValueError, match=r"a number for each of 2 classes \(run, jump\), got 3"):
        class_weights_of(LossConfig(class_weights=CLASS_WEIGHTS), None, ("run", "jump"), CPU)


def test_learned_weights_start_as_an_equal_blend_of_sum_1():
    weights, penalty = LearnedWeights(["rgb", "logmel", "fused"])()
    assert {name: pytest.approx(value.item()) for name, value in weights.items()} == dict.fromkeys(weights, 1 / 3)
    assert penalty.item() == pytest.approx(1.5 * torch.log(torch.tensor(3.0)))


def test_learned_weights_end_at_one_over_twice_the_loss():
    """d/ds (exp(-s) L + s / 2) = 0 where exp(-s) = 1 / (2 L)."""
    losses = {"rgb": 2.0, "fused": 0.1}
    learned = LearnedWeights(list(losses))
    optimizer = torch.optim.LBFGS(learned.parameters(), max_iter=100)

    def closure():
        optimizer.zero_grad()
        weights, penalty = learned()
        total = penalty + sum(weights[name] * loss for name, loss in losses.items())
        total.backward()
        return total

    optimizer.step(closure)
    assert learned.values() == pytest.approx({"rgb": 0.25, "fused": 5.0}, rel=1e-3)
