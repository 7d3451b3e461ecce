"""Ways of predicting: by hand, one clip at a time, and the stack against SciPy and a grid."""

import dataclasses

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from gblend import predictions as predictions_module
from gblend.outputs import HeadOutputs, join_outputs
from gblend.predictions import first_of, fit_stack, mean, rank_heads, score, score_predictions, stack

CLASSES = 5


def outputs(
    strengths=(1.0, 0.5, 2.0),
    *,
    clips: int = 120,
    seed: int = 0,
    missing: float = 0.0,
    heads=("rgb", "logmel", "fused"),
) -> HeadOutputs:
    """Heads that know the label in this measure, with errors of their own and errors they share."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, clips)
    logits = rng.normal(size=(len(strengths), clips, CLASSES)) + rng.normal(size=(clips, CLASSES))
    logits += np.array(strengths)[:, None, None] * np.eye(CLASSES)[labels]
    return HeadOutputs(
        heads=tuple(heads[: len(strengths)]),
        log_probs=scipy.special.log_softmax(logits, axis=2).astype(np.float32),
        counted=rng.random((len(strengths), clips)) >= missing,
        labels=labels,
        positions=np.arange(clips),
    )


def cross_entropy(weights, found: HeadOutputs) -> float:
    joined = scipy.special.log_softmax(np.tensordot(weights, found.log_probs.astype(np.float64), axes=1), axis=1)
    return float(-joined[np.arange(len(found.labels)), found.labels].mean())


def fitted(found: HeadOutputs):
    return fit_stack(found.log_probs, found.usable(), found.labels)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("strengths", [(1.0, 0.5), (2.0, -1.0, 0.5), (3.0, 2.0, 2.5), (0.2, 0.1, 0.0, 3.0, 1.0, 1.0)])
def test_the_stack_is_as_good_as_scipys_constrained_minimum(strengths, seed):
    found = outputs(strengths, seed=seed, heads=tuple("abcdef"))
    ours = fitted(found)
    rival = scipy.optimize.minimize(
        lambda w: cross_entropy(w, found),
        np.full(len(strengths), 1 / len(strengths)),
        method="SLSQP",
        bounds=[(0, 1)] * len(strengths),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12},
    )
    assert ours.loss_nats == pytest.approx(cross_entropy(ours.weights, found), abs=1e-9)
    assert ours.loss_nats <= rival.fun + 1e-7
    assert ours.gap_nats < 1e-7
    np.testing.assert_allclose(ours.weights, rival.x, atol=0.01)


def test_no_point_of_a_fine_grid_is_better_than_the_stack():
    found = outputs()
    steps = np.linspace(0, 1, 41)
    grid = [(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1]
    assert fitted(found).loss_nats <= min(cross_entropy(np.array(point), found) for point in grid)


def test_the_chunks_of_the_fit_do_not_matter(monkeypatch):
    whole = fitted(outputs())
    monkeypatch.setattr(predictions_module, "CHUNK_BYTES", 8 * 3 * CLASSES * 7)
    np.testing.assert_allclose(fitted(outputs()).weights, whole.weights, atol=1e-6)


def test_heads_that_know_the_opposite_get_no_weight():
    found = fitted(outputs((-3.0, 3.0, -3.0)))
    np.testing.assert_allclose(found.weights, [0, 1, 0], atol=1e-6)


def test_two_copies_of_one_head_are_as_good_as_the_head_and_end_well():
    one = outputs((1.0,))
    twice = join_outputs({"a": one, "b": one})
    assert fitted(twice).loss_nats == pytest.approx(fitted(one).loss_nats)
    assert fitted(twice).weights.sum() == pytest.approx(1.0)


def test_any_order_of_the_heads_gives_the_same_stack():
    found = outputs()
    order = [2, 0, 1]
    permuted = dataclasses.replace(found, log_probs=found.log_probs[order], counted=found.counted[order])
    np.testing.assert_allclose(fitted(permuted).weights, fitted(found).weights[order], atol=1e-5)


def test_the_stack_is_fitted_on_clips_that_every_head_can_answer_for():
    found = outputs(missing=0.3)
    whole = found.counted.all(axis=0)
    kept = dataclasses.replace(
        found,
        log_probs=found.log_probs[:, whole],
        counted=found.counted[:, whole],
        labels=found.labels[whole],
        positions=found.positions[whole],
    )
    assert fitted(found).clips == whole.sum() < 120
    np.testing.assert_allclose(fitted(found).weights, fitted(kept).weights, atol=1e-6)


def test_without_a_clip_that_every_head_can_answer_for_the_stack_is_equal():
    found = outputs((1.0, 0.5), clips=4)
    apart = dataclasses.replace(found, counted=np.array([[True, True, False, False], [False, False, True, True]]))
    assert fitted(apart).weights.tolist() == [0.5, 0.5]
    assert fitted(apart).clips == 0


def test_a_head_that_diverged_gets_no_share_and_spoils_no_clip():
    found = outputs()
    broken = found.log_probs.copy()
    broken[1] = np.nan
    diverged = dataclasses.replace(found, log_probs=broken)
    two = dataclasses.replace(
        found, heads=("rgb", "fused"), log_probs=found.log_probs[[0, 2]], counted=found.counted[[0, 2]]
    )
    np.testing.assert_allclose(fitted(diverged).weights[[0, 2]], fitted(two).weights, atol=1e-6)
    assert fitted(diverged).weights[1] == 0
    scores, expected = (score_predictions(one, {"test": one}) for one in (diverged, two))
    for way in ("best-head", "mean", "stack"):
        assert scores.scores["test"][way].value == expected.scores["test"][way].value
    assert scores.ranking[-1] == "logmel"


def test_no_head_at_all_is_equal_probabilities_and_no_score():
    found = outputs(clips=3)
    nothing = dataclasses.replace(found, counted=np.zeros((3, 3), dtype=bool))
    for said in (
        mean(nothing.log_probs, nothing.usable()),
        stack(nothing.log_probs, nothing.usable(), np.full(3, 1 / 3)),
        first_of(nothing.log_probs, nothing.usable(), [0, 1, 2]),
    ):
        np.testing.assert_allclose(np.exp(said), 1 / CLASSES)
    found_scores = score_predictions(nothing, {"test": nothing}).scores["test"]
    assert {one.count for one in found_scores.values()} == {0}
    assert all(np.isnan(one.value) for one in found_scores.values())


def one_clip(found: HeadOutputs, clip: int):
    """Probabilities of the heads the clip has, and which they are."""
    heads = np.flatnonzero(found.counted[:, clip])
    return heads, np.exp(found.log_probs[heads, clip].astype(np.float64))


WEIGHTS = np.array([0.5, 0.2, 0.3])


def test_every_way_uses_the_heads_a_clip_has_and_no_other():
    found = outputs(missing=0.4)
    usable = found.usable()
    ways = (
        np.exp(mean(found.log_probs, usable)),
        np.exp(stack(found.log_probs, usable, WEIGHTS)),
        np.exp(first_of(found.log_probs, usable, [2, 0, 1])),
    )
    assert not usable.any(axis=0).all()  # some clips have nothing, some a part
    for clip in range(len(found.labels)):
        heads, probs = one_clip(found, clip)
        if heads.size == 0:
            continue
        share = WEIGHTS[heads] / WEIGHTS[heads].sum()
        geometric = np.prod(probs ** share[:, None], axis=0)
        first = probs[heads.tolist().index(next(h for h in (2, 0, 1) if h in heads))]
        for way, expected in zip(ways, (probs.mean(axis=0), geometric / geometric.sum(), first), strict=True):
            np.testing.assert_allclose(way[clip], expected, rtol=1e-5)


def test_a_clip_whose_heads_all_have_no_weight_gets_them_equally():
    found = outputs((1.0, 0.5), clips=4)
    usable = np.array([[False] * 4, [True] * 4])
    said = stack(found.log_probs, usable, np.array([1.0, 0.0]))
    np.testing.assert_allclose(said, found.log_probs[1], atol=1e-6)


def test_what_a_missing_head_would_have_said_does_not_matter():
    found = outputs(missing=0.4)
    nonsense = dataclasses.replace(
        found, log_probs=np.where(found.counted[:, :, None], found.log_probs, np.float32(-50.0))
    )
    assert score_predictions(nonsense, {"test": nonsense}) == score_predictions(found, {"test": found})


def test_heads_are_ranked_by_accuracy_then_by_loss_on_clips_that_all_have():
    probs = np.array(
        [
            [[0.6, 0.4], [0.6, 0.4], [0.9, 0.1]],  # right on the first; the last clip is not everybody's
            [[0.9, 0.1], [0.9, 0.1], [0.5, 0.5]],  # the same, of lower loss on the first and higher on the second
            [[0.6, 0.4], [0.4, 0.6], [0.5, 0.5]],  # right on both
        ]
    )
    found = HeadOutputs(
        heads=("a", "b", "c"),
        log_probs=np.log(probs),
        counted=np.array([[True, True, True], [True, True, False], [True, True, False]]),
        labels=np.array([0, 1, 0]),
        positions=np.arange(3),
    )
    assert rank_heads(found) == [2, 0, 1]


def test_all_choices_are_made_on_v_and_the_scores_are_of_the_split():
    valid, test = outputs((3.0, 0.0, 1.0), seed=0), outputs((0.0, 3.0, 1.0), seed=1)
    found = score_predictions(valid, {"test": test})
    assert found.ranking == ("rgb", "fused", "logmel")
    assert found.stack_clips == 120
    assert list(found.scores["test"]) == ["fused", "best-head", "mean", "stack"]
    rgb = score(test.log_probs[0], test.labels, test.counted[0])
    assert found.scores["test"]["best-head"].value == rgb.value
    assert found.stack_weights["rgb"] == pytest.approx(fitted(valid).weights[0])


def test_the_fused_score_is_the_heads_own():
    found = outputs(missing=0.3)
    said = found.log_probs[2, found.counted[2]]
    labels = found.labels[found.counted[2]]
    fused = score_predictions(found, {"test": found}).scores["test"]["fused"]
    assert fused.count == found.counted[2].sum()
    assert fused.value == (said.argmax(axis=1) == labels).mean()
    assert fused.loss_nats == pytest.approx(-said[np.arange(len(labels)), labels].mean())


def test_networks_joined_give_their_ensemble_with_and_without_the_naive_one():
    """Each network alone knows little; their errors are their own."""
    sets = {}
    for split, seed in (("heldout", 0), ("test", 100)):
        labels = np.random.default_rng(seed).integers(0, CLASSES, 400)
        sets[split] = {
            name: HeadOutputs(
                heads=(head,),
                log_probs=scipy.special.log_softmax(
                    np.random.default_rng(seed + at).normal(size=(1, 400, CLASSES)) + 1.5 * np.eye(CLASSES)[labels],
                    axis=2,
                ),
                counted=np.ones((1, 400), dtype=bool),
                labels=labels,
                positions=np.arange(400),
            )
            for at, (name, head) in enumerate((("uni-rgb", "rgb"), ("uni-logmel", "logmel"), ("naive", "fused")), 1)
        }

    def ensemble(*names):
        valid, test = (join_outputs({name: sets[split][name] for name in names}) for split in ("heldout", "test"))
        return score_predictions(valid, {"test": test}).scores["test"]

    both, three = ensemble("uni-rgb", "uni-logmel"), ensemble("uni-rgb", "uni-logmel", "naive")
    assert list(both) == ["best-head", "mean", "stack"]
    for way in ("mean", "stack"):
        assert both["best-head"].value + 0.03 < both[way].value < three[way].value
