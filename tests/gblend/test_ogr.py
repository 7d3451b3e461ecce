"""The weight formula on the published failure cases, against hand-computed numbers and a random search."""

import numpy as np
import pytest

from gblend.ogr import LossPair, blend_weights, expected_squared_ogr, weights_of

# Three heads (two modalities, the fused head last): losses at both ends, G, O, weights, weights with a floor of .05
# on O. Every number was worked out by hand from w = G / O^2.
CASES = {
    "A one modality overfits": (
        ([1.8, 1.8, 1.8], [1.8, 1.8, 1.8], [0.9, 0.5, 0.4], [1.1, 1.6, 1.0]),
        ([0.7, 0.2, 0.8], [0.2, 1.1, 0.6]),
        [0.880, 0.008, 0.112],
        [0.880, 0.008, 0.112],
    ),
    "B one modality gets worse": (
        ([1.2, 1.2, 1.2], [1.3, 1.3, 1.3], [0.9, 0.2, 0.4], [1.1, 1.9, 1.2]),
        ([0.2, -0.6, 0.1], [0.1, 1.6, 0.7]),
        [0.990, 0.0, 0.010],
        [0.990, 0.0, 0.010],
    ),
    "C held-out loss below training loss": (
        ([1.8, 1.8, 1.8], [1.8, 1.8, 1.8], [1.2, 0.9, 0.8], [1.19, 1.2, 1.1]),
        ([0.61, 0.6, 0.7], [-0.01, 0.3, 0.3]),
        [0.998, 0.001, 0.001],
        [0.944, 0.026, 0.030],
    ),
    "D one modality does not overfit at all": (
        ([1.8, 1.8, 1.8], [1.8, 1.8, 1.8], [1.2, 0.9, 0.8], [1.2, 1.2, 1.1]),
        ([0.6, 0.6, 0.7], [0.0, 0.3, 0.3]),
        [1.0, 0.0, 0.0],
        [0.943, 0.026, 0.031],
    ),
    "E everything gets worse": (
        ([0.3, 0.2, 0.1], [0.9, 1.2, 0.8], [0.2, 0.1, 0.05], [1.0, 1.5, 0.9]),
        ([-0.1, -0.3, -0.1], [0.2, 0.4, 0.15]),
        [1 / 3, 1 / 3, 1 / 3],
        [1 / 3, 1 / 3, 1 / 3],
    ),
    "F one modality never learns": (
        ([1.8, 1.8, 1.8], [1.8, 1.8, 1.8], [0.9, 1.79, 0.8], [1.1, 1.80, 1.0]),
        ([0.7, 0.0, 0.8], [0.2, 0.01, 0.2]),
        [0.467, 0.0, 0.533],
        [0.467, 0.0, 0.533],
    ),
}


def estimate(losses, **options):
    start_train, start_valid, end_train, end_valid = losses
    return blend_weights(
        LossPair(train=start_train, valid=start_valid), LossPair(train=end_train, valid=end_valid), **options
    )


@pytest.mark.parametrize("name", CASES)
def test_the_paper_formula_gives_the_hand_computed_weights(name):
    losses, (generalization, overfitting), weights, _ = CASES[name]
    found = estimate(losses)
    np.testing.assert_allclose(found.generalization, generalization, atol=1e-12)
    np.testing.assert_allclose(found.overfitting, overfitting, atol=1e-12)
    np.testing.assert_allclose(found.weights, weights, atol=5e-4)


@pytest.mark.parametrize("name", CASES)
def test_a_standard_error_floor_gives_the_hand_computed_weights(name):
    losses, _, _, weights = CASES[name]
    np.testing.assert_allclose(estimate(losses, overfitting_se=[0.05] * 3).weights, weights, atol=5e-4)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("A one modality overfits", [0.880, 0.008, 0.112]),
        ("B one modality gets worse", [1.002, -0.012, 0.010]),
        ("C held-out loss below training loss", [0.998, 0.001, 0.001]),
        ("E everything gets worse", [0.283, 0.213, 0.504]),
        ("F one modality never learns", [0.467, 0.0, 0.533]),
    ],
)
def test_the_raw_weights_are_the_formula_without_any_rule(name, raw):
    np.testing.assert_allclose(estimate(CASES[name][0]).raw, raw, atol=5e-4)


def test_the_raw_weights_are_undefined_where_a_gap_did_not_change():
    assert not np.isfinite(estimate(CASES["D one modality does not overfit at all"][0]).raw).all()


def test_changes_of_the_size_of_single_precision_count_as_none():
    """A silent sound track: its head neither learns nor overfits, up to the last bit."""
    losses = ([1.8, 1.8], [1.8, 1.8], [1.8 - 2e-7, 0.9], [1.8 - 1e-7, 1.1])
    np.testing.assert_array_equal(estimate(losses).weights, [0.0, 1.0])


@pytest.mark.parametrize("name", CASES)
def test_weights_sum_to_one_and_are_not_negative(name):
    weights = estimate(CASES[name][0]).weights
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0).all()


def test_the_plain_formula_needs_no_reason():
    assert estimate(CASES["A one modality overfits"][0]).reason == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("B one modality gets worse", "G < 0, weight 0: audio"),
        ("D one modality does not overfit at all", "O = 0, all weight by G to: rgb"),
        ("E everything gets worse", "G < 0, weight 0: rgb, audio, fused; no head has G > 0, equal weights"),
    ],
)
def test_a_rule_beyond_the_formula_is_named(name, reason):
    assert estimate(CASES[name][0], heads=["rgb", "audio", "fused"]).reason == reason


def test_a_gap_that_is_zero_only_up_to_rounding_counts_as_zero():
    losses = ([0.1, 1.8], [0.1 + 0.2, 1.8], [0.05, 0.9], [0.05 + 0.2, 1.2])
    assert estimate(losses).overfitting[0] == 0.0
    np.testing.assert_array_equal(estimate(losses).weights, [1.0, 0.0])


def test_several_heads_without_overfitting_share_by_generalisation():
    losses = ([2.0, 2.0, 2.0], [2.0, 2.0, 2.0], [1.0, 1.7, 1.0], [1.0, 1.7, 1.5])
    np.testing.assert_allclose(estimate(losses).weights, [1.0 / 1.3, 0.3 / 1.3, 0.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_costs_its_head_the_weight_and_says_so(bad):
    losses = ([1.8, 1.8, 1.8], [1.8, 1.8, 1.8], [0.9, bad, 0.4], [1.1, 1.6, 1.0])
    found = estimate(losses, heads=["rgb", "audio", "fused"])
    np.testing.assert_allclose(found.weights, [17.5 / (17.5 + 0.8 / 0.36), 0.0, (0.8 / 0.36) / (17.5 + 0.8 / 0.36)])
    assert found.reason == "loss not finite, weight 0: audio"


def test_ogr_is_infinite_without_generalisation_and_undefined_without_either():
    losses = ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.5, 0.9, 1.0], [0.75, 1.0, 1.0])
    np.testing.assert_allclose(estimate(losses).ogr, [1.0, np.inf, np.nan])


def test_permuting_the_heads_permutes_the_weights():
    losses = CASES["A one modality overfits"][0]
    order = [2, 0, 1]
    permuted = tuple([values[i] for i in order] for values in losses)
    np.testing.assert_allclose(estimate(permuted).weights, estimate(losses).weights[order])


@pytest.mark.parametrize("name", CASES)
def test_a_common_unit_of_loss_does_not_matter(name):
    losses = CASES[name][0]
    bits = tuple([value / np.log(2) for value in values] for values in losses)
    np.testing.assert_allclose(estimate(bits).weights, estimate(losses).weights, rtol=1e-9, atol=1e-12)


def test_no_weights_on_the_simplex_have_a_lower_expected_squared_ogr():
    """Proposition 1, by random search over the simplex and around the solution."""
    rng = np.random.default_rng(0)
    for heads in (2, 3, 4):
        generalization = rng.uniform(0.05, 1.0, heads)
        overfitting = rng.uniform(0.05, 1.0, heads)
        start = LossPair(train=[3.0] * heads, valid=[3.0] * heads)
        valid = 3.0 - generalization
        weights = blend_weights(start, LossPair(train=valid - overfitting, valid=valid)).weights
        best = expected_squared_ogr(weights, generalization, overfitting)
        everywhere = rng.dirichlet(np.ones(heads), 20_000)
        nearby = np.abs(weights + rng.normal(0.0, 0.02, (5_000, heads)))
        rivals = np.concatenate([everywhere, nearby])
        rival_ogr = ((rivals * overfitting) ** 2).sum(axis=1) / (rivals @ generalization) ** 2
        assert best <= rival_ogr.min() * (1 + 1e-9)


def test_a_discount_takes_g_less_its_standard_error():
    """Case A with an error of .1 on every G: .6 / .04 = 15, .1 / 1.21 = .0826, .7 / .36 = 1.944."""
    found = estimate(
        CASES["A one modality overfits"][0], heads=["rgb", "audio", "fused"], generalization_se=[0.1, 0.1, 0.1]
    )
    np.testing.assert_allclose(found.weights, [0.8810, 0.0049, 0.1142], atol=1e-4)
    np.testing.assert_allclose(found.generalization, [0.7, 0.2, 0.8])  # recorded as measured
    assert found.reason == "G lowered by its standard error: rgb, audio, fused"


def test_learning_within_its_standard_error_counts_as_none():
    found = estimate(
        CASES["A one modality overfits"][0], heads=["rgb", "audio", "fused"], generalization_se=[0.0, 0.25, 0.0]
    )
    np.testing.assert_allclose(found.weights, [17.5 / (17.5 + 0.8 / 0.36), 0.0, (0.8 / 0.36) / (17.5 + 0.8 / 0.36)])
    assert found.reason == "G within its standard error, weight 0: audio"


def test_no_learning_beyond_its_standard_error_gives_equal_weights():
    found = estimate(CASES["A one modality overfits"][0], generalization_se=[1.0, 1.0, 1.0])
    np.testing.assert_allclose(found.weights, [1 / 3] * 3)
    assert found.reason.endswith("no head has G > 0 beyond its standard error, equal weights")


def test_an_error_of_too_few_clips_neither_discounts_nor_floors():
    losses = CASES["A one modality overfits"][0]
    unknown = [np.nan] * 3
    found = estimate(losses, generalization_se=unknown, overfitting_se=unknown)
    np.testing.assert_array_equal(found.weights, estimate(losses).weights)
    assert found.reason == ""


def test_equal_weights_leave_out_a_head_whose_loss_is_not_finite():
    losses = ([0.3, 0.2, 0.1], [0.9, 1.2, 0.8], [0.2, np.nan, 0.05], [1.0, 1.5, 0.9])
    found = estimate(losses, heads=["rgb", "audio", "fused"])
    np.testing.assert_array_equal(found.weights, [0.5, 0.0, 0.5])
    assert found.reason == (
        "loss not finite, weight 0: audio; G < 0, weight 0: rgb, fused; "
        "no head has G > 0, equal weights among the others"
    )


def test_no_finite_loss_at_all_gives_equal_weights_and_says_so():
    found = estimate(([1.0, 1.0], [1.0, 1.0], [np.nan, np.inf], [np.nan, np.inf]))
    np.testing.assert_array_equal(found.weights, [0.5, 0.5])
    assert found.reason == "no head has a finite loss; no head has G > 0, equal weights"


def test_a_head_with_huge_losses_does_not_turn_the_others_into_rounding():
    """The last head's losses are 10^8 nats: what single precision rounds there is all of the others' learning."""
    losses = ([1.8, 1.8, 1e8], [1.8, 1.8, 1e8], [0.9, 0.5, 2e8], [1.1, 1.6, 3e8])
    found = estimate(losses)
    np.testing.assert_allclose(found.generalization[:2], [0.7, 0.2])
    np.testing.assert_allclose(found.weights, [17.5 / (17.5 + 0.2 / 1.21), (0.2 / 1.21) / (17.5 + 0.2 / 1.21), 0.0])


OPTIONS = [(), ("generalization_se",), ("overfitting_se",), ("generalization_se", "overfitting_se")]


def random_losses(rng, heads: int):
    """Heads that learn, overfit, get worse, never move or have no gap, in any mixture."""
    start, end = rng.uniform(0.5, 3.0, (2, 2, heads))
    kind = rng.integers(0, 4, heads)
    end = np.where(kind == 1, start, end)  # never learns
    end[0] = np.where(kind == 2, end[1] - (start[1] - start[0]), end[0])  # O = 0
    return start[0], start[1], end[0], end[1]


@pytest.mark.parametrize("options", OPTIONS)
def test_any_order_of_the_heads_gives_the_same_weights(options):
    rng = np.random.default_rng(1)
    for _ in range(200):
        heads = int(rng.integers(2, 6))
        losses, errors = random_losses(rng, heads), rng.uniform(0.0, 0.5, heads)
        order = rng.permutation(heads)
        plain = estimate(losses, **dict.fromkeys(options, errors))
        permuted = estimate(tuple(values[order] for values in losses), **dict.fromkeys(options, errors[order]))
        np.testing.assert_allclose(permuted.weights, plain.weights[order], rtol=1e-12)


@pytest.mark.parametrize("options", OPTIONS)
def test_any_common_factor_of_all_losses_and_errors_gives_the_same_weights(options):
    rng = np.random.default_rng(2)
    for _ in range(200):
        heads = int(rng.integers(2, 6))
        losses, errors = random_losses(rng, heads), rng.uniform(0.0, 0.5, heads)
        factor = 10 ** rng.uniform(-6, 6)
        plain = estimate(losses, **dict.fromkeys(options, errors))
        scaled = estimate(tuple(factor * values for values in losses), **dict.fromkeys(options, factor * errors))
        np.testing.assert_allclose(scaled.weights, plain.weights, rtol=1e-9, atol=1e-12)


def test_many_estimates_at_once_are_the_same_as_one_by_one():
    rng = np.random.default_rng(3)
    generalization, overfitting = rng.normal(0.2, 0.5, (2, 300, 4))
    overfitting[rng.random((300, 4)) < 0.1] = 0.0
    generalization[rng.random((300, 4)) < 0.1] = np.nan
    errors = rng.uniform(0.0, 0.5, (300, 4))
    together = weights_of(generalization, overfitting, generalization_se=errors, overfitting_se=errors)
    one_by_one = [
        weights_of(g, o, generalization_se=e, overfitting_se=e)
        for g, o, e in zip(generalization, overfitting, errors, strict=True)
    ]
    np.testing.assert_array_equal(together, one_by_one)
    np.testing.assert_allclose(together.sum(axis=1), 1.0)


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one train and one valid loss per head"):
        estimate(([1.0], [1.0, 1.0], [1.0], [1.0]))
