"""Training losses, against PyTorch's own, and learned weights, against what calculus says."""

import itertools
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from gblend.config import LossConfig
from gblend.loss import LearnedWeights, blended_loss, class_weights_of, clip_losses
from schemas import Task

CPU = torch.device("cpu")
ABC = Task(name="action", kind="single", classes=("a", "b", "c"))
LABEL = torch.tensor([0, 1, 2, 0, 1, 2, 2, 2])
LOGITS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
CLASS_WEIGHTS = (0.5, 2.0, 1.25)


@pytest.mark.parametrize(("smoothing", "weighted"), list(itertools.product([0.0, 0.1], [False, True])))
def test_smoothed_and_weighted_cross_entropy_is_that_of_pytorch(smoothing, weighted):
    config = LossConfig(label_smoothing=smoothing, class_weights=CLASS_WEIGHTS if weighted else "equal")
    weights = class_weights_of(config, None, ABC, CPU)
    mask = torch.tensor([True] * 6 + [False] * 2)
    count = mask.sum() if weights is None else weights[LABEL][mask].sum()
    got = blended_loss(
        {"rgb": LOGITS},
        {"": LABEL},
        {"rgb": mask},
        {"rgb": 0.5},
        {"rgb": count},
        loss=config,
        class_weights={"": weights},
    )
    given = torch.tensor(CLASS_WEIGHTS) if weighted else None
    expected = F.cross_entropy(LOGITS[mask], LABEL[mask], weight=given, label_smoothing=smoothing)
    torch.testing.assert_close(got, 0.5 * expected)


def test_balanced_weights_give_every_class_the_same_say():
    counts = [40, 10, 50]
    weights = class_weights_of(LossConfig(class_weights="balanced"), counts, ABC, CPU)
    totals = weights * torch.tensor(counts)
    torch.testing.assert_close(totals, torch.full((3,), 100 / 3))


def test_balanced_weights_need_a_clip_of_every_class():
    message = "needs clips of every class of action to train on; there are none of b; give numbers"
    with pytest.raises(ValueError, match=message):
        class_weights_of(LossConfig(class_weights="balanced"), [4, 0, 2], ABC, CPU)


def test_given_class_weights_must_fit_the_classes():
    with pytest.raises(ValueError, match=r"a number for each of 2 classes of action \(run, jump\), got 3"):
        class_weights_of(LossConfig(class_weights=CLASS_WEIGHTS), None, replace(ABC, classes=("run", "jump")), CPU)


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


OWN = """
import torch
import torch.nn.functional as F

def margin(logits, label):
    return F.multi_margin_loss(logits, label, reduction="none")

def mean(logits, label):
    return F.cross_entropy(logits, label)

def whole(logits, label):
    return label

number = 7
"""


@pytest.fixture
def own(tmp_path, monkeypatch) -> str:
    """Name of an importable module of a user's."""
    (tmp_path / "own_losses.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_losses"
    sys.modules.pop("own_losses", None)


def test_a_users_loss_takes_the_place_of_cross_entropy_in_the_blend(own):
    mask = torch.tensor([True] * 6 + [False] * 2)
    config = LossConfig(callable=f"{own}:margin")
    got = blended_loss({"rgb": LOGITS}, {"": LABEL}, {"rgb": mask}, {"rgb": 0.5}, {"rgb": mask.sum()}, loss=config)
    torch.testing.assert_close(got, 0.5 * F.multi_margin_loss(LOGITS[mask], LABEL[mask]))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no_such_module:loss", r"loss.callable \(no_such_module:loss\): no_such_module cannot be imported"),
        ("own_losses:absent", "module own_losses has no absent"),
        ("own_losses:number", "number must be callable with logits and labels, is int"),
        ("own_losses:mean", r"must return a float loss for every clip, of shape \(8,\); got torch.float32 \(\)"),
        ("own_losses:whole", r"of shape \(8,\); got torch.int64 \(8,\)"),
    ],
)
def test_a_users_loss_that_cannot_be_used_is_one_line(own, place, message):
    with pytest.raises(ValueError, match=message):
        clip_losses(LOGITS, LABEL, own=place)


@pytest.mark.parametrize("setting", [{"label_smoothing": 0.1}, {"class_weights": "balanced"}])
def test_settings_of_cross_entropy_are_refused_beside_a_users_loss(setting):
    with pytest.raises(ValueError, match=r"settings of cross-entropy, which loss.callable \(a:b\) replaces"):
        LossConfig(callable="a:b", **setting)


def test_a_users_loss_is_named_by_module_and_callable():
    with pytest.raises(ValueError, match=r"loss\.callable must be module:callable, got 'margin'"):
        LossConfig(callable="margin")
