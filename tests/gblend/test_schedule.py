"""Super-epochs and learning rates, against PyTorch's own schedulers."""

import pytest
import torch

from gblend.config import OptimConfig
from gblend.schedule import learning_rate_at, super_epochs


def torch_rates(make_scheduler, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = make_scheduler(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("total", "first", "length"), [(45, 10, 5), (1, 4, 4), (12, 5, 4), (7, 7, 3), (8, 3, 1)])
def test_super_epochs_add_up_and_only_the_last_is_shorter(total, first, length):
    lengths = super_epochs(total, first, length)
    assert sum(lengths) == total
    assert lengths[:-1] == [first, *[length] * (len(lengths) - 2)][: len(lengths) - 1]
    assert 1 <= lengths[-1] <= max(first, length)


def test_the_paper_estimates_weights_at_eight_moments():
    lengths = super_epochs(45, 10, 5)
    assert [sum(lengths[:i]) for i in range(len(lengths))] == [0, 10, 15, 20, 25, 30, 35, 40]


def test_cosine_is_that_of_pytorch():
    config = OptimConfig(learning_rate=0.4, schedule="cosine")
    rates = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=20), 20)
    assert [learning_rate_at(config, step / 4, 5) for step in range(20)] == pytest.approx(rates)


def test_step_is_that_of_pytorch():
    config = OptimConfig(learning_rate=0.4, schedule="step", milestones=(2, 4))
    rates = torch_rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 4]), 6)
    assert [learning_rate_at(config, float(epoch), 6) for epoch in range(6)] == pytest.approx(rates)


def test_constant_stays():
    config = OptimConfig(learning_rate=0.4, schedule="constant")
    assert {learning_rate_at(config, float(epoch), 6) for epoch in range(6)} == {0.4}


def test_warm_up_rises_linearly_to_the_peak_and_cosine_starts_there():
    config = OptimConfig(learning_rate=0.4, schedule="cosine", warmup_epochs=2.0)
    assert [learning_rate_at(config, epoch, 10) for epoch in (0.0, 0.5, 1.0, 2.0, 6.0, 10.0)] == pytest.approx(
        [0.0, 0.1, 0.2, 0.4, 0.2, 0.0]
    )


@pytest.mark.parametrize("steps", [3, 7, 49])
def test_a_milestone_is_met_by_a_step_that_is_only_almost_there(steps):
    config = OptimConfig(learning_rate=1.0, schedule="step", milestones=(2,))
    almost = sum([1 / steps] * (2 * steps))
    assert learning_rate_at(config, almost, 4) == pytest.approx(0.1)


def test_no_rate_is_negative_after_the_last_epoch():
    config = OptimConfig(learning_rate=0.4, schedule="cosine")
    assert learning_rate_at(config, 11.0, 10) == 0.0
