"""Rules on weights: by hand, and the cap against SciPy's constrained minimiser."""

import numpy as np
import pytest
import scipy.optimize

from gblend.config import BlendConfig
from gblend.rules import apply_rules, cap, floor_fused, noise_share, shrink, smooth

ALL = np.array([True, True, True])
ONE_HOT = np.array([1.0, 0.0, 0.0])


def ruled(weights, *, alive=ALL, previous=(), **options):
    return apply_rules(np.asarray(weights), BlendConfig(**options), alive=alive, previous=previous)


def test_without_options_weights_come_back_to_the_bit_and_no_rule_is_named():
    weights = np.random.default_rng(0).dirichlet([1, 1, 1], 50)
    found = ruled(weights, alive=np.ones((50, 3), dtype=bool), previous=[0.2, 0.3, 0.5])
    np.testing.assert_array_equal(found.weights, weights)
    assert found.reasons == ()


def test_shrinkage_mixes_with_equal_weights():
    found = ruled([0.8, 0.2, 0.0], shrinkage=0.6)
    np.testing.assert_allclose(found.weights, [0.52, 0.28, 0.2])  # .4 w + .2
    assert found.reasons == ("shrunk to equal weights by 0.6",)


def test_full_shrinkage_is_equal_weights():
    np.testing.assert_allclose(ruled(ONE_HOT, shrinkage=1.0).weights, [1 / 3] * 3)


def test_smoothing_mixes_with_the_previous_weights():
    found = ruled([0.8, 0.2, 0.0], smoothing=0.25, previous=[0.0, 0.4, 0.6])
    np.testing.assert_allclose(found.weights, [0.6, 0.25, 0.15])
    assert found.reasons == ("0.25 of the previous weights kept",)


def test_the_first_estimate_is_not_smoothed():
    found = ruled([0.8, 0.2, 0.0], smoothing=0.25)
    np.testing.assert_array_equal(found.weights, [0.8, 0.2, 0.0])
    assert found.reasons == ()


def test_smoothing_again_and_again_is_an_exponential_moving_average():
    estimates = np.random.default_rng(0).dirichlet([1, 1, 1], 6)
    weights = estimates[0]
    for new in estimates[1:]:
        weights = ruled(new, smoothing=0.5, previous=weights).weights
    shares = [1 / 32, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2]
    np.testing.assert_allclose(weights, shares @ estimates)


def test_what_the_cap_cuts_off_goes_to_the_others_in_equal_parts():
    found = ruled([0.9, 0.1, 0.0], weight_cap=0.5)
    np.testing.assert_allclose(found.weights, [0.5, 0.3, 0.2])
    assert found.reasons == ("no weight above 0.5",)


def test_a_head_that_the_others_excess_lifts_to_the_cap_stays_there():
    # .3 over, .1 each: the second would come to .48, so it stops at .4 and the last two get .01 more each.
    found = cap(np.array([0.7, 0.28, 0.02, 0.0]), 0.4, np.ones(4, dtype=bool))
    np.testing.assert_allclose(found, [0.4, 0.38, 0.12, 0.1])
    found = cap(np.array([0.58, 0.38, 0.04, 0.0]), 0.4, np.ones(4, dtype=bool))
    np.testing.assert_allclose(found, [0.4, 0.4, 0.12, 0.08])


def test_capped_weights_are_the_nearest_that_keep_the_cap():
    rng = np.random.default_rng(0)
    for _ in range(30):
        size = int(rng.integers(2, 6))
        limit = float(rng.uniform(1 / size, 1.0))
        weights = rng.dirichlet(np.full(size, 0.3))
        best = scipy.optimize.minimize(
            lambda w, weights=weights: ((w - weights) ** 2).sum(),
            np.full(size, 1 / size),
            method="SLSQP",
            bounds=[(0, limit)] * size,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-14},
        )
        np.testing.assert_allclose(cap(weights, limit, np.ones(size, dtype=bool)), best.x, atol=1e-5)


def test_weights_under_the_cap_come_back_to_the_bit():
    weights = np.random.default_rng(0).dirichlet([1, 1, 1], 50)
    under = weights.max(axis=1) <= 0.7
    found = ruled(weights, alive=np.ones((50, 3), dtype=bool), weight_cap=0.7).weights
    assert 0 < under.sum() < 50
    np.testing.assert_array_equal(found[under], weights[under])


def test_the_lowest_cap_there_is_makes_weights_equal():
    np.testing.assert_allclose(ruled([0.98, 0.02, 0.0], weight_cap=1 / 3).weights, [1 / 3] * 3)


def test_the_fused_head_is_raised_to_the_floor_and_the_others_keep_their_proportions():
    found = ruled([0.75, 0.25, 0.0], fused_floor=0.2)
    np.testing.assert_allclose(found.weights, [0.6, 0.2, 0.2])
    assert found.reasons == ("fused head not below 0.2",)


def test_a_floor_below_the_fused_weight_changes_nothing():
    assert ruled([0.5, 0.2, 0.3], fused_floor=0.3).reasons == ()


def test_the_rules_apply_in_the_documented_order():
    found = ruled(ONE_HOT, shrinkage=0.3, smoothing=0.5, previous=[0.9, 0.1, 0.0], weight_cap=0.6, fused_floor=0.25)
    # shrunk (.8, .1, .1), smoothed (.85, .1, .05), capped (.6, .225, .175), floored: .25 and .75 shared 600 : 225
    np.testing.assert_allclose(found.weights, [0.75 * 600 / 825, 0.75 * 225 / 825, 0.25])
    assert found.reasons == (
        "shrunk to equal weights by 0.3",
        "0.5 of the previous weights kept",
        "no weight above 0.6",
        "fused head not below 0.25",
    )


def test_any_options_keep_both_limits_and_the_sum_and_no_weight_negative():
    rng = np.random.default_rng(1)
    for _ in range(200):
        size = int(rng.integers(2, 6))
        limit = float(rng.uniform(1 / size, 1.0))
        least = float(rng.uniform(0, min(limit, 0.9)))
        found = ruled(
            rng.dirichlet(np.full(size, 0.2), 20),
            alive=np.ones((20, size), dtype=bool),
            previous=rng.dirichlet(np.full(size, 0.2)),
            shrinkage=float(rng.uniform()),
            smoothing=float(rng.uniform(0, 0.9)),
            weight_cap=limit,
            fused_floor=least,
        ).weights
        np.testing.assert_allclose(found.sum(axis=1), 1.0)
        assert found.max() <= limit + 1e-9
        assert found[:, -1].min() >= least - 1e-9
        assert found.min() >= 0


def test_any_order_of_the_modalities_gives_the_same_weights():
    options = {"shrinkage": 0.2, "smoothing": 0.3, "weight_cap": 0.45, "fused_floor": 0.3}
    rng = np.random.default_rng(2)
    for _ in range(50):
        weights, previous = rng.dirichlet(np.full(4, 0.3), 2)
        order = [*rng.permutation(3), 3]
        alive = np.ones(4, dtype=bool)
        plain = ruled(weights, alive=alive, previous=previous, **options).weights
        permuted = ruled(weights[order], alive=alive, previous=previous[order], **options).weights
        np.testing.assert_allclose(permuted, plain[order])


@pytest.mark.parametrize(
    "rule",
    [
        lambda w, alive: shrink(w, 0.5, alive),
        lambda w, alive: smooth(w, [0.1, 0.2, 0.7], 0.5, alive),
        lambda w, alive: cap(w, 0.6, alive),
        lambda w, alive: floor_fused(w, 0.4, alive),
    ],
    ids=["shrink", "smooth", "cap", "floor"],
)
@pytest.mark.parametrize("dead", [[0], [2], [0, 2]])
def test_no_rule_gives_weight_to_a_head_whose_loss_is_not_finite(rule, dead):
    alive = ALL.copy()
    alive[dead] = False
    found = rule(alive / alive.sum(), alive)
    assert (found[dead] == 0).all()
    assert found.sum() == pytest.approx(1.0)


def test_previous_weights_that_all_lay_on_heads_now_lost_are_not_kept():
    alive = np.array([False, True, True])
    np.testing.assert_array_equal(smooth(np.array([0.0, 0.7, 0.3]), ONE_HOT, 0.5, alive), [0.0, 0.7, 0.3])


def test_if_no_loss_is_finite_every_head_counts():
    found = ruled(np.full(3, 1 / 3), alive=~ALL, shrinkage=0.5, weight_cap=0.4, fused_floor=0.4)
    np.testing.assert_allclose(found.weights, [0.3, 0.3, 0.4])


def project(values):
    """To weights: none negative, sum 1."""
    positive = np.clip(values, 1e-6, None)
    return positive / positive.sum(axis=-1, keepdims=True)


def mean_squared_errors(spread: float) -> tuple[float, float]:
    """Of measured weights and of shrunk ones, about random true weights, for noise of so large a spread."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(400):
        truth = rng.dirichlet([4, 4, 4])
        measured = project(truth + rng.normal(0, spread, 3))
        resampled = project(measured + rng.normal(0, spread, (200, 3)))
        shrunk = shrink(measured, noise_share(measured, resampled, ALL), ALL)
        errors.append([np.square(weights - truth).sum() for weights in (measured, shrunk)])
    raw, better = np.mean(errors, axis=0)
    return raw, better


def test_shrinking_by_the_noise_halves_the_error_of_noisy_weights_and_costs_little_where_they_are_known():
    noisy, shrunk = mean_squared_errors(0.25)
    assert shrunk < 0.6 * noisy
    known, kept = mean_squared_errors(0.01)
    assert kept < 1.05 * known


def test_equal_weights_are_all_noise_and_stay_equal():
    third = np.full(3, 1 / 3)
    assert noise_share(third, np.tile(third, (5, 1)), ALL) == 1.0
