"""V: whole groups, classes in proportion, decided by its seed; against counting."""

import numpy as np
import pytest

from gblend.holdout import hold_out


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_both_sides(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 40, 300).tolist()
    held = hold_out(rng.integers(0, 5, 300).tolist(), groups, 0.2, seed=seed)
    assert {g for g, h in zip(groups, held, strict=True) if h}.isdisjoint(
        g for g, h in zip(groups, held, strict=True) if not h
    )


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_held_out_to_within_a_group_of_its_share(seed):
    """Groups of four clips of one class, as clips of one video are."""
    labels = np.repeat(np.random.default_rng(seed).integers(0, 6, 150), 4)
    held = hold_out(labels.tolist(), np.repeat(np.arange(150), 4).tolist(), 0.25, seed=seed)
    for label in range(6):
        assert abs(held[labels == label].sum() - 0.25 * (labels == label).sum()) <= 4


@pytest.mark.parametrize("share", [0.08, 0.2, 0.31])
def test_independent_clips_are_held_out_to_the_clip(share):
    labels = np.random.default_rng(0).integers(0, 7, 251)
    held = hold_out(labels.tolist(), range(251), share, seed=3)
    assert held.sum() == round(share * 251)
    for label in range(7):
        assert abs(held[labels == label].sum() - share * (labels == label).sum()) < 1


def test_classes_too_small_for_a_clip_each_still_give_their_share_together():
    labels = np.repeat(np.arange(100), 2)
    held = hold_out(labels.tolist(), range(200), 0.2, seed=0)
    assert held.sum() == 40
    assert np.bincount(labels[held]).max() == 1


def test_groups_that_mix_classes_come_near_the_share_of_every_class():
    rng = np.random.default_rng(1)
    labels, groups = rng.integers(0, 4, 800), rng.integers(0, 80, 800)
    held = hold_out(labels.tolist(), groups.tolist(), 0.2, seed=0)
    shares = [held[labels == label].mean() for label in range(4)]
    assert max(abs(share - 0.2) for share in shares) < 0.03


def test_groups_larger_than_any_class_target_still_give_their_share_together():
    labels, groups = np.repeat(np.arange(30) % 10, 2), np.repeat(np.arange(30), 2)
    assert hold_out(labels.tolist(), groups.tolist(), 0.1, seed=0).sum() == 6  # targets of 0 or 1, groups of 2


def test_the_seed_decides_and_nothing_else():
    labels, groups = [0, 1] * 50, list(range(100))
    np.random.seed(1)  # noqa: NPY002  # the global generator, on purpose
    first = hold_out(labels, groups, 0.2, seed=7)
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(first, hold_out(labels, groups, 0.2, seed=7))
    assert (first != hold_out(labels, groups, 0.2, seed=8)).any()


def test_names_of_groups_and_classes_do_not_matter():
    labels, groups = [0, 1, 2] * 20, [i // 2 for i in range(60)]
    plain = hold_out(labels, groups, 0.2, seed=0)
    renamed = hold_out([10 * label for label in labels], [f"video {g}" for g in groups], 0.2, seed=0)
    np.testing.assert_array_equal(plain, renamed)


def test_a_single_group_cannot_be_split():
    with pytest.raises(ValueError, match=r"cannot hold out 20% of 10 clips in 1 groups: it would be none"):
        hold_out([0] * 10, ["video"] * 10, 0.2, seed=0)


def test_too_few_clips_for_the_share_are_an_error():
    with pytest.raises(ValueError, match=r"cannot hold out 10% of 2 clips.*another blend.holdout_share"):
        hold_out([0, 1], ["a", "b"], 0.1, seed=0)


def test_no_clip_at_all_is_an_error():
    with pytest.raises(ValueError, match="no training clip"):
        hold_out([], [], 0.2, seed=0)
