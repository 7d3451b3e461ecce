import numpy as np
import pytest
import scipy.stats

from gblend.drift import (
    class_drift,
    kolmogorov_smirnov,
    kolmogorov_smirnov_by_chance,
    number_drift,
    total_variation,
    total_variation_by_chance,
)


@pytest.mark.parametrize("decimals", [0, 6], ids=["many ties", "hardly a tie"])
def test_the_distance_of_numbers_is_that_of_scipy(decimals):
    rng = np.random.default_rng(0)
    for sizes in ((1, 1), (7, 40), (200, 33)):
        first, second = (
            rng.normal(shift, 2.0, size).round(decimals) for shift, size in zip((0, 1), sizes, strict=True)
        )
        assert kolmogorov_smirnov(first, second) == pytest.approx(scipy.stats.ks_2samp(first, second).statistic)


def test_what_chance_does_to_numbers_is_scipys_limit():
    for first, second in ((100, 100), (40, 4000)):
        scale = np.sqrt((first + second) / (first * second))
        limit = scipy.stats.kstwobign.ppf(0.95) * scale
        assert kolmogorov_smirnov_by_chance(first, second) == pytest.approx(limit, rel=1e-4)
    assert kolmogorov_smirnov_by_chance(1, 1) == 1.0  # the limit would be 1.92, and no distance is larger than 1


def test_the_distance_of_class_frequencies_by_hand():
    assert total_variation(np.array([1, 1, 2]), np.array([10, 10, 20])) == 0.0
    assert total_variation(np.array([3, 0]), np.array([0, 5])) == 1.0
    # .2 .3 .5 and .4 .4 .2: (.2 + .1 + .3) / 2
    assert total_variation(np.array([2, 3, 5]), np.array([4, 4, 2])) == pytest.approx(0.3)


def test_one_in_twenty_pairs_of_random_samples_is_farther_apart_than_chance_says():
    rng = np.random.default_rng(1)
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    first, second = np.round(100 * shares).astype(int), np.round(300 * shares).astype(int)
    limit = total_variation_by_chance(first, second)
    pairs = [[np.bincount(rng.choice(4, size, p=shares), minlength=4) for size in (100, 300)] for _ in range(1000)]
    assert 0.03 < np.mean([total_variation(*pair) > limit for pair in pairs]) < 0.08


def test_a_class_that_neither_split_has_changes_nothing():
    few, more = (np.array([4, 6]), np.array([8, 3])), (np.array([4, 0, 6]), np.array([8, 0, 3]))
    assert class_drift("classes", ("train", "val"), *few) == class_drift("classes", ("train", "val"), *more)


def test_only_what_is_beyond_chance_is_called_a_difference():
    rng = np.random.default_rng(2)
    values = rng.normal(size=300)
    assert not number_drift("x", ("train", "val"), values, rng.normal(size=300)).beyond_chance
    assert number_drift("x", ("train", "val"), values, rng.normal(1.0, size=300)).beyond_chance
    assert not class_drift("y", ("train", "val"), np.array([50, 50]), np.array([22, 28])).beyond_chance
    assert class_drift("y", ("train", "val"), np.array([50, 50]), np.array([5, 45])).beyond_chance
