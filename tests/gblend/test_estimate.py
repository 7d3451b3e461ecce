"""From clip-wise losses to weights: by hand, and standard errors against SciPy."""

import numpy as np
import pytest
import scipy.stats

from gblend.config import BlendConfig
from gblend.estimate import ProbeLosses, estimate
from gblend.measure import HeadLosses

PAPER, FLOOR = BlendConfig(), BlendConfig(overfitting_floor="standard-error")


def losses(values, counted=None) -> HeadLosses:
    values = np.asarray(values, dtype=np.float64)
    counted = np.ones(values.size, dtype=bool) if counted is None else np.asarray(counted)
    return HeadLosses(loss_nats=values, correct=values < 1, counted=counted)


def probe(start_train, start_valid, end_train, end_valid) -> ProbeLosses:
    return ProbeLosses(
        start_train=losses(start_train),
        start_valid=losses(start_valid),
        end_train=losses(end_train),
        end_valid=losses(end_valid),
    )


def flat(start_train, start_valid, end_train, end_valid) -> ProbeLosses:
    """The same loss on each of four clips."""
    return probe(*([value] * 4 for value in (start_train, start_valid, end_train, end_valid)))


def noisy(seed: int, *, gain: float = 0.5, clips: int = 50) -> ProbeLosses:
    rng = np.random.default_rng(seed)
    start = rng.normal(2.0, 0.3, (2, clips))
    return probe(
        start[0], start[1], start[0] - 1.0 + rng.normal(0, 0.2, clips), start[1] - gain + rng.normal(0, 0.2, clips)
    )


def run(probes, config=PAPER):
    return estimate(probes, config, epoch=3, probe_epochs=2)


def test_weights_are_those_computed_by_hand():
    # G = 0.4, O = 0.2: 10. G = 0.9, O = 0.3: 10. G = 0.5, O = 0.5: 2.
    found = run({"rgb": flat(2, 2, 1.4, 1.6), "logmel": flat(2, 2, 0.8, 1.1), "fused": flat(2, 2, 1.0, 1.5)})
    np.testing.assert_allclose(found.generalization, [0.4, 0.9, 0.5])
    np.testing.assert_allclose(found.overfitting, [0.2, 0.3, 0.5])
    np.testing.assert_allclose(found.ogr, [0.5, 1 / 3, 1.0])
    np.testing.assert_allclose(found.weights, [10 / 22, 10 / 22, 2 / 22])
    assert (found.heads, found.epoch, found.probe_epochs, found.reason) == (("rgb", "logmel", "fused"), 3, 2, "")


def test_both_losses_at_both_ends_are_recorded_as_means():
    found = run({"rgb": probe([1, 3], [2, 4], [0, 1], [1, 2]), "fused": flat(2, 2, 1, 1.5)})
    ends = [getattr(found, name)[0] for name in ("start_train", "start_valid", "end_train", "end_valid")]
    assert ends == [2.0, 3.0, 0.5, 1.5]


def test_the_standard_error_of_g_is_that_of_the_paired_differences():
    one = noisy(0)
    found = run({"rgb": one, "fused": noisy(1)})
    expected = scipy.stats.sem(one.start_valid.loss_nats - one.end_valid.loss_nats)
    assert found.generalization_se[0] == pytest.approx(expected)


def test_the_standard_error_of_o_joins_those_of_two_independent_sets_of_clips():
    one = noisy(0)
    found = run({"rgb": one, "fused": noisy(1)})
    errors = [
        scipy.stats.sem(end.loss_nats - start.loss_nats)
        for start, end in ((one.start_valid, one.end_valid), (one.start_train, one.end_train))
    ]
    assert found.overfitting_se[0] == pytest.approx(np.hypot(*errors))


def test_standard_errors_have_the_size_of_the_spread_between_repetitions():
    repeated = [run({"rgb": noisy(seed), "fused": noisy(0)}) for seed in range(300)]
    spread = np.std([found.overfitting[0] for found in repeated])
    assert np.mean([found.overfitting_se[0] for found in repeated]) == pytest.approx(spread, rel=0.15)


def test_clips_that_lack_the_modality_count_in_no_mean_and_no_error():
    whole = noisy(0, clips=20)
    counted = np.arange(30) < 20
    padded = ProbeLosses(
        **{
            end: losses(np.concatenate([getattr(whole, end).loss_nats, np.zeros(10)]), counted)
            for end in ProbeLosses.__dataclass_fields__
        }
    )
    one, other = (run({"rgb": p, "fused": noisy(1)}) for p in (whole, padded))
    assert one == other


def test_the_floor_replaces_an_overfitting_smaller_than_its_error():
    """O of the first head is 0 up to noise: the paper gives it nearly everything, the floor does not."""
    probes = {"rgb": noisy(2, gain=1.0, clips=2000), "fused": noisy(3, clips=2000)}
    paper, floor = run(probes), run(probes, FLOOR)
    assert abs(paper.overfitting[0]) < floor.overfitting_se[0]
    score = np.array(paper.generalization) / np.maximum(np.square(paper.overfitting), np.square(paper.overfitting_se))
    np.testing.assert_allclose(floor.weights, score / score.sum())
    assert paper.weights[0] > floor.weights[0]
    assert floor.reason == "O below its standard error, raised to it: rgb"


def test_the_floor_changes_nothing_where_overfitting_is_clear():
    probes = {"rgb": noisy(0), "fused": noisy(1, gain=0.3)}
    assert run(probes).weights == run(probes, FLOOR).weights


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("config", [PAPER, FLOOR])
def test_a_diverged_probe_gets_no_weight_and_says_so(value, config):
    broken = probe([2.0] * 4, [2.0] * 4, [value] * 4, [value] * 4)
    found = run({"rgb": broken, "logmel": noisy(0), "fused": noisy(1)}, config)
    assert found.weights[0] == 0.0
    assert sum(found.weights) == pytest.approx(1.0)
    assert "loss not finite, weight 0: rgb" in found.reason


def test_saved_losses_come_back_to_the_bit(tmp_path):
    counted = np.arange(50) % 3 > 0
    one = noisy(0)
    written = ProbeLosses(
        start_train=losses(one.start_train.loss_nats, counted),
        start_valid=one.start_valid,
        end_train=losses(np.full(50, np.nan), counted),
        end_valid=one.end_valid,
    )
    written.save(str(tmp_path / "losses.npz"))
    found = ProbeLosses.load(str(tmp_path / "losses.npz"))
    for end in ProbeLosses.__dataclass_fields__:
        for part in HeadLosses.__dataclass_fields__:
            left, right = (getattr(getattr(p, end), part) for p in (written, found))
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


def test_nothing_is_unpickled_from_a_losses_file(tmp_path):
    arrays = {
        f"{end}.{part}": np.zeros(2) for end in ProbeLosses.__dataclass_fields__ for part in ("correct", "counted")
    }
    objects = {f"{end}.loss_nats": np.array([{}, {}], dtype=object) for end in ProbeLosses.__dataclass_fields__}
    np.savez(tmp_path / "losses.npz", **arrays, **objects)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        ProbeLosses.load(str(tmp_path / "losses.npz"))
