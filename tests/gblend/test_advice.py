"""Advice: chosen on val, told with the numbers of test."""

from dataclasses import replace

import pytest

from gblend.advice import advise, candidates
from gblend.advice_words import advice_words
from gblend.records import PredictionScores
from gblend.table import comparison_table, spread
from tests.gblend.synthetic import result, score


def with_ways(run, *, val: dict[str, float], test: dict[str, float]):
    scores = {"val": {way: score(v) for way, v in val.items()}, "test": {way: score(v) for way, v in test.items()}}
    said = PredictionScores(scores=scores, ranking=("fused", "rgb"), stack_weights={"fused": 1.0}, stack_clips=60)
    return replace(run, predictions=said)


def runs(seed: int, *, offline_test: float = 0.62):
    equal = with_ways(
        result("equal", seed, {"rgb": 0.3, "fused": 0.50}),
        val={"fused": 0.52, "stack": 0.61},
        test={"fused": 0.50, "stack": 0.60},
    )
    offline = with_ways(
        result("offline", seed, {"rgb": 0.3, "fused": 0.55}, branch_epochs=48.0, borrowed_epochs=36.0),
        val={"fused": 0.50, "stack": 0.60},
        test={"fused": 0.70, "stack": offline_test},
    )
    pretrain = result("pretrain", seed, {"fused": 0.66}, val={"fused": 0.65}, branch_epochs=36.0, borrowed_epochs=24.0)
    joined = with_ways(
        replace(result("ensemble", seed, {"mean": 0.58}, branch_epochs=24.0, borrowed_epochs=24.0), heads=("mean",)),
        val={"mean": 0.6, "stack": 0.7},
        test={"mean": 0.58, "stack": 0.68},
    )
    found = [
        result("uni:rgb", seed, {"rgb": 0.45}),
        result("naive", seed, {"fused": 0.48}),
        equal,
        offline,
        pretrain,
        joined,
    ]
    return [replace(run, predict_by="stack") for run in found]


RESULTS = [*runs(0), *runs(1)]


def advice(results=RESULTS):
    return advise(results, comparison_table(results))


def test_each_need_has_the_choice_that_is_best_on_val_whatever_test_says():
    found = advice()
    chosen = [found.one_run, found.one_network, found.any_cost]
    assert [each and (each.method, each.way) for each in chosen] == [
        ("equal", "stack"),
        ("pretrain", "fused"),
        ("ensemble", "stack"),
    ]
    assert found.any_cost is not None
    assert found.any_cost.score.mean == pytest.approx(0.68)


def test_what_builds_on_other_runs_is_not_one_training_run():
    single = {each.method for each in candidates(RESULTS, comparison_table(RESULTS)) if each.single_run}
    assert single == {"uni:rgb", "naive", "equal"}


def test_a_head_trained_anew_is_not_of_one_training_run():
    ways = {"fused": 0.5, "refit": 0.9}
    again = [with_ways(run, val=ways, test=ways) if run.method == "equal" else run for run in RESULTS]
    found = {(each.method, each.way): each.single_run for each in candidates(again, comparison_table(again))}
    assert not found["equal", "refit"]
    assert found["equal", "fused"]


def test_of_equals_on_val_the_cheaper_is_chosen():
    same = [
        with_ways(run, val={"stack": 0.61}, test={"stack": 0.9}) if run.method == "offline" else run
        for run in RESULTS
        if run.method in ("uni:rgb", "equal", "offline")
    ]
    found = advice(same).one_network
    assert found is not None
    assert found.method == "equal"


def test_weights_are_judged_as_methods_are():
    (gain,) = advice().gains
    assert (gain.method, gain.way, gain.times) == ("offline", "stack", 4.0)
    assert gain.gain.mean == pytest.approx(0.02)
    (by_fused,) = advice([replace(run, predict_by="fused") for run in RESULTS]).gains
    assert by_fused.way == "fused"
    assert by_fused.gain.mean == pytest.approx(0.2)


def test_where_one_cannot_be_read_so_by_the_way_in_which_equal_weights_are_best():
    assert [gain.way for gain in advice([replace(run, predict_by="refit") for run in RESULTS]).gains] == ["stack"]


def test_a_way_that_one_seed_lacks_is_no_candidate():
    fewer = [
        with_ways(run, val={"fused": 0.5}, test={"fused": 0.5}) if (run.method, run.seed) == ("equal", 1) else run
        for run in RESULTS
    ]
    found = {(each.method, each.way) for each in candidates(fewer, comparison_table(fewer))}
    assert ("equal", "stack") not in found
    assert ("equal", "fused") in found


def test_a_gain_within_noise_is_said_to_be_none():
    table = replace(comparison_table(RESULTS), noise_95=0.05, clips_95=0.0)
    sentence = advice_words(advise(RESULTS, table), table)[1]
    assert sentence == (
        "By accuracy, offline G-Blend is .020 above equal weights when both are read by the stack of all heads (within "
        "noise), at 4.0 times the training: here its weights add nothing that these runs could show; equal weights are "
        "the cheaper choice."
    )


def test_a_loss_beyond_noise_is_said_to_be_one():
    table = replace(comparison_table(RESULTS), noise_95=0.01, clips_95=0.0)
    found = advise(RESULTS, table)
    (gain,) = found.gains
    worse = replace(found, gains=(replace(gain, gain=spread([-0.03, -0.05])),))
    assert advice_words(worse, table)[1].endswith(
        "(beyond noise), at 4.0 times the training: here its weights cost accuracy; equal weights are the cheaper "
        "choice."
    )


def test_without_the_noise_of_the_clips_a_loss_is_not_held_against_the_weights():
    table = replace(comparison_table(RESULTS), noise_95=0.01, clips_95=None)
    found = advise(RESULTS, table)
    worse = replace(found, gains=(replace(found.gains[0], gain=spread([-0.03, -0.05])),))
    said = "less by more than the seeds explain, but what the choice of clips adds is not known"
    assert said in advice_words(worse, table)[1]


def test_weights_that_cost_no_more_are_not_told_to_be_dearer():
    table = replace(comparison_table(RESULTS), noise_95=0.05, clips_95=0.0)
    found = advise(RESULTS, table)
    same = replace(found, gains=tuple(replace(gain, times=1.0) for gain in found.gains))
    assert advice_words(same, table)[1].endswith("here its weights add nothing that these runs could show.")


def test_a_gain_beyond_noise_is_said_to_pay():
    table = replace(comparison_table(RESULTS), noise_95=0.01, clips_95=0.0)
    assert advice_words(advise(RESULTS, table), table)[1].endswith(
        "(beyond noise), at 4.0 times the training: here its weights pay."
    )


def test_one_seed_cannot_tell():
    table = comparison_table(runs(0))
    words = advice_words(advise(runs(0), table), table)
    assert words[1].endswith("one seed cannot say whether its weights add anything.")


def test_the_choices_are_told_in_one_sentence():
    table = replace(comparison_table(RESULTS), noise_95=0.05, clips_95=0.0)
    assert advice_words(advise(RESULTS, table), table)[0] == (
        "By validation accuracy, choose from one training run, equal weights read by the stack of all heads (test "
        ".600 ± .000, .150 above rgb alone (beyond noise), 12 branch epochs); as one network, whatever is trained for "
        "it, fine-tuning single-modality networks read by its fused head (test .660 ± .000, .210 above rgb alone "
        "(beyond noise), 36 branch epochs); at any cost, the ensemble of single modalities read by the stack of all "
        "heads (test .680 ± .000, .230 above rgb alone (beyond noise), 24 branch epochs)."
    )


def test_what_was_scored_on_fewer_clips_is_not_compared_and_named():
    easier = [
        replace(run, scores={split: {"logmel": score(0.9, count=120)} for split in ("val", "test")})
        for run in (result("uni:logmel", seed, {"logmel": 0.9}) for seed in (0, 1))
    ]
    found = advise([*RESULTS, *easier], comparison_table([*RESULTS, *easier]))
    assert found.any_cost is not None
    assert found.any_cost.method == "ensemble"
    assert found.single is None  # by its own clips it is logmel
    assert found.left_out == ("uni:logmel",)
    words = advice_words(found, comparison_table([*RESULTS, *easier]))[0]
    assert words.endswith("Scored on fewer clips and not compared: logmel alone.")


def test_without_the_noise_of_the_clips_no_gain_is_said_to_pay():
    table = replace(comparison_table(RESULTS), noise_95=0.01, clips_95=None)
    sentence = advice_words(advise(RESULTS, table), table)[1]
    assert "(beyond the noise of the seeds)" in sentence
    assert sentence.endswith("but what the choice of clips adds is not known.")
