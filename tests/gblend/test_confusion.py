from dataclasses import replace

import numpy as np
from sklearn.metrics import confusion_matrix

from gblend.confusion import Confusion, count_pairs, load_confusion, mistakes, shown_classes
from gblend.confusion_figure import confusion_caption, confusion_figure
from gblend.outputs import HeadOutputs, save_outputs
from gblend.run_files import OUTPUTS_FILE
from gblend.runs import load_run
from gblend.table import comparison_table
from tests.gblend.synthetic import result, write_run

CLASSES = ("clap", "dig", "sing")


def confusion(counts, names=CLASSES):
    return Confusion(method="equal", way="fused", split="test", seeds=(0,), names=names, counts=np.array(counts))


def confusion_of(runs, table, names=CLASSES, method="equal") -> Confusion | None:
    return load_confusion(runs, table, names, method=method)


def test_counts_are_those_of_scikit_learn_over_the_clips_that_were_answered():
    rng = np.random.default_rng(0)
    log_probs, labels = np.log(rng.dirichlet(np.ones(7), 200)), rng.integers(0, 7, 200)
    answered = rng.random(200) < 0.8
    expected = confusion_matrix(labels[answered], log_probs[answered].argmax(axis=1), labels=range(7))
    assert np.array_equal(count_pairs(log_probs, labels, answered), expected)


def write_comparison(folder, *, several=False):
    runs = []
    for seed in (0, 1):
        for method, head in (("equal", "fused"), ("uni:rgb", "rgb")):
            place = folder / f"{method.replace(':', '-')}-s{seed}"
            write_run(place, result(method, seed, {head: 0.5}))
            called = np.array([0, 1, seed, 2]) if head == "fused" else np.array([2, 2, 2, 2])
            labels = np.array([0, 0, 1, 2])
            outputs = HeadOutputs(
                heads=(head,),
                log_probs=np.log(np.full((1, 4, 3), 0.1) + 0.7 * np.eye(3)[called]),
                counted=np.ones((1, 4), dtype=bool),
                labels=np.eye(3, dtype=bool)[labels] if several else labels,
                positions=np.arange(4),
            )
            save_outputs(f"{place}/{OUTPUTS_FILE}", {"": {"test": outputs}})
            runs.append(load_run(str(place)))
    return runs, comparison_table([run.result for run in runs])


def test_the_method_that_is_asked_for_is_read_and_its_seeds_are_added_up(tmp_path):
    found = confusion_of(*write_comparison(tmp_path))
    assert found is not None
    assert (found.method, found.way, found.split, found.seeds) == ("equal", "fused", "test", (0, 1))
    # Clip 1 is taken for a dig by both seeds, clip 2 for a clap by one.
    assert found.counts.tolist() == [[2, 2, 0], [1, 1, 0], [0, 0, 2]]


def test_classes_without_names_have_numbers(tmp_path):
    found = confusion_of(*write_comparison(tmp_path), None, "uni:rgb")
    assert found is not None
    assert (found.method, found.names) == ("uni:rgb", ("class 0", "class 1", "class 2"))


def test_several_labels_a_clip_and_predictions_that_were_not_kept_have_no_matrix(tmp_path):
    assert confusion_of(*write_comparison(tmp_path / "several", several=True)) is None
    runs, table = write_comparison(tmp_path / "gone")
    gone = [replace(run, directory=str(tmp_path / "nowhere")) for run in runs]
    assert confusion_of(gone, table) is None
    assert "No predictions were kept" in confusion_figure(None).missing


def test_of_700_classes_those_of_the_largest_mistakes_are_shown_and_every_row_is_whole():
    rng = np.random.default_rng(0)
    counts = 50 * np.eye(700, dtype=int) + (rng.random((700, 700)) < 0.001)
    counts[123, 456], counts[600, 5] = 30, 20
    shown = shown_classes(counts)
    assert len(shown.classes) <= 20
    assert {123, 456, 600, 5} <= set(shown.classes)
    assert list(shown.classes) == sorted(shown.classes)
    assert shown.shares.shape == (len(shown.classes), len(shown.classes) + 1)
    assert np.allclose(shown.shares.sum(axis=1), 1)
    figure = confusion_figure(confusion(counts, tuple(f"class {at}" for at in range(700))))
    assert f"Of 700 classes, the {len(shown.classes)} with the largest confusions are shown." in figure.note
    assert "others" in figure.panels[0]


def test_classes_that_no_clip_has_and_no_answer_names_are_left_out():
    assert shown_classes(np.array([[2, 0, 0], [0, 0, 0], [1, 0, 4]])).classes == (0, 2)


def test_a_cell_is_as_dark_as_the_share_of_its_row():
    (svg,) = confusion_figure(confusion([[3, 1, 0], [0, 4, 0], [0, 0, 4]])).panels
    assert svg.count("var(--wrong") == 1
    assert ".25" in svg
    assert all(name in svg for name in CLASSES)


def test_the_caption_names_the_largest_confusions_with_their_clips():
    text = confusion_caption(confusion([[10, 3, 2], [0, 12, 1], [1, 0, 9]]))
    assert "Equal weights, read by its fused head, is wrong about 7 of 38 test clips." in text
    assert "clap for dig (3 of 15, .20), clap for sing (2 of 15, .13), sing for clap (1 of 10, .10)" in text
    assert "that is .86 of all mistakes" in text


def test_a_method_that_is_right_about_every_clip_is_said_to_be():
    found = confusion([[3, 0, 0], [0, 4, 0], [0, 0, 4]])
    assert confusion_caption(found).endswith("is wrong about 0 of 11 test clips.")
    assert len(confusion_figure(found).panels) == 1
    assert mistakes(found.counts) == []
