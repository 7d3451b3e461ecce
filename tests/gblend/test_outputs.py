"""Kept outputs: written and read to the bit, joined only where they belong together."""

import dataclasses

import numpy as np
import pytest

from gblend.outputs import HeadOutputs, join_outputs, load_outputs, save_outputs


def outputs(heads=("rgb", "fused"), *, clips: int = 5, seed: int = 0, classes: int = 3) -> HeadOutputs:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(heads), clips, classes))
    counted = rng.random((len(heads), clips)) < 0.8
    log_probs = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    return HeadOutputs(
        heads=heads,
        log_probs=np.where(counted[:, :, None], log_probs, 0.0).astype(np.float32),
        counted=counted,
        labels=np.arange(clips) % classes,
        positions=np.arange(clips),
    )


def test_saved_outputs_come_back_to_the_bit(tmp_path):
    written = {"heldout": outputs(clips=4), "val": outputs(clips=6, seed=1), "test.x": outputs(seed=2)}
    save_outputs(str(tmp_path / "predictions.npz"), {"": written})
    found = load_outputs(str(tmp_path / "predictions.npz"))
    assert list(found) == list(written)
    for split, one in written.items():
        assert found[split].heads == one.heads
        for part in ("log_probs", "counted", "labels", "positions"):
            left, right = getattr(found[split], part), getattr(one, part)
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


def test_nothing_is_unpickled_from_an_outputs_file(tmp_path):
    np.savez(tmp_path / "predictions.npz", **{"heads": np.array(["a"], dtype=object), "val.labels": np.zeros(1)})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_outputs(str(tmp_path / "predictions.npz"))


def test_a_missing_file_is_a_readable_error(tmp_path):
    with pytest.raises(ValueError, match=r"predictions.npz does not exist; is the directory above it a finished run"):
        load_outputs(str(tmp_path / "predictions.npz"))


def test_joined_heads_keep_their_answers_under_the_name_of_their_network():
    one, other = outputs(), outputs(("logmel",), seed=1)
    joined = join_outputs({"naive-s0": one, "uni-logmel-s0": other})
    assert joined.heads == ("naive-s0/rgb", "naive-s0/fused", "uni-logmel-s0/logmel")
    np.testing.assert_array_equal(joined.log_probs[:2], one.log_probs)
    np.testing.assert_array_equal(joined.log_probs[2:], other.log_probs)
    np.testing.assert_array_equal(joined.counted, np.concatenate([one.counted, other.counted]))


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.zeros(5, dtype=np.int64)},
        {"positions": np.arange(5)[::-1]},
        {"log_probs": np.zeros((2, 5, 4), dtype=np.float32)},
    ],
    ids=["labels", "positions", "classes"],
)
def test_networks_that_answered_for_other_clips_are_not_joined(change):
    with pytest.raises(
        ValueError, match="a and b answered for different clips or classes; join runs of one comparison"
    ):
        join_outputs({"a": outputs(), "b": dataclasses.replace(outputs(), **change)})


def test_nothing_to_join_is_an_error():
    with pytest.raises(ValueError, match="no network to join"):
        join_outputs({})


def test_an_answer_is_usable_when_counted_and_finite():
    one = outputs(clips=3)
    broken = one.log_probs.copy()
    broken[0, 1] = np.nan
    everywhere = dataclasses.replace(one, log_probs=broken, counted=np.array([[True, True, False], [True] * 3]))
    assert everywhere.usable().tolist() == [[True, False, False], [True, True, True]]
