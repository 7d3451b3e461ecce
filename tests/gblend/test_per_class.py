from dataclasses import replace

import numpy as np
import pytest

from gblend.class_figure import class_caption, class_figure, drawn_classes
from gblend.outputs import HeadOutputs, save_outputs
from gblend.per_class import ClassGain, ClassGains, answers_of, load_gains, shown_joint
from gblend.records import PredictionScores
from gblend.run_files import OUTPUTS_FILE
from gblend.runs import Run, load_run
from gblend.table import comparison_table
from tests.gblend.synthetic import result, write_run

CLASSES = ("clap", "dig", "sing")


def outputs(predicted, labels, *, head, missing=()):
    """One head that is sure of a class for every clip."""
    log_probs = np.full((1, len(labels), len(CLASSES)), np.log(0.05), dtype=np.float32)
    log_probs[0, np.arange(len(labels)), predicted] = np.log(0.9)
    counted = np.ones((1, len(labels)), dtype=bool)
    counted[0, list(missing)] = False
    return HeadOutputs(
        heads=(head,),
        log_probs=log_probs,
        counted=counted,
        labels=np.array(labels),
        positions=np.arange(len(labels)),
    )


def comparison(folder, *, seeds=1, missing=()):
    """naive: clap 2/2, dig 0/2, sing 2/3; uni:rgb: clap 1/2, dig 1/2, sing 2/3."""
    labels = [0, 0, 1, 1, 2, 2, 2]
    said = {"naive": [0, 0, 2, 2, 2, 2, 1], "uni:rgb": [0, 1, 1, 0, 2, 2, 0]}
    runs = []
    for seed in range(seeds):
        for method, predicted in said.items():
            head = "rgb" if method == "uni:rgb" else "fused"
            place = folder / f"{method.replace(':', '-')}-s{seed}"
            write_run(place, result(method, seed, {head: 0.5}))
            only = missing if head == "rgb" else ()
            save_outputs(f"{place}/{OUTPUTS_FILE}", {"": {"test": outputs(predicted, labels, head=head, missing=only)}})
            runs.append(load_run(str(place)))
    return runs, comparison_table([run.result for run in runs])


def gains_of(runs, table) -> ClassGains | None:
    return load_gains(runs, table, CLASSES, joint=shown_joint(runs, table))


def test_gains_are_differences_of_accuracy_class_by_class_the_largest_first(tmp_path):
    gains = gains_of(*comparison(tmp_path, seeds=2))
    assert gains is not None
    assert (gains.joint, gains.single, gains.split, gains.seeds) == ("naive", "uni:rgb", "test", (0, 1))
    assert [(c.name, c.clips) for c in gains.classes] == [("clap", 2), ("sing", 3), ("dig", 2)]
    assert [c.gains for c in gains.classes] == [(0.5, 0.5), (0.0, 0.0), (-0.5, -0.5)]


def test_the_caption_names_both_methods_and_how_the_network_is_read(tmp_path):
    caption = class_caption(gains_of(*comparison(tmp_path)))
    assert caption.startswith("Naive joint training, read by its fused head, beside rgb alone, the best single")


def test_only_clips_that_both_answer_for_are_compared(tmp_path):
    gains = gains_of(*comparison(tmp_path, missing=(1, 2, 3)))
    assert gains is not None
    # Of clap one clip is left, which both have right; of dig none.
    assert {c.name: (c.clips, c.gains) for c in gains.classes} == {"clap": (1, (0.0,)), "sing": (3, (0.0,))}


def test_without_a_clip_that_both_answer_for_the_figure_is_left_out(tmp_path):
    gains = gains_of(*comparison(tmp_path, seeds=2, missing=range(7)))
    assert gains is None
    assert "no labelled clip that both answer for" in class_figure(gains).missing
    assert class_caption(gains) == ""


@pytest.mark.parametrize(
    ("way", "right"),
    # Head a is right about the first clip, b about the second; b is surer, so it decides their mean. Three quarters of
    # a and one of b are right about both: .6^.75 .3^.25 > .4^.75 .7^.25 and .6^.75 .1^.25 < .4^.75 .9^.25.
    [("best-head", (1.0, 0.0)), ("mean", (0.0, 1.0)), ("stack", (1.0, 1.0)), ("other stack", (0.0, 1.0))],
)
@pytest.mark.parametrize("task", ["", "verb"])
def test_an_ensemble_predicts_by_the_way_it_is_judged_by(tmp_path, way, right, task):
    names = [f"{task}/{head}" if task else head for head in ("a", "b")]
    share = 0.75 if way == "stack" else 0.0
    predictions = PredictionScores(
        scores={}, ranking=tuple(names), stack_weights={names[0]: share, names[1]: 1 - share}, stack_clips=7
    )
    own = way.removeprefix("other ")
    head = f"{task}/{own}" if task else own
    run = Run(
        name="ensemble",
        config={},
        result=replace(result("ensemble", 0, {head: 0.9}), predictions=predictions, predict_by=own),
        history=(),
        estimates=(),
        directory=str(tmp_path),
    )
    shares = [[[0.6, 0.4], [0.6, 0.4]], [[0.3, 0.7], [0.1, 0.9]]]
    outputs = HeadOutputs(
        heads=("a", "b"),
        log_probs=np.log(np.array(shares, dtype=np.float32)),
        counted=np.ones((2, 2), dtype=bool),
        labels=np.array([0, 1]),
        positions=np.arange(2),
    )
    keys = ("verb", "noun") if task else ("",)
    save_outputs(f"{tmp_path}/{OUTPUTS_FILE}", {key: {"test": outputs} for key in keys})
    said = answers_of(run, split="test", task=task)
    assert said is not None
    assert tuple((said.log_probs.argmax(axis=1) == outputs.labels).astype(float)) == right


def test_without_kept_predictions_there_is_nothing_to_show(tmp_path):
    runs, table = comparison(tmp_path)
    (tmp_path / "naive-s0" / OUTPUTS_FILE).unlink()
    assert gains_of(runs, table) is None
    assert class_figure(None).missing


def joint_of(*results) -> str | None:
    runs = [Run(name=found.method, config={}, result=found, history=(), estimates=()) for found in results]
    return shown_joint(runs, comparison_table(results))


def test_the_joint_method_is_chosen_on_validation_clips():
    naive = result("naive", 0, {"fused": 0.9}, val={"fused": 0.4})
    assert joint_of(naive, result("equal", 0, {"fused": 0.5}, val={"fused": 0.6})) == "equal"


def test_the_joint_method_that_is_shown_is_the_one_that_is_recommended():
    """Not the one of higher accuracy that is within noise and costs five times as much."""
    values = {"equal": (0.60, 0.64), "online": (0.61, 0.65)}
    cost = {"equal": 12.0, "online": 60.0}
    every = [
        result(method, seed, {"fused": 0.6}, val={"fused": value}, branch_epochs=cost[method])
        for method, each in values.items()
        for seed, value in enumerate(each)
    ]
    assert joint_of(*every) == "equal"


def test_where_a_single_modality_is_recommended_the_best_joint_method_is_shown():
    every = [result(method, 0, {head: 0.5}, val={head: value}) for method, head, value in SINGLE_IS_BEST]
    assert joint_of(*every) == "equal"


SINGLE_IS_BEST = (("uni:rgb", "rgb", 0.9), ("naive", "fused", 0.4), ("equal", "fused", 0.5))


def many(count):
    classes = tuple(ClassGain(name=f"c{i:02}", clips=5, gains=((count / 2 - i) / 100,)) for i in range(count))
    return ClassGains(joint="naive", way="fused", single="uni:rgb", split="test", seeds=(0,), classes=classes)


def test_of_many_classes_the_ends_are_drawn_and_the_rest_is_counted():
    shown, left_out = drawn_classes(many(50).classes)
    assert (len(shown), left_out) == (20, 30)
    assert (shown[0].name, shown[9].name, shown[10].name, shown[-1].name) == ("c00", "c09", "c40", "c49")
    assert "30 classes" in class_figure(many(50)).note


def test_the_caption_names_who_gains_and_who_loses_most():
    text = class_caption(many(4))  # +.02, +.01, 0, -.01
    assert "2 of 4 classes gain, 1 lose" in text
    assert "Most gained: c00 (+.02), c01 (+.01)." in text
    assert "Most lost: c03 (−.01)." in text
    assert "one clip is worth up to .200" in text


def test_every_class_is_a_row_of_the_figure():
    (svg,) = class_figure(many(4)).panels
    assert all(f"c{i:02}" in svg for i in range(4))
    assert class_figure(many(4)).note == ""


@pytest.mark.parametrize("kept", [["naive"], ["uni:rgb"]])
def test_one_side_alone_is_no_comparison(tmp_path, kept):
    runs = [run for run in comparison(tmp_path)[0] if run.result.method in kept]
    assert gains_of(runs, comparison_table([run.result for run in runs])) is None
