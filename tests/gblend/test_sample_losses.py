"""Weights from a user's arrays: those of our own training, with the same errors, and lines for what cannot be."""

import re

import numpy as np
import pytest

from gblend import BlendConfig, LossPair, SampleLosses, blend_weights, gb_estimate

HEADS = ("audio", "video", "fused")
MEANS = {"start": (1.8, 1.8, 1.8), "train": (0.9, 0.5, 0.4), "valid": (1.1, 1.6, 1.0)}


def around(means: tuple[float, ...], count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {head: mean + rng.normal(0, 0.2, count) for head, mean in zip(HEADS, means, strict=True)}


def ends() -> tuple[SampleLosses, SampleLosses]:
    return (
        SampleLosses(train=around(MEANS["start"], 60, 0), valid=around(MEANS["start"], 50, 1)),
        SampleLosses(train=around(MEANS["train"], 60, 2), valid=around(MEANS["valid"], 50, 3)),
    )


def means(losses: SampleLosses) -> LossPair:
    return LossPair(
        train=[float(losses.train[head].mean()) for head in HEADS],
        valid=[float(losses.valid[head].mean()) for head in HEADS],
    )


def test_the_weights_are_those_of_the_formula_on_the_means():
    start, end = ends()
    expected = blend_weights(means(start), means(end))
    found = gb_estimate(start, end)
    assert found.heads == HEADS
    assert found.loss_weights == pytest.approx(dict(zip(HEADS, expected.weights.tolist(), strict=True)))
    assert found.ogr == pytest.approx(expected.ogr.tolist())


def test_the_error_of_g_is_that_of_paired_differences():
    start, end = ends()
    differences = end.valid["video"] - start.valid["video"]
    assert gb_estimate(start, end).generalization_se[1] == pytest.approx(differences.std(ddof=1) / 50**0.5)


def test_masked_samples_of_a_head_count_for_nothing():
    start, end = ends()
    kept = np.arange(50) % 3 > 0

    def without(losses: SampleLosses) -> SampleLosses:
        masked = np.ma.masked_array(np.where(kept, losses.valid["audio"], 99.0), mask=~kept)
        return SampleLosses(train=losses.train, valid={**losses.valid, "audio": masked})

    found = gb_estimate(without(start), without(end))
    assert found.valid_clips == (kept.sum(), 50, 50)
    assert found.generalization[0] == pytest.approx((start.valid["audio"] - end.valid["audio"])[kept].mean())


def test_a_diverged_probe_gets_no_weight():
    start, end = ends()
    end.valid["fused"][7] = np.nan
    assert gb_estimate(start, end).loss_weights["fused"] == 0.0


def test_rules_for_weights_apply_and_their_sum_may_be_the_number_of_heads():
    found = gb_estimate(*ends(), blend=BlendConfig(weight_cap=0.5, scale="heads"))
    assert max(found.weights) == pytest.approx(0.5)
    assert sum(found.loss_weights.values()) == pytest.approx(3.0)


def test_a_setting_of_our_own_training_is_refused():
    with pytest.raises(ValueError, match=re.escape("blend.probe_end is for gblend's own training")):
        gb_estimate(*ends(), blend=BlendConfig(probe_end="best-v"))


def test_a_head_without_losses_at_one_end_is_named():
    start, end = ends()
    del end.train["fused"]
    with pytest.raises(ValueError, match=re.escape("end.train has the heads audio, video, and start.valid has audio")):
        gb_estimate(start, end)


@pytest.mark.parametrize(
    "other", [np.zeros(49), np.zeros((50, 2)), np.ma.masked_array(np.zeros(50), mask=[1, *[0] * 49])]
)
def test_other_samples_after_than_before_are_refused(other):
    start, end = ends()
    with pytest.raises(ValueError, match="of the same samples for all heads before and after"):
        gb_estimate(start, SampleLosses(train=end.train, valid={**end.valid, "audio": other}))


def test_other_samples_for_one_head_are_refused():
    start, end = ends()
    short = [SampleLosses(train=e.train, valid={**e.valid, "video": e.valid["video"][:40]}) for e in (start, end)]
    with pytest.raises(ValueError, match="those of video"):
        gb_estimate(*short)
