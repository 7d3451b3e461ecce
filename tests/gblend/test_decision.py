from dataclasses import replace

import pytest

from gblend.advice import advise
from gblend.decision import choose, decide
from gblend.table import comparison_table
from tests.gblend.synthetic import result
from tests.gblend.test_advice import runs


def decision(results, *, noise=None):
    table = comparison_table(results)
    judged = table if noise is None else replace(table, noise_95=noise, clips_95=0.0, val_noise=noise)
    return decide(results, judged, advise(results, table))


def test_what_is_best_on_val_is_used_and_told_with_test_numbers():
    found = decision([*runs(0), *runs(1)], noise=0.03)
    assert found is not None
    assert found.use == "Use fine-tuning single-modality networks, read by its fused head."
    assert found.why == "No other single network has a higher validation accuracy."
    assert found.by_how_much == (
        ".660 ± .000 test accuracy; .210 above rgb alone, .180 above naive joint training and .160 above equal weights."
    )


def test_what_one_run_gives_is_used_while_it_is_within_noise_of_the_best():
    found = decision([*runs(0), *runs(1)], noise=0.05)  # .65 on val against .61
    assert found is not None
    assert found.use == "Use equal weights, read by the stack of all heads."
    assert found.why == (
        "Fine-tuning single-modality networks, read by its fused head, is .040 above it in validation accuracy, within "
        "the noise of val (under .050). Of two so close this one is used: a single training run gives it, with .33 of "
        "the training."
    )
    assert found.cost == "12 branch epochs, 30 s for its own part of a run here; 1.0 times naive training."


def test_what_is_chosen_on_val_goes_by_the_noise_of_val():
    results = [*runs(0), *runs(1)]
    table = replace(comparison_table(results), noise_95=0.5, clips_95=0.5, val_noise=0.03)
    chosen = choose(advise(results, table), table)
    assert chosen is not None
    assert chosen.method == "pretrain"


def test_distances_beyond_noise_are_told_from_those_within():
    results = [*runs(0), *runs(1)]
    table = replace(comparison_table(results), noise_95=0.17, clips_95=0.0)
    found = decide(results, table, replace(advise(results, table), one_run=None))
    assert found is not None
    assert found.how_sure == (
        "The distance to rgb alone and naive joint training is more than chance makes of it; that to equal weights may "
        "be chance (under .170, 95 %, of seeds and clips)."
    )


def test_one_seed_is_not_sure_of_anything():
    found = decision(runs(0))
    assert found is not None
    assert found.how_sure.startswith("Not known: one seed")


@pytest.mark.parametrize("results", [[], [result("naive", 0, {"fused": 0.5}), result("naive", 1, {"fused": 0.6})]])
def test_one_method_alone_leaves_nothing_to_decide(results):
    table = comparison_table([*runs(0)])
    assert choose(advise(runs(0), table), table) is not None
    if results:
        assert decision(results) is None
