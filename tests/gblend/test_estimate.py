"""From clip-wise losses to weights: by hand, and standard errors against SciPy."""

import json

import numpy as np
import pytest
import scipy.stats

from gblend import estimate as estimate_module
from gblend.config import BlendConfig
from gblend.estimate import ENDS, ProbeLosses, chosen_end, estimate, probe_losses
from gblend.measure import HeadLosses
from gblend.records import estimate_record, to_json

PAPER, FLOOR = BlendConfig(), BlendConfig(overfitting_floor="standard-error")


def losses(values, counted=None) -> HeadLosses:
    values = np.asarray(values, dtype=np.float64)
    counted = np.ones(values.size, dtype=bool) if counted is None else np.asarray(counted)
    return HeadLosses(loss_nats=values, correct=values < 1, counted=counted)


def probe(start_train, start_valid, end_train, end_valid) -> ProbeLosses:
    values = (start_train, start_valid, end_train, end_valid)
    return ProbeLosses(**{end: losses(part) for end, part in zip(ENDS, values, strict=True)})


def flat(start_train, start_valid, end_train, end_valid) -> ProbeLosses:
    """The same loss on each of four clips."""
    return probe(*([value] * 4 for value in (start_train, start_valid, end_train, end_valid)))


def noisy(seed: int, *, gain: float = 0.5, clips: int = 50) -> ProbeLosses:
    rng = np.random.default_rng(seed)
    start = rng.normal(2.0, 0.3, (2, clips))
    return probe(
        start[0], start[1], start[0] - 1.0 + rng.normal(0, 0.2, clips), start[1] - gain + rng.normal(0, 0.2, clips)
    )


def run(probes, config=PAPER, **changes):
    return estimate(probes, config, **{"epoch": 3, "probe_epochs": 2, **changes})


def answers(right: str) -> HeadLosses:
    """Right and wrong answers ("+-"), with a loss that says the opposite of the error rate."""
    correct = np.array([letter == "+" for letter in right])
    return HeadLosses(loss_nats=np.where(correct, 5.0, 1.0), correct=correct, counted=np.ones(len(right), dtype=bool))


def graded(start_train: str, start_valid: str, end_train: str, end_valid: str) -> ProbeLosses:
    values = (start_train, start_valid, end_train, end_valid)
    return ProbeLosses(**{end: answers(part) for end, part in zip(ENDS, values, strict=True)})


def test_weights_are_those_computed_by_hand():
    # G = 0.4, O = 0.2: 10. G = 0.9, O = 0.3: 10. G = 0.5, O = 0.5: 2.
    found = run({"rgb": flat(2, 2, 1.4, 1.6), "logmel": flat(2, 2, 0.8, 1.1), "fused": flat(2, 2, 1.0, 1.5)})
    np.testing.assert_allclose(found.generalization, [0.4, 0.9, 0.5])
    np.testing.assert_allclose(found.overfitting, [0.2, 0.3, 0.5])
    np.testing.assert_allclose(found.ogr, [0.5, 1 / 3, 1.0])
    np.testing.assert_allclose(found.weights, [10 / 22, 10 / 22, 2 / 22])
    assert (found.heads, found.epoch, found.probe_epochs, found.reason) == (("rgb", "logmel", "fused"), 3, 2, "")


def test_both_losses_at_both_ends_are_recorded_as_means():
    found = run({"rgb": probe([1, 3], [2, 4], [0, 1], [1, 2]), "fused": probe([2, 2], [2, 2], [1, 1], [1, 2])})
    ends = [getattr(found, name)[0] for name in ("start_train", "start_valid", "end_train", "end_valid")]
    assert ends == [2.0, 3.0, 0.5, 1.5]


def test_the_standard_error_of_g_is_that_of_the_paired_differences():
    one = noisy(0)
    found = run({"rgb": one, "fused": noisy(1)})
    expected = scipy.stats.sem(one.start_valid.loss_nats - one.end_valid.loss_nats)
    assert found.generalization_se[0] == pytest.approx(expected)


def test_the_standard_error_of_o_joins_those_of_two_independent_sets_of_clips():
    one = noisy(0)
    found = run({"rgb": one, "fused": noisy(1)})
    errors = [
        scipy.stats.sem(end.loss_nats - start.loss_nats)
        for start, end in ((one.start_valid, one.end_valid), (one.start_train, one.end_train))
    ]
    assert found.overfitting_se[0] == pytest.approx(np.hypot(*errors))


def test_standard_errors_have_the_size_of_the_spread_between_repetitions(monkeypatch):
    monkeypatch.setattr(estimate_module, "RESAMPLES", 2)
    repeated = [run({"rgb": noisy(seed), "fused": noisy(0)}) for seed in range(300)]
    spread = np.std([found.overfitting[0] for found in repeated])
    assert np.mean([found.overfitting_se[0] for found in repeated]) == pytest.approx(spread, rel=0.15)


def test_clips_that_lack_the_modality_count_in_no_mean_and_no_error():
    whole = noisy(0, clips=20)
    counted = np.arange(30) < 20
    padded = ProbeLosses(
        **{end: losses(np.concatenate([getattr(whole, end).loss_nats, np.zeros(10)]), counted) for end in ENDS}
    )
    fused = noisy(1, clips=20), noisy(1, clips=30)
    one, other = (run({"rgb": p, "fused": f}) for p, f in zip((whole, padded), fused, strict=True))
    for part in ("generalization", "overfitting", "generalization_se", "overfitting_se", "valid_clips", "train_clips"):
        assert getattr(one, part)[0] == getattr(other, part)[0], part


def test_the_floor_replaces_an_overfitting_smaller_than_its_error():
    """O of the first head is 0 up to noise: the paper gives it nearly everything, the floor does not."""
    probes = {"rgb": noisy(2, gain=1.0, clips=2000), "fused": noisy(3, clips=2000)}
    paper, floor = run(probes), run(probes, FLOOR)
    assert abs(paper.overfitting[0]) < floor.overfitting_se[0]
    score = np.array(paper.generalization) / np.maximum(np.square(paper.overfitting), np.square(paper.overfitting_se))
    np.testing.assert_allclose(floor.weights, score / score.sum())
    assert paper.weights[0] > floor.weights[0]
    assert floor.reason == "O below its standard error, raised to it: rgb"


def test_the_floor_changes_nothing_where_overfitting_is_clear():
    probes = {"rgb": noisy(0), "fused": noisy(1, gain=0.3)}
    assert run(probes).weights == run(probes, FLOOR).weights


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("config", [PAPER, FLOOR])
def test_a_diverged_probe_gets_no_weight_and_says_so(value, config):
    broken = probe([2.0] * 50, [2.0] * 50, [value] * 50, [value] * 50)
    found = run({"rgb": broken, "logmel": noisy(0), "fused": noisy(1)}, config)
    assert found.weights[0] == 0.0
    assert sum(found.weights) == pytest.approx(1.0)
    assert "loss not finite, weight 0: rgb" in found.reason


def test_the_errors_of_o_and_g_agree_with_scipys_paired_bootstrap():
    one = noisy(0)
    found = run({"rgb": one, "fused": noisy(1)})
    (valid, train) = (
        scipy.stats.bootstrap(
            ((end.loss_nats - start.loss_nats),), np.mean, n_resamples=4000, method="percentile", rng=1
        ).standard_error
        for start, end in ((one.start_valid, one.end_valid), (one.start_train, one.end_train))
    )
    assert found.generalization_se[0] == pytest.approx(valid, rel=0.06)
    assert found.overfitting_se[0] == pytest.approx(np.hypot(valid, train), rel=0.06)


@pytest.mark.parametrize(
    "config",
    [
        PAPER,
        FLOOR,
        BlendConfig(generalization_discount="standard-error", overfitting_floor="standard-error"),
        BlendConfig(shrinkage=0.3, weight_cap=0.6, fused_floor=0.2),
    ],
    ids=["paper", "floor", "discount", "rules"],
)
def test_the_error_of_the_weights_is_that_of_estimating_again_from_resampled_clips(config, monkeypatch):
    """Every resample through `estimate` itself, one at a time."""
    probes = {"rgb": noisy(0), "logmel": noisy(1, gain=0.7), "fused": noisy(2, gain=0.6)}
    found = run(probes, config)
    monkeypatch.setattr(estimate_module, "RESAMPLES", 2)  # the resamples' own errors are not looked at
    rng = np.random.default_rng(7)

    def again() -> tuple[float, ...]:
        drawn = {"valid": rng.integers(0, 50, 50), "train": rng.integers(0, 50, 50)}
        return run(
            {
                head: ProbeLosses(
                    **{end: losses(getattr(one, end).loss_nats[drawn[end.split("_")[1]]]) for end in ENDS}
                )
                for head, one in probes.items()
            },
            config,
        ).weights

    weights = np.array([again() for _ in range(250)])
    np.testing.assert_allclose(found.weights_se, weights.std(axis=0, ddof=1), rtol=0.15, atol=1e-9)
    low, high = np.percentile(weights, (2.5, 97.5), axis=0)
    np.testing.assert_allclose(found.weights_low, low, atol=0.03)
    np.testing.assert_allclose(found.weights_high, high, atol=0.03)
    assert found.weights_moved == pytest.approx(0.5 * np.abs(weights - found.weights).sum(axis=1).mean(), rel=0.1)


def test_the_same_clips_and_seed_give_the_same_errors_and_another_seed_does_not():
    probes = {"rgb": noisy(0), "fused": noisy(1)}
    assert run(probes) == run(probes)
    assert run(probes).weights_se != run(probes, BlendConfig(holdout_seed=1)).weights_se
    assert run(probes).weights_se != run(probes, epoch=4).weights_se
    assert run(probes).weights == run(probes, BlendConfig(holdout_seed=1)).weights


def test_any_order_of_the_heads_gives_the_same_record():
    probes = {"rgb": noisy(0), "logmel": noisy(1, gain=0.7), "fused": noisy(2, gain=0.6)}
    order = ["fused", "rgb", "logmel"]
    one, other = run(probes), run({head: probes[head] for head in order})
    at = [one.heads.index(head) for head in order]
    for part in ("weights", "weights_se", "weights_low", "weights_high", "generalization_se", "overfitting_se"):
        np.testing.assert_allclose(getattr(other, part), np.array(getattr(one, part))[at], rtol=1e-9)


def test_by_accuracy_weights_follow_from_error_rates_alone():
    # Error rates: rgb .8 .8 -> .2 .4, G = .4, O = .2: 10. fused .8 .6 -> 0 .2, G = .4, O = .4: 2.5.
    found = run(
        {"rgb": graded("+----", "----+", "++++-", "+++--"), "fused": graded("+----", "++---", "+++++", "++++-")},
        BlendConfig(measure="accuracy"),
    )
    assert found.measure == "accuracy"
    np.testing.assert_allclose(found.start_valid, [0.8, 0.6])
    np.testing.assert_allclose(found.end_train, [0.2, 0.0])
    np.testing.assert_allclose(found.generalization, [0.4, 0.4])
    np.testing.assert_allclose(found.overfitting, [0.2, 0.4])
    np.testing.assert_allclose(found.weights, [0.8, 0.2])


def test_by_accuracy_the_errors_are_those_of_paired_answers():
    one = graded("+----", "----+", "++++-", "+++--")
    found = run({"rgb": one, "fused": one}, BlendConfig(measure="accuracy"))
    assert found.generalization_se[0] == pytest.approx(scipy.stats.sem([-1, -1, -1, 0, 1]))


def test_by_accuracy_a_head_that_answers_nothing_finite_gets_no_weight():
    """Its argmax may be right by accident."""
    broken = HeadLosses(loss_nats=np.full(5, np.nan), correct=np.ones(5, dtype=bool), counted=np.ones(5, dtype=bool))
    one = graded("+----", "----+", "++++-", "+++--")
    probes = {
        "rgb": ProbeLosses(
            start_train=one.start_train, start_valid=one.start_valid, end_train=broken, end_valid=broken
        ),
        "fused": one,
    }
    assert run(probes, BlendConfig(measure="accuracy")).weights == (0.0, 1.0)


BEST_V = BlendConfig(probe_end="best-v")


def test_the_best_end_of_a_probe_has_the_lowest_loss_on_v_and_is_never_the_start():
    valid = [losses([value, value]) for value in (0.1, 2.0, 0.7, 0.7, 1.4)]
    assert chosen_end(valid, BEST_V) == 2
    assert chosen_end(valid, PAPER) == 4


def test_by_accuracy_the_best_end_has_the_lowest_error_rate():
    valid = [answers(right) for right in ("++++", "+---", "++--", "+---")]
    assert chosen_end(valid, BlendConfig(probe_end="best-v", measure="accuracy")) == 2
    assert chosen_end(valid, BEST_V) == 1  # by loss, which here says the opposite


def test_epochs_without_a_finite_loss_are_not_the_best():
    valid = [losses([value]) for value in (1.0, np.nan, 3.0, np.inf)]
    assert chosen_end(valid, BEST_V) == 2
    assert chosen_end([losses([value]) for value in (1.0, np.nan, np.inf)], BEST_V) == 2


def test_a_probe_of_one_measurement_is_refused():
    with pytest.raises(ValueError, match="a probe needs losses before and after it, got 1 measurements"):
        chosen_end([losses([1.0])], PAPER)


@pytest.mark.parametrize(("config", "end", "epoch"), [(PAPER, 3, None), (BEST_V, 1, 1)])
def test_the_losses_of_a_probe_are_those_at_its_start_and_its_chosen_end(config, end, epoch):
    moments = [(losses([train]), losses([valid])) for train, valid in ((2.0, 2.1), (1.0, 1.5), (0.5, 1.8), (0.1, 2.5))]
    found = probe_losses(moments, config)
    assert (found.start_train, found.start_valid) == moments[0]
    assert (found.end_train, found.end_valid) == moments[end]
    assert found.end_epoch == epoch


def test_the_record_says_where_each_probe_ended():
    moments = [(losses([v] * 4), losses([v] * 4)) for v in (2.0, 1.0, 1.5)]
    found = run({"rgb": probe_losses(moments, BEST_V), "fused": probe_losses(moments, PAPER)})
    assert found.end_epochs == (1, 2)


def test_rules_on_weights_come_after_the_formula_and_are_named_after_its_reasons():
    # The formula: (1, 0). Shrunk by .5: (.75, .25). With .5 of (0, 1): (.375, .625).
    probes = {"rgb": flat(2, 2, 1.4, 1.6), "fused": flat(2, 2, 1.4, 2.2)}
    found = run(probes, BlendConfig(shrinkage=0.5, smoothing=0.5), previous=(0.0, 1.0))
    np.testing.assert_allclose(found.weights, [0.375, 0.625])
    assert found.reason == ("G < 0, weight 0: fused; shrunk to equal weights by 0.5; 0.5 of the previous weights kept")
    assert found.previous_weights == (0.0, 1.0)


def test_shrinking_by_the_noise_leaves_few_clips_equal_weights_and_many_their_own():
    def found(clips: int):
        probes = {"rgb": noisy(0, gain=0.05, clips=clips), "fused": noisy(1, gain=0.1, clips=clips)}
        return run(probes, BlendConfig(shrinkage="noise"))

    few, many = found(6), found(20_000)
    assert few.shrinkage > 0.25
    assert abs(few.weights[0] - 0.5) < 0.75 * abs(few.raw_weights[0] - 0.5)
    assert many.shrinkage < 0.01
    np.testing.assert_allclose(many.weights, many.raw_weights, atol=0.005)


def test_the_recorded_share_gives_the_weights_by_hand():
    found = run({"rgb": noisy(0), "fused": noisy(1, gain=0.9)}, BlendConfig(shrinkage="noise"))
    by_hand = (1 - found.shrinkage) * np.array(found.raw_weights) + found.shrinkage / 2
    assert 0 < found.shrinkage < 1
    np.testing.assert_allclose(found.weights, by_hand)
    assert "shrunk to equal weights by" in found.reason


def test_without_smoothing_the_previous_weights_do_not_matter():
    probes = {"rgb": noisy(0), "fused": noisy(1)}
    assert run(probes, previous=(0.0, 1.0)) == run(probes)


def test_a_discount_on_g_is_its_recorded_standard_error():
    probes = {"rgb": noisy(0), "logmel": noisy(1, gain=0.01), "fused": noisy(2)}
    found = run(probes, BlendConfig(generalization_discount="standard-error"))
    score = np.maximum(np.subtract(found.generalization, found.generalization_se), 0) / np.square(found.overfitting)
    np.testing.assert_allclose(found.weights, score / score.sum())
    assert found.weights[1] == 0
    assert "G within its standard error, weight 0: logmel" in found.reason


def test_a_cap_that_the_heads_cannot_keep_is_refused():
    with pytest.raises(ValueError, match=r"blend.weight_cap \(0.4\) must be at least 1 / 2 for 2 heads"):
        run({"rgb": noisy(0), "fused": noisy(1)}, BlendConfig(weight_cap=0.4))


def test_clear_weights_from_many_clips_carry_no_warning():
    found = run({"rgb": noisy(0, clips=2000), "fused": noisy(1, gain=0.7, clips=2000)})
    assert found.warnings == ()
    assert found.weights_moved < 0.05


def test_weights_that_are_mostly_chance_carry_a_warning():
    """Neither head learns or overfits: whatever the formula says is noise."""

    def still(seed):
        rng = np.random.default_rng(seed)
        return probe(*(2.0 + rng.normal(0, 0.3, (4, 60))))

    (warning,) = run({head: still(seed) for seed, head in enumerate(("rgb", "logmel", "fused"))}).warnings
    assert warning.startswith("another V of 60 clips would move ")
    assert "of the weight from head to head: these weights are mostly chance" in warning


def test_a_chance_estimate_that_shrinkage_has_made_safe_still_carries_a_warning():
    def still(seed):
        rng = np.random.default_rng(seed)
        return probe(*(2.0 + rng.normal(0, 0.3, (4, 60))))

    found = run({head: still(seed) for seed, head in enumerate(("rgb", "fused"))}, BlendConfig(shrinkage="noise"))
    (warning,) = found.warnings
    assert found.weights_moved < 0.2
    assert warning.startswith("another V of 60 clips would move ")
    assert f": {found.shrinkage:.0%} of equal weights stand in its place" in warning


def test_the_weight_that_resamples_move_is_about_what_the_choice_of_v_has_misplaced():
    """Many data sets of which the true G and O are known."""
    generalization, overfitting = np.array([0.7, 0.3, 0.6]), np.array([0.5, 0.9, 0.6])
    true = generalization / overfitting**2
    true /= true.sum()

    def drawn(seed: int):
        rng = np.random.default_rng(seed)
        return run(
            {
                str(head): probe(
                    np.full(250, 2.0),
                    np.full(250, 2.0),
                    2.0 - g - o + 0.6 * rng.standard_normal(250),
                    2.0 - g + 1.2 * rng.standard_normal(250),
                )
                for head, (g, o) in enumerate(zip(generalization, overfitting, strict=True))
            }
        )

    found = [drawn(seed) for seed in range(60)]
    misplaced = np.mean([0.5 * np.abs(one.weights - true).sum() for one in found])
    assert np.mean([one.weights_moved for one in found]) == pytest.approx(misplaced, rel=0.2)


def test_few_clips_carry_a_warning_even_if_all_agree():
    (warning,) = run({"rgb": flat(2, 2, 1.4, 1.6), "fused": flat(2, 2, 1.0, 1.5)}).warnings
    assert warning.startswith("V has fewer than 20 clips for rgb (4), fused (4): ")


def test_probes_measured_on_different_clips_are_refused():
    with pytest.raises(ValueError, match=r"probes must be measured on the same clips, .* on train of"):
        run({"rgb": noisy(0, clips=50), "fused": noisy(1, clips=40)})


BEHAVIOURS = {
    "never learns": (flat(2, 2, 2, 2), 0.0, ""),
    "learns the training clips only": (flat(2, 2, 0.5, 2), 0.0, ""),
    "gets worse": (flat(2, 2, 1.0, 2.5), 0.0, "G < 0, weight 0: rgb"),
    "does not overfit": (flat(2, 2, 1.5, 1.5), 1.0, "O = 0, all weight by G to: rgb"),
    "diverges": (flat(2, 2, np.inf, np.inf), 0.0, "loss not finite, weight 0: rgb"),
    "answers NaN": (flat(2, 2, np.nan, np.nan), 0.0, "loss not finite, weight 0: rgb"),
    "began as NaN": (flat(np.nan, np.nan, 1, 1), 0.0, "loss not finite, weight 0: rgb"),
}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_a_head_that(name):
    """What happens to a head beside one that learns and overfits as usual."""
    odd, weight, reason = BEHAVIOURS[name]
    found = run({"rgb": odd, "fused": flat(2, 2, 1.0, 1.5)})
    assert found.weights == (weight, 1.0 - weight)
    assert found.reason == reason
    assert np.isfinite(found.weights_se).all()
    estimate_record(json.loads(json.dumps(to_json(found), allow_nan=False)))


def test_a_record_comes_back_from_json_as_it_was():
    found = run({"rgb": noisy(0), "fused": noisy(1)}, BlendConfig(smoothing=0.5), previous=(0.5, 0.5))
    assert estimate_record(json.loads(json.dumps(to_json(found)))) == found
