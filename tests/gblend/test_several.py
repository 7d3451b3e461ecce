"""Mean and stack of several labels: against SciPy, one clip at a time, and the stack of two classes."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from gblend import several
from gblend.predictions import fit_stack, stack
from gblend.several import fit_stack_of_logits, logits_of, mean_of_logits, stack_of_logits

CLASSES = 7


def answers(strengths=(1.0, 0.5, 2.0), *, clips=150, seed=0):
    """Logits of heads that know the labels in this measure, with errors of their own and errors they share."""
    rng = np.random.default_rng(seed)
    truth = rng.random((clips, CLASSES)) < rng.uniform(0.05, 0.6, CLASSES)
    logits = rng.normal(size=(len(strengths), clips, CLASSES)) + rng.normal(size=(clips, CLASSES)) - 1
    return logits + np.array(strengths)[:, None, None] * (2 * truth - 1), truth


def cross_entropy(weights, logits, truth):
    likely = scipy.special.expit(np.tensordot(weights, logits, axes=1))
    return float(-np.where(truth, np.log(likely), np.log1p(-likely)).mean())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("strengths", [(1.0, 0.5), (2.0, -1.0, 0.5), (3.0, 2.0, 2.5), (0.2, 0.1, 0.0, 3.0, 1.0, 1.0)])
def test_the_stack_is_as_good_as_scipys_constrained_minimum(strengths, seed):
    logits, truth = answers(strengths, seed=seed)
    ours = fit_stack_of_logits(logits, truth)
    rival = scipy.optimize.minimize(
        lambda w: cross_entropy(w, logits, truth),
        np.full(len(strengths), 1 / len(strengths)),
        method="SLSQP",
        bounds=[(0, 1)] * len(strengths),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12},
    )
    assert ours.value == pytest.approx(cross_entropy(ours.point, logits, truth), abs=1e-9)
    assert ours.value <= rival.fun + 1e-7
    assert ours.gap < 1e-7
    np.testing.assert_allclose(ours.point, rival.x, atol=0.01)


def test_it_is_the_stack_of_a_task_of_two_classes_for_every_class():
    logits, truth = answers()
    log_probs = np.stack([scipy.special.log_expit(-logits), scipy.special.log_expit(logits)], axis=-1)
    flat, everywhere = log_probs.reshape(3, -1, 2), np.ones((3, truth.size), dtype=bool)
    rival = fit_stack(flat, everywhere, truth.reshape(-1).astype(np.int64))
    ours = fit_stack_of_logits(logits, truth)
    np.testing.assert_allclose(ours.point, rival.weights, atol=1e-5)
    assert ours.value == pytest.approx(rival.loss_nats, abs=1e-9)
    joined = stack_of_logits(logits, np.ones((3, len(truth)), dtype=bool), ours.point)
    said = np.exp(stack(flat, everywhere, ours.point))[:, 1].reshape(truth.shape)
    np.testing.assert_allclose(scipy.special.expit(joined), said, rtol=1e-9)


def test_the_chunks_of_the_fit_do_not_matter(monkeypatch):
    logits, truth = answers()
    whole = fit_stack_of_logits(logits, truth)
    monkeypatch.setattr(several, "CHUNK_BYTES", 8 * 3 * CLASSES * 11)
    np.testing.assert_allclose(fit_stack_of_logits(logits, truth).point, whole.point, atol=1e-6)


def test_huge_logits_overflow_nothing():
    logits, truth = answers()
    with np.errstate(all="raise", under="ignore"):
        found = fit_stack_of_logits(1e4 * logits, truth)
        mean_of_logits(1e4 * logits, np.ones((3, len(truth)), dtype=bool))
    assert np.isfinite(found.value)


def test_the_mean_is_that_of_the_probabilities_of_the_heads_a_clip_has():
    logits, truth = answers()
    usable = np.random.default_rng(1).random((3, len(truth))) < 0.7
    usable[:, 0], usable[:, 1] = False, [True, False, False]
    likely = scipy.special.expit(mean_of_logits(logits, usable))
    for clip, has in enumerate(usable.T):
        expected = scipy.special.expit(logits[has, clip]).mean(axis=0) if has.any() else np.full(CLASSES, 0.5)
        np.testing.assert_allclose(likely[clip], expected, rtol=1e-12)


def test_a_stack_shares_its_weights_among_the_heads_a_clip_has():
    logits, _ = answers(clips=5)
    usable = np.array([[1, 1, 0, 0, 0], [1, 0, 1, 1, 0], [1, 1, 1, 0, 0]], dtype=bool)
    joined = stack_of_logits(logits, usable, np.array([0.75, 0.0, 0.25]))
    np.testing.assert_allclose(joined[0], 0.75 * logits[0, 0] + 0.25 * logits[2, 0])
    np.testing.assert_allclose(joined[1], 0.75 * logits[0, 1] + 0.25 * logits[2, 1])
    np.testing.assert_allclose(joined[2], logits[2, 2])
    np.testing.assert_allclose(joined[3], logits[1, 3])  # its only head weighs nothing
    np.testing.assert_array_equal(joined[4], 0.0)


def test_heads_that_diverged_on_a_clip_do_not_reach_it():
    logits, _ = answers(clips=2)
    logits[1, 0] = np.nan
    usable = np.isfinite(logits).all(axis=2)
    assert np.isfinite(mean_of_logits(logits, usable)).all()
    assert np.isfinite(stack_of_logits(logits, usable, np.full(3, 1 / 3))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_come_back_from_log_sigmoids_with_all_their_digits(dtype):
    logits = np.linspace(-80, 80, 641).astype(dtype)
    back = logits_of(scipy.special.log_expit(logits).astype(dtype))
    np.testing.assert_allclose(back, logits, rtol=3e-6, atol=1e-6)
    assert back.dtype == dtype


def test_a_probability_of_zero_or_one_has_a_logit_without_nan():
    found = logits_of(np.array([-np.inf, 0.0], dtype=np.float32))
    assert found[0] == -np.inf
    assert found[1] > 80
