"""What a run writes is complete, and can be read back."""

from dataclasses import replace

import numpy as np
import pytest

from gblend.config import OptimConfig
from gblend.measure import measure
from gblend.model import make_model
from gblend.outputs import join_outputs, load_outputs
from gblend.predictions import score_predictions
from gblend.records import (
    epoch_record,
    read_json,
    read_lines,
    run_result,
    to_json,
    write_json,
)
from gblend.run_files import load_checkpoint
from gblend.runs import load_run
from gblend.worker import describe
from tests.gblend.carried import (
    carry_out,
    carry_out_offline,
    carry_out_single,
    forget_new_settings,
)
from tests.gblend.tiny import CLASSES, MODALITIES, NOUN, VERB, tiny_config, tiny_data


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


def test_history_has_every_head_at_every_epoch(tmp_path):
    carry_out(tmp_path / "equal", "equal")
    history = [epoch_record(line) for line in read_lines(str(tmp_path / "equal" / "history.jsonl"))]
    assert [record.epoch for record in history] == [0, 1, 2, 3]
    for record in history:
        assert list(record.train) == list(record.heldout) == [*MODALITIES, "fused"]
        assert all(score.count == 9 for score in (*record.train.values(), *record.heldout.values()))


def test_the_checkpoint_holds_the_network_that_was_scored(tmp_path):
    result = carry_out(tmp_path / "equal", "equal")
    model = make_model(MODALITIES, len(CLASSES), tiny_config().model, seed=99)
    load_checkpoint(model, str(tmp_path / "equal" / "checkpoint.pt"))
    data = tiny_data()
    scores = measure(model, data.splits["test"], spec=data.spec)
    for head, losses in scores.items():
        assert losses.score() == result.scores["test"][head]


def test_predictions_of_a_run_can_be_scored_again_from_its_files(tmp_path):
    result = carry_out(tmp_path / "equal", "equal")
    kept = load_outputs(str(tmp_path / "equal" / "predictions.npz"))
    assert list(kept) == ["heldout", "val", "test"]
    splits = {split: kept[split] for split in ("val", "test")}
    again = score_predictions(kept["heldout"], splits)
    for split, ways in again.scores.items():
        assert ways == {way: score for way, score in result.predictions.scores[split].items() if way != "refit"}
    assert again.stack_weights == result.predictions.stack_weights
    assert list(result.predictions.scores["test"]) == ["fused", "best-head", "mean", "stack", "refit"]
    assert result.predictions.scores["test"]["fused"] == result.scores["test"]["fused"]
    assert run_result(read_json(str(tmp_path / "equal" / "result.json"))) == result


@pytest.mark.parametrize("way", ["fused", "best-head", "mean", "stack"])
def test_a_network_of_several_heads_is_judged_by_the_way_that_was_asked_for(tmp_path, way):
    result = carry_out(tmp_path / "equal", "equal", config=tiny_config(predict_by=way))
    assert result.primary == way
    assert result.judged("test") == result.predictions.scores["test"][way]
    assert describe(result).startswith(f"equal seed 0: {way} accuracy val {result.judged('val').value:.3f}, test ")


def test_a_network_of_one_head_is_judged_by_it_whatever_was_asked_for(tmp_path):
    result = carry_out(tmp_path / "uni", "uni:rgb", config=tiny_config(predict_by="stack"))
    assert result.primary == "rgb"
    assert result.judged("test") == result.scores["test"]["rgb"]


def test_of_several_tasks_each_and_all_together_are_judged_by_the_same_way(tmp_path):
    data = tiny_data(tasks=(VERB, NOUN))
    result = carry_out(tmp_path / "equal", "equal", config=tiny_config(predict_by="stack"), data=data)
    for task, name in (("verb", "verb/stack"), ("", "stack")):
        assert result.judged("test", task) == result.predictions.scores["test"][name]


@pytest.mark.parametrize(("way", "judged"), [("stack", "stack"), ("fused", "mean")])
def test_an_ensemble_is_judged_by_the_same_way_where_it_has_it(tmp_path, way, judged):
    config = tiny_config(predict_by=way)
    probes = carry_out_single(tmp_path, config)
    result = carry_out(tmp_path / "ensemble", "ensemble", config=config, probes=probes)
    assert result.primary == judged
    assert result.judged("test") == result.predictions.scores["test"][judged] == result.scores["test"][judged]


@pytest.mark.parametrize("method", ["equal", "ensemble"])
def test_a_finished_run_is_read_back_judged_by_another_way_and_not_trained_again(tmp_path, method):
    probes = carry_out_single(tmp_path) if method == "ensemble" else None
    carry_out(tmp_path / "run", method, probes=probes)
    written = (tmp_path / "run" / "predictions.npz").stat().st_mtime_ns
    again = carry_out(tmp_path / "run", method, config=tiny_config(predict_by="stack"), probes=probes)
    assert (tmp_path / "run" / "predictions.npz").stat().st_mtime_ns == written
    assert again.primary == "stack"
    fresh = carry_out(tmp_path / "fresh", method, config=tiny_config(predict_by="stack"), probes=probes)
    assert again == replace(fresh, seconds=again.seconds)
    assert load_run(str(tmp_path / "run"), "stack").result == again


def test_a_finished_run_of_before_there_was_a_choice_is_read_back(tmp_path):
    first = carry_out(tmp_path / "run", "uni:rgb")
    config = read_json(str(tmp_path / "run" / "config.json"))
    del config["predict_by"]
    write_json(str(tmp_path / "run" / "config.json"), config)
    assert carry_out(tmp_path / "run", "uni:rgb") == first


def test_a_setting_that_a_finished_run_is_older_than_counts_as_its_default(tmp_path):
    first = carry_out(tmp_path / "run", "uni:rgb")
    forget_new_settings(tmp_path / "run")
    assert carry_out(tmp_path / "run", "uni:rgb") == first
    with pytest.raises(ValueError, match=r"other settings \(optim.clip_norm: None there, 1.0 now\)"):
        carry_out(tmp_path / "run", "uni:rgb", config=tiny_config(optim=OptimConfig(learning_rate=0.05, clip_norm=1.0)))


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


def test_a_finished_run_is_read_back_not_trained_again(tmp_path):
    first = carry_out(tmp_path / "run", "uni:rgb")
    written = (tmp_path / "run" / "checkpoint.pt").stat().st_mtime_ns
    assert carry_out(tmp_path / "run", "uni:rgb") == first
    assert (tmp_path / "run" / "checkpoint.pt").stat().st_mtime_ns == written


def test_a_finished_run_with_other_settings_is_refused_with_the_difference(tmp_path):
    carry_out(tmp_path / "run", "uni:rgb")
    with pytest.raises(ValueError, match=r"other settings \(epochs: 3 there, 4 now\)"):
        carry_out(tmp_path / "run", "uni:rgb", config=tiny_config(epochs=4))
