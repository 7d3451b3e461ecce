"""Runs of every method do what the method says: what they train, with which weights, at which cost."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gblend.best_epoch import best_epoch
from gblend.config import BlendConfig, OptimConfig
from gblend.cost import branch_epochs as predicted
from gblend.inputs import to_inputs
from gblend.measure import measure
from gblend.methods import RunSpec, check_methods
from gblend.model import make_model
from gblend.records import (
    EpochRecord,
    HeadScore,
    epoch_record,
    estimate_record,
    read_lines,
)
from gblend.run_files import load_checkpoint
from gblend.runner import Runner
from gblend.training import Training
from tests.gblend.carried import (
    assert_same_bits,
    carry_out,
    carry_out_offline,
    carry_out_single,
    estimates_of,
    history_of,
    parameters,
)
from tests.gblend.tiny import CLASSES, MODALITIES, tiny_config, tiny_data


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


@pytest.mark.parametrize("method", ["online", "tracked", "uncertainty", "early-stop", "ogm-ge", "dropout"])
def test_no_method_trains_on_the_held_out_clips(tmp_path, method):
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
    carry_out(tmp_path / method, method, data=data)
    assert drawn
    assert all(entropy is None for _, entropy in drawn)  # only ever measured: central windows


def test_training_lowers_the_training_loss_of_every_head(tmp_path):
    carry_out(tmp_path / "equal", "equal", config=tiny_config(epochs=8))
    history = [epoch_record(line) for line in read_lines(str(tmp_path / "equal" / "history.jsonl"))]
    for head in (*MODALITIES, "fused"):
        assert history[-1].train[head].loss_nats < history[0].train[head].loss_nats


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
        values = [score.loss_nats if measure == "loss" else 1 - score.value for score in scores]
        best = min(range(1, 5), key=lambda epoch, values=values: (round(values[epoch], 12), epoch))
        assert (found.end_epochs[at], found.end_valid[at]) == (best, pytest.approx(values[best]))


def test_a_cap_too_low_for_the_heads_is_refused_before_training():
    config = tiny_config(blend=BlendConfig(weight_cap=0.2))
    with pytest.raises(ValueError, match=r"blend.weight_cap \(0.2\) must be at least 1 / 4 for 4 heads"):
        check_methods(["online"], MODALITIES, config)


@pytest.mark.parametrize(
    ("method", "branch_epochs", "borrowed"), [("uni:rgb", 3, 0), ("naive", 3, 0), ("equal", 3, 0), ("online", 15, 0)]
)
def test_the_cost_counts_the_epochs_of_every_network_trained(tmp_path, method, branch_epochs, borrowed):
    result = carry_out(tmp_path / "run", method)
    assert (result.branch_epochs, result.borrowed_epochs) == (branch_epochs, borrowed)
    assert predicted(method, tiny_config(), modalities=3) == branch_epochs
    assert result.train_samples == branch_epochs * 24


def test_offline_counts_the_probes_it_borrowed(tmp_path):
    carry_out_offline(tmp_path)
    result = json.loads((tmp_path / "offline" / "result.json").read_text())
    assert (result["branch_epochs"], result["borrowed_epochs"], result["train_samples"]) == (15, 12, 3 * 24)


def test_a_tracked_run_is_the_run_that_is_given_its_weights(tmp_path, monkeypatch):
    config = tiny_config(epochs=5)
    carry_out(tmp_path / "tracked", "tracked", config=config)
    found = {
        record.epoch: dict(zip(record.heads, record.weights, strict=True))
        for record in estimates_of(tmp_path / "tracked")
    }
    assert list(found) == [2, 3, 4]
    monkeypatch.setattr(
        Training,
        "weights_for",
        lambda self, ahead: found.get(ahead.start_epoch, dict.fromkeys(self.model.head_names, 0.25)),
    )
    carry_out(tmp_path / "by-hand", "tracked", config=config)
    assert_same_bits(tmp_path / "tracked", tmp_path / "by-hand")


def test_a_tracked_run_takes_g_and_o_from_its_own_history_over_the_last_super_epoch(tmp_path):
    result = carry_out(tmp_path / "tracked", "tracked", config=tiny_config(epochs=4))
    history = history_of(tmp_path / "tracked")
    for record, start, end in zip(estimates_of(tmp_path / "tracked"), (0, 2), (2, 3), strict=True):
        assert (record.epoch, record.probe_epochs) == (end, end - start)
        for at, head in enumerate(record.heads):
            assert record.start_valid[at] == pytest.approx(history[start].heldout[head].loss_nats)
            assert record.end_valid[at] == pytest.approx(history[end].heldout[head].loss_nats)
            assert record.end_train[at] == pytest.approx(history[end].train[head].loss_nats)
    assert result.branch_epochs == 4  # no training but its own
    assert history[1].weights == dict.fromkeys(result.heads, 0.25)


def test_early_stop_ends_with_the_parameters_of_the_epoch_that_was_best_on_v(tmp_path):
    """V is labelled wrongly, so that what is learned on T makes it worse."""
    config, data = tiny_config(epochs=6), tiny_data()
    data.heldout.labelled_as("", [(label + 1) % len(CLASSES) for label in data.heldout.labels.tolist()])
    result = carry_out(tmp_path / "stopped", "early-stop", config=config, data=data)
    history = history_of(tmp_path / "stopped")
    best = max(history[1:], key=lambda r: (r.heldout["fused"].value, -r.heldout["fused"].loss_nats))
    assert result.kept_epoch == best.epoch < 6  # else the test would show nothing
    model = make_model(MODALITIES, len(CLASSES), config.model, seed=99).branch("fused")
    load_checkpoint(model, str(tmp_path / "stopped" / "checkpoint.pt"))
    assert measure(model, data.heldout, spec=data.spec)["fused"].score() == best.heldout["fused"]
    scores = measure(model, data.splits["test"], spec=data.spec)
    assert scores["fused"].score() == result.scores["test"]["fused"]


def test_early_stop_is_the_naive_run_until_it_stops(tmp_path):
    carry_out(tmp_path / "naive", "naive")
    carry_out(tmp_path / "stopped", "early-stop")
    assert history_of(tmp_path / "naive") == history_of(tmp_path / "stopped")


def test_the_best_epoch_is_of_highest_accuracy_then_of_lowest_loss_then_the_first():
    def record(epoch, accuracy, loss_nats):
        score = HeadScore(loss_nats=loss_nats, metrics={"accuracy": accuracy}, count=9)
        return EpochRecord(epoch=epoch, train={}, heldout={"fused": score}, weights={}, learning_rate=0.1)

    nan = float("nan")
    history = [record(0, 0.9, 0.1), record(1, 0.5, 0.2), record(2, 0.8, nan), record(3, 0.8, 0.7), record(4, 0.8, 0.7)]
    assert best_epoch(history) == 3
    assert best_epoch(history[:3]) == 2


def test_pretrain_starts_from_the_trunks_of_the_single_modality_runs(tmp_path):
    needed = carry_out_single(tmp_path)
    frozen = tiny_config(epochs=1, optim=OptimConfig(learning_rate=1e-12, weight_decay=0.0, schedule="constant"))
    runner = Runner(data=tiny_data(), config=frozen, data_path="memory")
    runner.run(RunSpec(method="pretrain", seed=0), str(tmp_path / "pretrain"), needed)
    found, untrained = parameters(tmp_path / "pretrain"), make_model(MODALITIES, 3, frozen.model, seed=0)
    for name, values in found.items():
        kind, modality, *_ = name.split(".")
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue
        origin = parameters(Path(needed[modality])) if kind == "encoders" else untrained.state_dict()
        torch.testing.assert_close(values, origin[name], rtol=0, atol=1e-8)


def test_pretrain_counts_the_runs_it_started_from(tmp_path):
    needed = carry_out_single(tmp_path)
    result = carry_out(tmp_path / "pretrain", "pretrain", probes=needed)
    assert (result.branch_epochs, result.borrowed_epochs, result.train_samples) == (12, 9, 3 * 24)
    assert result.heads == ("fused",)


def test_the_dropout_run_is_the_naive_run_with_that_dropout(tmp_path):
    plain = tiny_config(model=replace(tiny_config().model, fused_dropout=0.0))
    half = tiny_config(model=replace(tiny_config().model, fused_dropout=0.5))
    carry_out(tmp_path / "dropout", "dropout", config=plain)
    carry_out(tmp_path / "naive", "naive", config=half)
    assert_same_bits(tmp_path / "dropout", tmp_path / "naive")


def test_learned_weights_move_with_the_losses_and_are_recorded(tmp_path):
    config = tiny_config(epochs=6, optim=OptimConfig(name="adam", learning_rate=0.05, schedule="constant"))
    carry_out(tmp_path / "run", "uncertainty", config=config)
    history = history_of(tmp_path / "run")
    assert all(list(record.weights) == [*MODALITIES, "fused"] for record in history[1:])
    # They start at 1/4 and come to rest at 1 / (2 L), which is more as long as L < 2 nats.
    assert min(history[1].weights.values()) > 0.25
    assert history[-1].weights != history[1].weights


def test_modulated_gradients_change_the_naive_run_and_nothing_else_about_it(tmp_path):
    modulated, naive = (carry_out(tmp_path / method, method) for method in ("ogm-ge", "naive"))
    assert (modulated.heads, modulated.branch_epochs) == (naive.heads, naive.branch_epochs)
    one, other = parameters(tmp_path / "ogm-ge"), parameters(tmp_path / "naive")
    assert not torch.equal(one["encoders.rgb.stem.0.weight"], other["encoders.rgb.stem.0.weight"])


@pytest.mark.parametrize("method", ["ogm-ge", "uncertainty", "early-stop", "dropout", "tracked"])
def test_every_method_is_decided_by_its_seed(tmp_path, method):
    for name in ("a", "b"):
        torch.manual_seed(ord(name))
        carry_out(tmp_path / name, method)
    assert_same_bits(tmp_path / "a", tmp_path / "b")


def carry_out_ensemble(root: Path, method: str):
    """The ensemble, and the directories of its members by head."""
    needed = carry_out_single(root)
    if method == "ensemble+naive":
        carry_out(root / "naive", "naive")
        needed["fused"] = str(root / "naive")
    return carry_out(root / method, method, probes=needed), needed


@pytest.mark.parametrize("method", ["ensemble", "ensemble+naive"])
def test_an_ensemble_is_the_mean_of_the_probabilities_of_finished_runs(tmp_path, method):
    result, needed = carry_out_ensemble(tmp_path, method)
    clips = tiny_data().splits["test"]
    total = 0.0
    for head, place in needed.items():
        model = make_model(MODALITIES, len(CLASSES), tiny_config().model, seed=99).branch(head)
        load_checkpoint(model, f"{place}/checkpoint.pt")
        model.eval()
        samples = [clips[i, None] for i in range(len(clips))]
        arrays = {m: torch.from_numpy(np.stack([s["arrays"][m] for s in samples])) for m in model.modalities}
        present = {m: torch.ones(len(clips), dtype=torch.bool) for m in model.modalities}
        with torch.no_grad():
            total = total + model(to_inputs(arrays, tiny_data().spec), present)[head].double().softmax(dim=1)
    right = total.argmax(dim=1).numpy() == clips.labels
    loss = -torch.log(total / len(needed)).numpy()[np.arange(len(clips)), clips.labels]
    found = result.scores["test"]["mean"]
    assert (found.value, found.count) == (pytest.approx(right.mean()), len(clips))
    assert found.loss_nats == pytest.approx(loss.mean(), rel=1e-5)
    assert result.predictions.scores["test"]["mean"] == found


def test_an_ensemble_trains_nothing_and_counts_what_its_members_cost(tmp_path):
    result, _ = carry_out_ensemble(tmp_path, "ensemble+naive")
    assert (result.branch_epochs, result.borrowed_epochs, result.train_samples) == (12, 12, 0)
    assert carry_out(tmp_path / "ensemble+naive", "ensemble+naive") == result


def test_an_ensemble_of_runs_without_predictions_says_what_is_missing(tmp_path):
    needed = carry_out_single(tmp_path)
    (tmp_path / "uni-rgb" / "predictions.npz").unlink()
    with pytest.raises(
        ValueError, match=r"uni-rgb/predictions.npz does not exist; is the directory above it a finished"
    ):
        carry_out(tmp_path / "ensemble", "ensemble", probes=needed)


@pytest.mark.parametrize("method", ["tracked", "uncertainty"])
def test_tracked_and_learned_weights_add_up_to_the_number_of_heads_where_asked(tmp_path, method):
    blend = BlendConfig(first_epochs=2, next_epochs=1, scale="heads")
    slow = OptimConfig(learning_rate=1e-6, schedule="constant")  # learned weights stay where they start
    carry_out(tmp_path / "run", method, config=tiny_config(blend=blend, optim=slow))
    for record in history_of(tmp_path / "run")[1:]:
        assert sum(record.weights.values()) == pytest.approx(4.0, rel=1e-4)
