"""Runs and their directories: the estimator leaves the run alone, probes are the baselines, documents are complete."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gblend import runner as runner_module
from gblend.config import BlendConfig
from gblend.model import make_model
from gblend.outputs import join_outputs, load_outputs
from gblend.predictions import score_predictions
from gblend.records import epoch_record, estimate_record, read_json, read_lines, run_result, to_json
from gblend.runner import Runner, RunSpec, check_method, load_checkpoint, with_probes
from tests.gblend.tiny import CLASSES, MODALITIES, tiny_config, tiny_data


def carry_out(directory: Path, method: str, *, config=None, probes=None, seed: int = 0, data=None):
    runner = Runner(data=data or tiny_data(), config=config or tiny_config(), data_path="memory")
    return runner.run(RunSpec(method=method, seed=seed), str(directory), probes)


def carry_out_offline(root: Path, config=None):
    runs = with_probes([RunSpec(method="offline", seed=0)], MODALITIES)
    for run in runs[:-1]:
        carry_out(root / run.name, run.method, config=config)
    probes = dict(zip((*MODALITIES, "fused"), (str(root / run.name) for run in runs), strict=False))
    carry_out(root / "offline", "offline", config=config, probes=probes)
    return estimate_record(read_lines(str(root / "offline" / "weights.jsonl"))[0])


def parameters(directory: Path) -> dict[str, torch.Tensor]:
    return torch.load(directory / "checkpoint.pt", weights_only=True)


def assert_same_bits(left: Path, right: Path) -> None:
    one, other = parameters(left), parameters(right)
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert torch.equal(values, other[name]), name


def test_weights_given_by_hand_give_the_same_bits_as_the_offline_run_that_estimated_them(tmp_path):
    found = carry_out_offline(tmp_path)
    by_hand = tiny_config(blend=BlendConfig(fixed_weights=found.weights))
    carry_out(tmp_path / "fixed", "fixed", config=by_hand)
    assert_same_bits(tmp_path / "offline", tmp_path / "fixed")


def test_online_probes_leave_no_trace_in_the_run(tmp_path, monkeypatch):
    carry_out(tmp_path / "online", "online")
    recorded = {
        record.epoch: dict(zip(record.heads, record.weights, strict=True))
        for record in map(estimate_record, read_lines(str(tmp_path / "online" / "weights.jsonl")))
    }
    assert list(recorded) == [0, 2]

    def by_hand(self, method, ahead, probe_losses):
        return recorded[ahead.start_epoch]

    monkeypatch.setattr(runner_module._Training, "_weights", by_hand)
    carry_out(tmp_path / "by-hand", "online")
    assert_same_bits(tmp_path / "online", tmp_path / "by-hand")


def test_global_random_state_is_left_as_it_was(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    carry_out(tmp_path / "online", "online")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        carry_out(tmp_path / name, "equal", seed=seed)
    assert_same_bits(tmp_path / "a", tmp_path / "b")
    assert not torch.equal(
        parameters(tmp_path / "a")["heads.rgb.weight"], parameters(tmp_path / "c")["heads.rgb.weight"]
    )


def test_a_full_length_online_probe_equals_the_single_modality_run_but_for_its_random_stream(tmp_path, monkeypatch):
    """Offline's probes are the baselines; an online probe over all epochs is the same training."""
    config = tiny_config(blend=BlendConfig(first_epochs=3))
    train = runner_module.train
    monkeypatch.setattr(runner_module, "train", lambda *args, **kw: train(*args, **{**kw, "stream": 0}))
    offline = carry_out_offline(tmp_path, config)
    carry_out(tmp_path / "online", "online", config=config)
    online = estimate_record(read_lines(str(tmp_path / "online" / "weights.jsonl"))[0])
    assert online.weights == offline.weights
    assert online.end_valid == offline.end_valid


def test_the_weights_document_holds_all_that_is_needed_to_redo_the_weights(tmp_path):
    found = carry_out_offline(tmp_path)
    start, end = (np.subtract(getattr(found, f"{e}_valid"), getattr(found, f"{e}_train")) for e in ("start", "end"))
    generalization = np.subtract(found.start_valid, found.end_valid)
    np.testing.assert_allclose(found.generalization, generalization, atol=1e-12)
    np.testing.assert_allclose(found.overfitting, end - start, atol=1e-12)
    score = np.maximum(generalization, 0) / (end - start) ** 2
    np.testing.assert_allclose(found.weights, score / score.sum(), rtol=1e-9)
    assert found.heads == (*MODALITIES, "fused")
    assert all(se > 0 for se in found.overfitting_se)


def test_no_method_trains_on_the_held_out_clips(tmp_path):
    data = tiny_data()
    drawn = []
    getitem = type(data.heldout).__getitem__

    class Watched(type(data.heldout)):
        def __getitem__(self, draw):
            drawn.append(draw)
            return getitem(self, draw)

        def only(self, modalities):
            fewer = super().only(modalities)
            fewer.__class__ = Watched
            return fewer

    data.heldout.__class__ = Watched
    carry_out(tmp_path / "online", "online", data=data)
    assert drawn
    assert all(entropy is None for _, entropy in drawn)  # only ever measured: central windows


def test_history_has_every_head_at_every_epoch(tmp_path):
    carry_out(tmp_path / "equal", "equal")
    history = [epoch_record(line) for line in read_lines(str(tmp_path / "equal" / "history.jsonl"))]
    assert [record.epoch for record in history] == [0, 1, 2, 3]
    for record in history:
        assert list(record.train) == list(record.heldout) == [*MODALITIES, "fused"]
        assert all(score.count == 9 for score in (*record.train.values(), *record.heldout.values()))


def test_training_lowers_the_training_loss_of_every_head(tmp_path):
    carry_out(tmp_path / "equal", "equal", config=tiny_config(epochs=8))
    history = [epoch_record(line) for line in read_lines(str(tmp_path / "equal" / "history.jsonl"))]
    for head in (*MODALITIES, "fused"):
        assert history[-1].train[head].loss_nats < history[0].train[head].loss_nats


def test_the_checkpoint_holds_the_network_that_was_scored(tmp_path):
    result = carry_out(tmp_path / "equal", "equal")
    model = make_model(MODALITIES, len(CLASSES), tiny_config().model, seed=99)
    load_checkpoint(model, str(tmp_path / "equal" / "checkpoint.pt"))
    data = tiny_data()
    scores = runner_module.measure(model, data.splits["test"], spec=data.spec)
    assert {head: losses.score() for head, losses in scores.items()} == result.scores["test"]


def test_predictions_of_a_run_can_be_scored_again_from_its_files(tmp_path):
    result = carry_out(tmp_path / "equal", "equal")
    kept = load_outputs(str(tmp_path / "equal" / "predictions.npz"))
    assert list(kept) == ["heldout", "val", "test"]
    splits = {split: kept[split] for split in ("val", "test")}
    assert score_predictions(kept["heldout"], splits) == result.predictions
    assert list(result.predictions.scores["test"]) == ["fused", "best-head", "mean", "stack"]
    assert result.predictions.scores["test"]["fused"] == result.scores["test"]["fused"]
    assert run_result(read_json(str(tmp_path / "equal" / "result.json"))) == result


def test_a_result_without_predictions_can_still_be_read(tmp_path):
    """Of one head, or written before heads were joined."""
    result = carry_out(tmp_path / "uni", "uni:rgb")
    assert result.predictions is None
    values = to_json(result)
    del values["predictions"]
    assert run_result(values) == result


def test_probes_are_kept_so_that_their_ensemble_needs_no_network(tmp_path):
    carry_out_offline(tmp_path)
    names = [f"uni-{name}-s0" for name in MODALITIES]
    kept = {name: load_outputs(str(tmp_path / name / "predictions.npz")) for name in [*names, "naive-s0"]}
    for chosen in (names, [*names, "naive-s0"]):
        valid, test = (join_outputs({name: kept[name][split] for name in chosen}) for split in ("heldout", "test"))
        found = score_predictions(valid, {"test": test})
        assert len(found.stack_weights) == len(chosen)
        assert found.scores["test"]["stack"].count == 7


def test_loss_weights_add_up_to_the_number_of_heads_where_asked(tmp_path):
    config = tiny_config(blend=BlendConfig(first_epochs=2, next_epochs=1, scale="heads"))
    for method in ("equal", "online"):
        carry_out(tmp_path / method, method, config=config)
        history = [epoch_record(line) for line in read_lines(str(tmp_path / method / "history.jsonl"))]
        assert [sum(record.weights.values()) for record in history[1:]] == pytest.approx([4.0] * 3)
    for line in read_lines(str(tmp_path / "online" / "weights.jsonl")):
        found = estimate_record(line)
        assert (sum(found.weights), found.loss_total) == (pytest.approx(1.0), 4.0)
        used = history[found.epoch + 1].weights
        assert list(used.values()) == pytest.approx([4.0 * weight for weight in found.weights])


@pytest.mark.parametrize("measure", ["loss", "accuracy"])
def test_an_offline_probe_ends_with_the_best_epoch_on_v_where_asked(tmp_path, measure):
    blend = BlendConfig(probe_end="best-v", measure=measure)
    found = carry_out_offline(tmp_path, tiny_config(epochs=4, blend=blend))
    for at, run in enumerate([*(f"uni-{name}" for name in MODALITIES), "naive"]):
        history = [epoch_record(line) for line in read_lines(str(tmp_path / f"{run}-s0" / "history.jsonl"))]
        (head,) = history[0].heldout
        scores = [record.heldout[head] for record in history]
        values = [score.loss_nats if measure == "loss" else 1 - score.accuracy for score in scores]
        best = min(range(1, 5), key=lambda epoch, values=values: (round(values[epoch], 12), epoch))
        assert (found.end_epochs[at], found.end_valid[at]) == (best, pytest.approx(values[best]))


def test_an_online_probe_measures_every_epoch_only_where_its_end_is_chosen(tmp_path, monkeypatch):
    """Two probe epochs, then one; of each of four heads, besides the run's own three epochs."""
    measure = runner_module._Training._measure
    measured = []
    monkeypatch.setattr(
        runner_module._Training, "_measure", lambda self, model: measured.append(model) or measure(self, model)
    )
    counts = {}
    for end in ("last", "best-v"):
        measured.clear()
        blend = BlendConfig(first_epochs=2, next_epochs=1, probe_end=end)
        carry_out(tmp_path / end, "online", config=tiny_config(blend=blend))
        counts[end] = len(measured)
        first, second = (estimate_record(line) for line in read_lines(str(tmp_path / end / "weights.jsonl")))
        assert set(first.end_epochs) <= ({2} if end == "last" else {1, 2})
        assert set(second.end_epochs) == {1}
    assert counts == {"last": 4 + 4 * (2 + 2), "best-v": 4 + 4 * (3 + 2)}


def test_smoothing_keeps_a_share_of_the_weights_of_the_super_epoch_before(tmp_path):
    blend = BlendConfig(first_epochs=2, next_epochs=1, smoothing=0.75, shrinkage=1.0)
    carry_out(tmp_path / "run", "online", config=tiny_config(blend=blend))
    first, second = (estimate_record(line) for line in read_lines(str(tmp_path / "run" / "weights.jsonl")))
    assert first.previous_weights == ()
    assert second.previous_weights == first.weights


def test_a_cap_too_low_for_the_heads_is_refused_before_training():
    config = tiny_config(blend=BlendConfig(weight_cap=0.2))
    with pytest.raises(ValueError, match=r"blend.weight_cap \(0.2\) must be at least 1 / 4 for 4 heads"):
        check_method("online", MODALITIES, config)


@pytest.mark.parametrize(
    ("method", "branch_epochs", "borrowed"), [("uni:rgb", 3, 0), ("naive", 3, 0), ("equal", 3, 0), ("online", 15, 0)]
)
def test_the_cost_counts_the_epochs_of_every_network_trained(tmp_path, method, branch_epochs, borrowed):
    result = carry_out(tmp_path / "run", method)
    assert (result.branch_epochs, result.borrowed_epochs) == (branch_epochs, borrowed)
    assert result.train_samples == branch_epochs * 24


def test_offline_counts_the_probes_it_borrowed(tmp_path):
    carry_out_offline(tmp_path)
    result = json.loads((tmp_path / "offline" / "result.json").read_text())
    assert (result["branch_epochs"], result["borrowed_epochs"], result["train_samples"]) == (15, 12, 3 * 24)


def test_a_finished_run_is_read_back_not_trained_again(tmp_path):
    first = carry_out(tmp_path / "run", "uni:rgb")
    written = (tmp_path / "run" / "checkpoint.pt").stat().st_mtime_ns
    assert carry_out(tmp_path / "run", "uni:rgb") == first
    assert (tmp_path / "run" / "checkpoint.pt").stat().st_mtime_ns == written


def test_a_finished_run_with_other_settings_is_refused_with_the_difference(tmp_path):
    carry_out(tmp_path / "run", "uni:rgb")
    with pytest.raises(ValueError, match=r"other settings \(epochs: 3 there, 4 now\)"):
        carry_out(tmp_path / "run", "uni:rgb", config=tiny_config(epochs=4))


@pytest.mark.parametrize("method", ["uni:audio", "bogus"])
def test_an_unknown_method_names_the_allowed_ones(method):
    with pytest.raises(ValueError, match="allowed here: uni:rgb, uni:logmel, naive, equal, fixed, offline, online"):
        check_method(method, ("rgb", "logmel"), tiny_config())


def test_fixed_weights_must_fit_the_heads():
    config = dataclasses.replace(tiny_config(), blend=BlendConfig(fixed_weights=(0.5, 0.5)))
    with pytest.raises(ValueError, match=r"one non-negative number for each of rgb, flow, logmel and the fused head"):
        check_method("fixed", MODALITIES, config)


def test_probes_come_before_the_run_that_reads_them_and_only_once():
    runs = with_probes([RunSpec(method=m, seed=0) for m in ("offline", "naive", "uni:rgb")], ("rgb", "logmel"))
    assert [run.method for run in runs] == ["uni:rgb", "uni:logmel", "naive", "offline"]
