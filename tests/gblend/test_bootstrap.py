"""Resampled means against the closed form, SciPy's bootstrap and the same draws made one clip at a time."""

import numpy as np
import pytest
import scipy.stats

from gblend import bootstrap
from gblend.bootstrap import resample_means

RNG = np.random.default_rng(0)
CHANGES = RNG.normal([[0.4], [-1.0], [3.0]], [[0.5], [1.0], [2.0]], (3, 80))
EVERYWHERE = np.ones(CHANGES.shape, dtype=bool)


def resampled(changes=CHANGES, counted=EVERYWHERE, *, seed: int = 0, resamples: int = 4000):
    return resample_means(changes, counted, rng=np.random.default_rng(seed), resamples=resamples)


def test_the_spread_of_the_means_is_the_standard_error_in_closed_form():
    expected = CHANGES.std(axis=1) / np.sqrt(CHANGES.shape[1])  # of the distribution that the clips themselves are
    np.testing.assert_allclose(resampled().mean.std(axis=0), expected, rtol=0.04)
    np.testing.assert_allclose(resampled().mean.mean(axis=0), CHANGES.mean(axis=1), atol=0.02)


def test_the_spread_of_a_difference_between_heads_is_that_of_scipys_paired_bootstrap():
    expected = scipy.stats.bootstrap(
        (CHANGES[0], CHANGES[1]),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        paired=True,
        n_resamples=4000,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    found = resampled().mean[:, 0] - resampled().mean[:, 1]
    assert found.std(ddof=1) == pytest.approx(expected.standard_error, rel=0.05)
    low, high = expected.confidence_interval
    np.testing.assert_allclose(np.percentile(found, (2.5, 97.5)), (low, high), atol=0.02)


def test_heads_that_change_alike_stay_alike_in_every_resample():
    found = resampled(np.stack([CHANGES[0], CHANGES[0] + 1.0]), EVERYWHERE[:2]).mean
    np.testing.assert_allclose(found[:, 1] - found[:, 0], 1.0)


def test_a_resamples_own_mean_and_error_are_those_of_its_clips():
    counted = RNG.random(CHANGES.shape) < 0.7
    found = resampled(counted=counted, resamples=5)
    rng = np.random.default_rng(0)
    for row in range(5):
        clips = rng.integers(0, 80, 80)
        for head in range(3):
            values = CHANGES[head, clips[counted[head, clips]]]
            assert found.mean[row, head] == pytest.approx(values.mean())
            assert found.squared_se[row, head] == pytest.approx(scipy.stats.sem(values) ** 2)


def test_the_chunks_do_not_matter(monkeypatch):
    whole = resampled(resamples=100)
    monkeypatch.setattr(bootstrap, "CHUNK_BYTES", 8 * 80 * 7)
    np.testing.assert_allclose(resampled(resamples=100).mean, whole.mean, rtol=1e-12)


def test_a_head_with_a_loss_that_is_not_finite_has_no_mean_and_leaves_the_others_theirs():
    broken = CHANGES.copy()
    broken[1, 5] = np.nan
    found, whole = resampled(broken, resamples=50), resampled(resamples=50)
    assert np.isnan(found.mean[:, 1]).all()
    np.testing.assert_array_equal(found.mean[:, [0, 2]], whole.mean[:, [0, 2]])


def test_clips_that_do_not_count_change_nothing_however_large():
    counted = EVERYWHERE.copy()
    counted[2, :30] = False
    huge = CHANGES.copy()
    huge[2, :30] = 1e12
    np.testing.assert_array_equal(resampled(huge, counted).mean, resampled(CHANGES, counted).mean)


def test_without_a_clip_there_is_no_mean():
    found = resampled(np.zeros((2, 0)), np.zeros((2, 0), dtype=bool), resamples=3)
    assert found.mean.shape == (3, 2)
    assert np.isnan(found.mean).all()
