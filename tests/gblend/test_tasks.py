"""Several tasks, and several labels a clip: what a blend of them is, against single ones and against scikit-learn."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
import torch.nn.functional as F

from gblend import collective
from gblend.batches import measuring_loader, training_loader
from gblend.config import BlendConfig, LossConfig
from gblend.heads import head_names, of_each_task
from gblend.inputs import to_inputs
from gblend.loop import Learner, Position, make_optimizer, train_together
from gblend.loss import blended_loss, class_weights_by_task, class_weights_of, clip_losses
from gblend.measure import _rank_together, measure, measure_outputs
from gblend.methods import RunSpec, check_methods, needed_runs, with_needed
from gblend.metrics import ClassRanking, rank_clips, summarise
from gblend.model import make_model
from gblend.modulation import label_scores
from gblend.outputs import load_outputs
from gblend.records import epoch_record, estimate_record, read_lines
from gblend.runner import Runner
from gblend.scores import multi_label_metrics
from schemas import Task
from tests.gblend.tiny import EVENT, MODALITIES, NOUN, TASK, VERB, tiny_config, tiny_data

BRANCHES = (*MODALITIES, "fused")
TWO = (VERB, NOUN)
HEADS = head_names(("verb", "noun"), BRANCHES)
SOME = Task(name="unlabelled", kind="single", classes=("x", "y"))
"""A task that every fourth clip has no label for."""

SOME_EVENTS = replace(EVENT, name="event-unlabelled")


def network(tasks=TWO, seed: int = 0):
    classes = {task.name: len(task.classes) for task in tasks} if len(tasks) > 1 else len(tasks[0].classes)
    config = replace(tiny_config().model, fused_dropout=0.0)
    return make_model(MODALITIES, classes, config, seed=seed)


def first_batch(data, positions=range(8)):
    (batch,) = measuring_loader(data.train, list(positions), batch_size=99, rank=0, world=1)
    return to_inputs(batch.arrays, data.spec), batch


def trained(data, tasks, weights, config=None):
    model = network(tasks)
    config = config or tiny_config(batch_size=100)
    learner = Learner(model=model, weights=weights, optimizer=make_optimizer(model, config))
    train_together([learner], data, config, position=Position(start_epoch=0, epochs=1), seed=0)
    return model.state_dict()


def carry_out(root: Path, methods, tasks, config=None, data=None):
    config = config or tiny_config()
    data = data or tiny_data(tasks=tasks)
    found = {}
    for run in with_needed([RunSpec(method=method, seed=0) for method in methods], MODALITIES, config):
        needed = {head: str(root / other.name) for head, other in needed_runs(run, MODALITIES, config).items()}
        runner = Runner(data=data, config=config, data_path="memory")
        found[run.method] = runner.run(run, str(root / run.name), needed)
    return found


def estimates_of(directory: Path):
    return [estimate_record(line) for line in read_lines(str(directory / "weights.jsonl"))]


def test_heads_are_named_task_by_task_and_share_all_but_the_last_layer():
    model, alone = network(), network((TASK,))
    assert model.head_names == HEADS
    inputs, batch = first_batch(tiny_data())
    logits = model.eval()(inputs, batch.present)
    assert {head: values.shape[1] for head, values in logits.items()} == {
        head: 3 if head.startswith("verb") else 2 for head in HEADS
    }
    shapes, others = ({name: p.shape for name, p in m.named_parameters()} for m in (model, alone))
    assert shapes.keys() == others.keys()
    assert {name for name in shapes if shapes[name] != others[name]} == {
        f"heads.{branch}.{part}" for branch in (*MODALITIES, "fused.5") for part in ("weight", "bias")
    }


def test_the_gradient_of_the_blend_is_the_weighted_sum_of_those_of_all_heads():
    """Eq. 7 over two tasks, one of several labels."""
    tasks = (VERB, EVENT)
    data, model = tiny_data(tasks=tasks), network(tasks).eval()
    inputs, batch = first_batch(data)
    weights = {head: 0.1 + 0.05 * at for at, head in enumerate(model.head_names)}

    def gradients(loss):
        model.zero_grad()
        loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    def of_head(head):
        logits, truth = model(inputs, batch.present)[head], batch.labels[head.split("/")[0]]
        if head.startswith("verb"):
            return F.cross_entropy(logits, truth)
        return F.binary_cross_entropy_with_logits(logits, truth)

    everywhere = {head: torch.ones(8, dtype=torch.bool) for head in weights}
    counts = dict.fromkeys(weights, 8.0)
    blend = gradients(blended_loss(model(inputs, batch.present), batch.labels, everywhere, weights, counts))
    single = {head: gradients(of_head(head)) for head in weights}
    for name, values in blend.items():
        expected = sum(weights[head] * found[name] for head, found in single.items() if name in found)
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-6)


def test_smoothed_and_weighted_binary_cross_entropy_is_that_of_pytorch():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    truth, weights = torch.tensor([[1.0, 0.0, 1.0]] * 5), torch.tensor([0.5, 2.0, 0.5])
    got = clip_losses(logits, truth, label_smoothing=0.2, class_weights=weights)
    smooth = torch.tensor([[0.9, 0.1, 0.9]] * 5)
    expected = F.binary_cross_entropy_with_logits(logits, smooth, weight=weights, reduction="none").mean(dim=1)
    torch.testing.assert_close(got, expected)


def test_balanced_weights_of_several_labels_are_one_on_average_over_the_classes():
    weights = class_weights_of(LossConfig(class_weights="balanced"), [40, 10, 20], EVENT, torch.device("cpu"))
    assert float(weights.mean()) == pytest.approx(1.0)
    torch.testing.assert_close(weights * torch.tensor([40.0, 10.0, 20.0]), torch.full((3,), float(weights[0] * 40)))


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_of_given_weights_of_several_labels_only_the_proportions_count(scale):
    config = LossConfig(class_weights=(scale, 2 * scale, 3 * scale))
    weights = class_weights_of(config, None, EVENT, torch.device("cpu"))
    torch.testing.assert_close(weights, torch.tensor([0.5, 1.0, 1.5]))


def test_one_list_of_class_weights_is_refused_for_several_tasks():
    tasks, cpu = {task.name: task for task in TWO}, torch.device("cpu")
    with pytest.raises(ValueError, match=r"one task, and there are 2 \(verb, noun\); allowed for several: equal, bal"):
        class_weights_by_task(LossConfig(class_weights=(1.0, 2.0)), {}, tasks, cpu)
    found = class_weights_by_task(LossConfig(class_weights="balanced"), {"verb": [1, 1, 2], "noun": [3, 1]}, tasks, cpu)
    torch.testing.assert_close(found["verb"], torch.tensor([4 / 3, 4 / 3, 2 / 3]))
    torch.testing.assert_close(found["noun"], torch.tensor([2 / 3, 2.0]))


def test_a_users_loss_gets_the_labelled_clips_and_their_multi_hot_labels(tmp_path, monkeypatch):
    (tmp_path / "own_hinge.py").write_text(
        "def hinge(logits, labels):\n"
        "    assert labels.min() >= 0 and labels.shape == logits.shape\n"
        "    return (1 - (2 * labels - 1) * logits).clamp(min=0).mean(dim=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    label = torch.tensor([[1.0, 0.0], [-1.0, -1.0], [0.0, 0.0]])
    assert clip_losses(torch.zeros(3, 2), label, own="own_hinge:hinge").tolist() == [1.0, 0.0, 1.0]


def test_an_unlabelled_clip_changes_nothing_for_the_task_that_lacks_its_label():
    """Without BatchNorm's batch statistics, a step on all clips is a step on the labelled ones."""
    weights = dict.fromkeys(BRANCHES, 0.25)
    found = {}
    for name, chosen in (("all", None), ("labelled", [i for i in range(24) if i % 4 != 1])):
        data, model = tiny_data(tasks=(SOME,)), network((SOME,))
        model.train = lambda mode=True, model=model: type(model).train(model, False)
        config = tiny_config(batch_size=100)
        learner = Learner(model=model, weights=weights, optimizer=make_optimizer(model, config))
        position = Position(start_epoch=0, epochs=1)
        train_together([learner], data, config, position=position, seed=0, part=chosen)
        found[name] = model.state_dict()
    # The windows of a clip depend on the clip alone, so both have seen the same ones.
    for name, values in found["all"].items():
        torch.testing.assert_close(values, found["labelled"][name], rtol=1e-4, atol=1e-6)


def test_a_task_of_weight_zero_leaves_the_other_as_if_it_were_alone():
    """The classifiers of both tasks are one layer: rows of the other task get no gradient."""
    weights = {head: 0.25 if head.startswith("verb") else 0.0 for head in HEADS}
    both = trained(tiny_data(tasks=TWO), TWO, weights)
    data, model = tiny_data(tasks=(VERB,)), network(TWO)
    alone = network((VERB,))
    start = model.state_dict()
    alone.load_state_dict(
        {
            name: values[:3]
            if name.startswith(("heads.rgb", "heads.flow", "heads.logmel", "heads.fused.5"))
            else values
            for name, values in start.items()
        }
    )
    config = tiny_config(batch_size=100)
    learner = Learner(model=alone, weights=dict.fromkeys(BRANCHES, 0.25), optimizer=make_optimizer(alone, config))
    train_together([learner], data, config, position=Position(start_epoch=0, epochs=1), seed=0)
    for name, values in alone.state_dict().items():
        torch.testing.assert_close(both[name][: len(values)] if values.dim() else both[name], values)


def test_measured_metrics_of_several_labels_are_those_of_scikit_learn():
    data, model = tiny_data(tasks=(EVENT,)), network((EVENT,))
    found = measure(model, data.train, spec=data.spec)
    said = measure_outputs(model, data.train, spec=data.spec)[""]
    assert said.labels.dtype == bool
    for at, head in enumerate(BRANCHES):
        score, log_probs = found[head].score(), said.log_probs[at].astype(np.float64)
        loss = [
            sklearn.metrics.log_loss(t, np.exp(p), labels=[0, 1]) for t, p in zip(said.labels, log_probs, strict=True)
        ]
        np.testing.assert_allclose(found[head].loss_nats, loss, rtol=1e-5)
        assert score.metric == "mAP"
        assert score.value == pytest.approx(sklearn.metrics.average_precision_score(said.labels, log_probs))
        assert score.metrics["mAUC"] == pytest.approx(sklearn.metrics.roc_auc_score(said.labels, log_probs))
        ranking = sklearn.metrics.label_ranking_average_precision_score(said.labels, log_probs)
        assert score.metrics["LRAP"] == pytest.approx(ranking)
        assert found[head].mean("accuracy") == pytest.approx(1 - ranking)


def test_a_result_says_how_many_classes_no_training_clip_has(tmp_path):
    data = replace(tiny_data(tasks=TWO), class_counts={"verb": [9, 8, 7], "noun": [24, 0]})
    assert carry_out(tmp_path, ["uni:rgb"], TWO, data=data)["uni:rgb"].untrained_classes == {"noun": 1}
    assert json.loads((tmp_path / "uni-rgb-s0" / "result.json").read_text())["untrained_classes"] == {"noun": 1}


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_workers_share_out_the_ranking_of_clips_and_classes_and_find_the_same(monkeypatch, workers):
    data, model = tiny_data(tasks=(SOME_EVENTS,)), network((SOME_EVENTS,))
    alone = measure(model, data.heldout, spec=data.spec)["fused"]
    said = measure_outputs(model, data.heldout, spec=data.spec)[""]
    counted = said.counted[-1]
    parts, ranked = [], []

    def seen(scores, truth):
        ranked.append(scores.shape)
        return rank_clips(scores, truth)

    monkeypatch.setattr("gblend.measure.rank_clips", seen)
    monkeypatch.setattr(collective, "world_size", lambda: workers)
    monkeypatch.setattr(collective, "sum_over_workers", lambda values: parts.append(values.clone()) or values)
    for rank in range(workers):
        monkeypatch.setattr(collective, "rank", lambda rank=rank: rank)
        _rank_together(said.log_probs[-1][counted], said.labels[counted], torch.device("cpu"))
    assert sum(classes for _, classes in ranked) == said.labels.shape[1]
    together = torch.stack(parts).sum(dim=0).numpy()
    classes = ClassRanking(average_precision=together[:3], roc_auc=together[3:6])
    assert multi_label_metrics(summarise(classes, together[6:])) == alone.metrics
    np.testing.assert_array_equal(together[6:], alone.correct[counted])


def test_unlabelled_clips_are_not_measured():
    data = tiny_data(tasks=(SOME, SOME_EVENTS))
    found = measure(network((SOME, SOME_EVENTS)), data.heldout, spec=data.spec)
    expected = [i % 4 != 1 for i in range(9)]
    for losses in found.values():
        assert losses.counted.tolist() == expected
        assert losses.score().count == sum(expected)
    said = measure_outputs(network((SOME, SOME_EVENTS)), data.heldout, spec=data.spec)
    assert said["unlabelled"].labels[1] == -1
    assert not said["event-unlabelled"].counted[:, 1].any()


@pytest.mark.parametrize("scale", ["one", "heads"])
@pytest.mark.parametrize("method", ["equal", "online", "tracked", "offline"])
def test_the_weights_of_every_task_add_up(tmp_path, method, scale):
    config = tiny_config(blend=BlendConfig(first_epochs=2, next_epochs=1, scale=scale, refit_epochs=0))
    carry_out(tmp_path, [method], TWO, config)
    for line in read_lines(str(tmp_path / f"{method}-s0" / "history.jsonl"))[1:]:
        record = epoch_record(line)
        assert list(record.weights) == list(HEADS)
        for heads in of_each_task(HEADS).values():
            assert sum(record.weights[head] for head in heads) == pytest.approx(1.0 if scale == "one" else 4.0)


def test_every_task_has_weights_of_its_own_from_its_own_heads(tmp_path):
    carry_out(tmp_path, ["offline"], TWO)
    verb, noun = estimates_of(tmp_path / "offline-s0")
    assert (verb.heads, noun.heads) == (HEADS[:4], HEADS[4:])
    assert verb.weights != noun.weights
    for found in (verb, noun):
        gain = np.maximum(found.generalization, 0)
        score = gain / np.square(found.overfitting)
        np.testing.assert_allclose(found.weights, score / score.sum(), rtol=1e-9)


def test_a_probe_trains_the_heads_of_all_tasks_and_is_the_single_modality_run(tmp_path):
    carry_out(tmp_path, ["offline"], TWO)
    verb, noun = estimates_of(tmp_path / "offline-s0")
    last = epoch_record(read_lines(str(tmp_path / "uni-flow-s0" / "history.jsonl"))[-1])
    assert list(last.heldout) == ["verb/flow", "noun/flow"]
    assert last.weights == {"verb/flow": 1.0, "noun/flow": 1.0}
    at = BRANCHES.index("flow")
    assert (verb.end_valid[at], noun.end_valid[at]) == tuple(score.loss_nats for score in last.heldout.values())


def test_all_tasks_right_is_reported_for_every_branch_and_every_way(tmp_path):
    runs = carry_out(tmp_path, ["equal", "ensemble"], TWO)
    result = runs["equal"]
    said = {task: load_outputs(str(tmp_path / "equal-s0" / "predictions.npz"), task) for task in ("verb", "noun")}
    at = BRANCHES.index("fused")
    right = [said[task]["test"].log_probs[at].argmax(axis=1) == said[task]["test"].labels for task in ("verb", "noun")]
    fused = result.scores["test"]["fused"]
    assert fused.value == np.mean(right[0] & right[1])
    assert fused.loss_nats == pytest.approx(
        result.scores["test"]["verb/fused"].loss_nats + result.scores["test"]["noun/fused"].loss_nats
    )
    ways = result.predictions.scores["test"]
    assert [way for way in ways if "/" not in way] == ["fused", "best-head", "mean", "stack", "refit"]
    assert ways["fused"] == fused
    assert ways["verb/mean"].value >= ways["mean"].value <= ways["noun/mean"].value
    assert set(runs["ensemble"].scores["test"]) == {"mean", "verb/mean", "noun/mean"}


def test_top_five_of_all_tasks_is_the_product_of_their_probabilities(tmp_path):
    result = carry_out(tmp_path, ["naive"], TWO)["naive"]
    said = {
        task: load_outputs(str(tmp_path / "naive-s0" / "predictions.npz"), task)["test"] for task in ("verb", "noun")
    }
    product = np.exp(said["verb"].log_probs[0][:, :, None] + said["noun"].log_probs[0][:, None, :]).reshape(7, 6)
    truth = said["verb"].labels * 2 + said["noun"].labels
    expected = sklearn.metrics.top_k_accuracy_score(truth, product, k=5, labels=range(6))
    assert result.scores["test"]["fused"].metrics["top5"] == pytest.approx(expected)


def test_of_a_task_with_several_labels_among_others_the_mean_metric_is_reported(tmp_path):
    scores = carry_out(tmp_path, ["naive"], (VERB, EVENT))["naive"].scores["test"]
    assert scores["fused"].metrics == {
        "mean": pytest.approx((scores["verb/fused"].value + scores["event/fused"].value) / 2)
    }


@pytest.mark.parametrize("tasks", [(EVENT,), (SOME, SOME_EVENTS)], ids=["several labels", "partly labelled tasks"])
def test_every_method_runs_to_its_end(tmp_path, tasks):
    methods = ["online", "uncertainty", "early-stop", "pretrain", "offline", "ensemble+naive", "dropout", "tracked"]
    blend = BlendConfig(first_epochs=1, next_epochs=1, measure="accuracy")
    runs = carry_out(tmp_path, methods, tasks, tiny_config(epochs=2, blend=blend))
    for result in runs.values():
        for score in (
            *result.scores["test"].values(),
            *(result.predictions.scores["test"].values() if result.predictions else ()),
        ):
            assert np.isfinite(score.loss_nats)
            assert np.isfinite(score.value)
    json.loads((tmp_path / "online-s0" / "result.json").read_text())


def test_several_labels_are_learned(tmp_path):
    carry_out(tmp_path, ["equal"], (EVENT,), tiny_config(epochs=8))
    history = [epoch_record(line) for line in read_lines(str(tmp_path / "equal-s0" / "history.jsonl"))]
    for head in BRANCHES:
        assert history[-1].train[head].loss_nats < history[0].train[head].loss_nats
    assert history[-1].train["flow"].value > 0.9


def test_ogm_ge_adds_up_the_scores_of_the_tasks():
    data, model = tiny_data(tasks=TWO), network()
    inputs, batch = first_batch(data)
    both = label_scores(model, inputs, batch.present, batch.labels)
    alone = [label_scores(model, inputs, batch.present, {key: batch.labels[key]}) for key in ("verb", "noun")]
    for name in MODALITIES:
        assert both[name] == pytest.approx(alone[0][name] + alone[1][name])


def test_ogm_ge_is_refused_for_several_labels_a_clip():
    with pytest.raises(ValueError, match="ogm-ge compares modalities by the probability of the one right class"):
        check_methods(["ogm-ge"], MODALITIES, tiny_config(), {"": EVENT})


def test_weights_given_by_hand_are_one_a_head_of_every_task():
    tasks = {task.name: task for task in TWO}
    config = tiny_config(blend=BlendConfig(fixed_weights=(1.0,) * 8))
    check_methods(["fixed"], MODALITIES, config, tasks)
    with pytest.raises(ValueError, match="the fused head, for verb, then noun, not all 0"):
        check_methods(["fixed"], MODALITIES, tiny_config(blend=BlendConfig(fixed_weights=(1.0,) * 4)), tasks)


@pytest.mark.parametrize("given", [(1.0, 0.0, 0.0, 0.0, *[0.0] * 4), (*[0.0] * 4, 0.0, 0.0, 0.0, 1.0)])
def test_a_task_all_of_whose_weights_are_zero_would_not_be_trained_and_is_refused(given):
    tasks = {task.name: task for task in TWO}
    with pytest.raises(ValueError, match="for verb, then noun, not all 0 of a task; got"):
        check_methods(["fixed"], MODALITIES, tiny_config(blend=BlendConfig(fixed_weights=given)), tasks)


def test_outputs_of_several_tasks_name_them(tmp_path):
    carry_out(tmp_path, ["naive"], TWO)
    path = str(tmp_path / "naive-s0" / "predictions.npz")
    assert np.load(path)["tasks"].tolist() == ["verb", "noun"]
    assert list(load_outputs(path, "noun")) == ["heldout", "val", "test"]
    with pytest.raises(ValueError, match="has no task ''; it has verb, noun"):
        load_outputs(path)


def test_windows_bring_labels_as_training_takes_them():
    data = tiny_data(tasks=(VERB, SOME_EVENTS))
    (batch,) = training_loader(data.train, [[0, 1, 2]], (0,))
    assert batch.labels["verb"].tolist() == [0, 1, 2]
    assert batch.labels["event-unlabelled"].tolist() == [[1, 1, 1], [-1, -1, -1], [0, 0, 0]]
    assert dataclasses.asdict(batch)["position"].tolist() == [0, 1, 2]
