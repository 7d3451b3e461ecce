"""Metrics against scikit-learn, torchmetrics and exhaustive search, and their edge cases by hand."""

import itertools
import tracemalloc

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
import torchmetrics.functional.classification as torchmetrics

from gblend.metrics import (
    d_prime,
    joint_top_k_right,
    label_ranking,
    rank_clips,
    ranks,
    score_multi_label,
    top_k_right,
)


def answers(clips=200, classes=12, *, seed=0, steps=0):
    """Scores of a network that knows something; with ``steps``, rounded so that many are equal."""
    rng = np.random.default_rng(seed)
    truth = rng.random((clips, classes)) < rng.uniform(0.05, 0.5, classes)
    scores = rng.normal(size=(clips, classes)) + truth
    return (np.round(scores * steps) / steps if steps else scores), truth


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_is_what_scikit_learn_and_torchmetrics_count(k):
    rng = np.random.default_rng(k)
    labels, scores = rng.integers(0, 9, 300), rng.normal(size=(300, 9))
    share = top_k_right(scores, labels, k=k).mean()
    assert share == pytest.approx(sklearn.metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(9)))
    rival = torchmetrics.multiclass_accuracy(
        torch.tensor(scores), torch.tensor(labels), num_classes=9, top_k=k, average="micro"
    )
    assert share == pytest.approx(float(rival))


def test_the_best_class_of_equal_ones_is_that_of_argmax():
    scores = np.random.default_rng(0).integers(0, 3, (500, 6)).astype(float)
    labels = np.random.default_rng(1).integers(0, 6, 500)
    np.testing.assert_array_equal(top_k_right(scores, labels, k=1), scores.argmax(axis=1) == labels)


def test_answers_without_a_number_are_never_right_however_large_k_is():
    scores = np.array([[np.nan, 0.0], [0.0, np.nan], [-np.inf, 0.0], [np.inf, 0.0], [0.0, -np.inf]])
    assert top_k_right(scores, np.zeros(5, dtype=int), k=2).tolist() == [False, False, False, False, True]


def test_a_label_beyond_the_classes_is_an_error():
    with pytest.raises(ValueError, match=r"labels must be in 0..1, got -1 to 1; leave unlabelled clips out"):
        ranks(np.zeros((2, 2)), np.array([-1, 1]))


def test_k_below_one_is_an_error():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        top_k_right(np.zeros((1, 2)), np.array([0]), k=0)


def brute_force_joint(log_probs, labels, k):
    """Every combination of classes, one clip at a time: by falling likelihood, then by the ranks of its classes."""
    right = []
    for clip, own in enumerate(zip(*labels, strict=True)):
        tables = [said[clip] for said in log_probs]
        places = [np.argsort(np.argsort(-table, kind="stable"), kind="stable").tolist() for table in tables]

        def key(classes, tables=tables, places=places):
            likelihood = np.sum([tables[task][at] for task, at in enumerate(classes)])
            return -likelihood, [places[task][at] for task, at in enumerate(classes)]

        combinations = sorted(itertools.product(*(range(len(table)) for table in tables)), key=key)
        right.append(tuple(int(label) for label in own) in combinations[:k])
    return np.array(right)


@pytest.mark.parametrize("sizes", [(7,), (5, 7), (3, 4, 2), (2, 2, 2, 2)])
@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("steps", [0, 2])
def test_joint_top_k_is_that_of_all_combinations_sorted(sizes, k, steps):
    rng = np.random.default_rng(sum(sizes) + k)
    labels = [rng.integers(0, size, 60) for size in sizes]
    said = [rng.normal(size=(60, size)) + 0.5 * np.eye(size)[label] for size, label in zip(sizes, labels, strict=True)]
    said = [np.round(values * steps) / steps if steps else values for values in said]
    found = joint_top_k_right(said, labels, k=k)
    np.testing.assert_array_equal(found, brute_force_joint(said, labels, k))
    assert 0 < found.mean() < 1


def test_the_joint_best_answer_is_right_when_every_task_is():
    rng = np.random.default_rng(0)
    labels, said = [rng.integers(0, 3, 400) for _ in range(3)], [rng.normal(size=(400, 3)) for _ in range(3)]
    each = [top_k_right(values, label, k=1) for values, label in zip(said, labels, strict=True)]
    np.testing.assert_array_equal(joint_top_k_right(said, labels, k=1), np.all(each, axis=0))


def test_a_task_that_answers_nan_makes_the_joint_answer_wrong():
    fine, broken = np.array([[0.0, -1.0]]), np.array([[np.nan, np.nan]])
    zero = np.array([0])
    assert not joint_top_k_right([fine, broken], [zero, zero], k=4)[0]


def test_joint_top_k_needs_no_more_memory_than_the_answers():
    """EPIC-Kitchens-100: 97 verbs, 300 nouns; all pairs of 4,000 clips would be 116 million numbers."""
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, size, 4000) for size in (97, 300)]
    said = [rng.normal(size=(4000, size)).astype(np.float32) for size in (97, 300)]
    tracemalloc.start()
    share = joint_top_k_right(said, labels, k=5).mean()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert share < 0.01
    assert most < 5 * sum(values.astype(np.float64).nbytes for values in said)


@pytest.mark.parametrize("steps", [0, 2])
def test_average_precision_is_scikit_learns(steps):
    scores, truth = answers(steps=steps)
    rival = [sklearn.metrics.average_precision_score(truth[:, c], scores[:, c]) for c in range(truth.shape[1])]
    np.testing.assert_allclose(rank_clips(scores, truth).average_precision, rival, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 2])
def test_the_area_under_the_curve_is_scikit_learns(steps):
    scores, truth = answers(steps=steps)
    rival = [sklearn.metrics.roc_auc_score(truth[:, c], scores[:, c]) for c in range(truth.shape[1])]
    np.testing.assert_allclose(rank_clips(scores, truth).roc_auc, rival, atol=1e-6)


def test_nan_and_infinite_answers_rank_as_places_that_scikit_learn_is_told():
    """Whether the clip has the class decides where its NaN stands: below -inf, or above inf."""
    scores, truth = answers(clips=300, classes=6, steps=2)
    rng = np.random.default_rng(1)
    for value in (np.nan, np.inf, -np.inf):
        scores[rng.random(scores.shape) < 0.1] = value
    told = np.where(np.isnan(scores), np.where(truth, -200.0, 200.0), np.clip(scores, -100.0, 100.0))
    found = rank_clips(scores, truth)
    for c in range(6):
        assert found.average_precision[c] == pytest.approx(
            sklearn.metrics.average_precision_score(truth[:, c], told[:, c]), abs=1e-6
        )
        assert found.roc_auc[c] == pytest.approx(sklearn.metrics.roc_auc_score(truth[:, c], told[:, c]), abs=1e-6)


@pytest.mark.parametrize("steps", [0, 2])
def test_label_ranking_is_scikit_learns_of_one_clip_at_a_time(steps):
    scores, truth = answers(steps=steps)
    truth[:5] = False
    truth[5:10] = True
    rival = [
        sklearn.metrics.label_ranking_average_precision_score(truth[clip : clip + 1], scores[clip : clip + 1])
        for clip in range(len(truth))
    ]
    np.testing.assert_allclose(label_ranking(scores, truth), rival, rtol=1e-12)


def test_mean_label_ranking_is_torchmetrics():
    scores, truth = answers()
    rival = torchmetrics.multilabel_ranking_average_precision(
        torch.tensor(scores).sigmoid(), torch.tensor(truth).long(), num_labels=truth.shape[1]
    )
    assert score_multi_label(scores, truth).label_ranking == pytest.approx(float(rival), abs=1e-6)


@pytest.mark.parametrize(("clips", "positive"), [(14, 3), (20, 7), (400, 3)])
def test_a_class_that_is_told_apart_perfectly_has_an_area_of_one_and_an_endless_d_prime(clips, positive):
    truth = (np.arange(clips) < positive)[:, None]
    found = score_multi_label(-np.arange(clips, dtype=float)[:, None], truth)
    assert (found.mean_auc, found.mean_average_precision, found.d_prime) == (1.0, 1.0, np.inf)


def test_only_the_order_of_scores_counts_even_where_probabilities_are_all_but_equal():
    scores, truth = answers()
    found = score_multi_label(scores, truth)
    assert score_multi_label(40 + scores, truth) == found  # as probabilities in single precision, all 1
    assert score_multi_label(scores.astype(np.float32) / 100, truth).mean_auc == pytest.approx(found.mean_auc)


def test_means_leave_out_classes_that_say_nothing():
    scores, truth = answers(classes=4)
    truth[:, 1], truth[:, 2] = False, True
    found = score_multi_label(scores, truth)
    precision = [sklearn.metrics.average_precision_score(truth[:, c], scores[:, c]) for c in (0, 2, 3)]
    area = [sklearn.metrics.roc_auc_score(truth[:, c], scores[:, c]) for c in (0, 3)]
    assert found.mean_average_precision == pytest.approx(np.mean(precision), abs=1e-6)
    assert found.mean_auc == pytest.approx(np.mean(area), abs=1e-6)
    assert (found.ranked_classes, found.separable_classes, found.clips) == (3, 2, 200)


def test_without_any_positive_there_is_no_mean():
    found = score_multi_label(np.zeros((3, 2)), np.zeros((3, 2), dtype=bool))
    assert np.isnan([found.mean_average_precision, found.mean_auc, found.d_prime]).all()
    assert found.label_ranking == 1.0


def test_without_any_clip_there_is_no_mean():
    found = score_multi_label(np.zeros((0, 2)), np.zeros((0, 2), dtype=bool))
    assert np.isnan([found.mean_average_precision, found.mean_auc, found.label_ranking]).all()


def test_a_network_that_answers_nan_is_the_worst_possible():
    truth = np.array([[True, False], [False, True], [False, True]])
    found = score_multi_label(np.full((3, 2), np.nan), truth)
    assert found.mean_auc == 0.0
    assert found.d_prime == -np.inf
    assert found.label_ranking == 0.0
    assert found.mean_average_precision == pytest.approx((1 / 3 + 2 / 3) / 2)  # its clips come last, together


def test_a_clip_that_answers_nan_stands_on_the_wrong_side_of_infinite_scores_too():
    scores = np.array([[np.nan], [-np.inf], [np.inf]])
    assert rank_clips(scores, np.array([[True], [False], [False]])).roc_auc.tolist() == [0.0]
    assert rank_clips(scores, np.array([[False], [True], [True]])).roc_auc.tolist() == [0.0]


@pytest.mark.parametrize("auc", [0.1, 0.5, 0.8, 0.973])
def test_d_prime_is_the_normal_quantile(auc):
    assert d_prime(auc) == pytest.approx(np.sqrt(2) * scipy.stats.norm.ppf(auc))
