from dataclasses import replace

import numpy as np
import pytest

from gblend.outputs import HELDOUT, HeadOutputs, save_outputs
from gblend.records import write_json
from gblend.run_files import HOLDOUT_FILE, OUTPUTS_FILE
from gblend.runs import load_run
from gblend.sample_answers import answering_run, load_answers
from gblend.samples import load_samples
from gblend.table import comparison_table
from tests.gblend.synthetic import result, write_run
from tests.gblend.synthetic_data import write_dataset


def outputs(said, labels):
    """Two heads: rgb gives .7 to the class said, logmel gives .5 to class 0; it has no answer to the last clip."""
    shares = np.full((2, len(labels), 3), 0.15)
    shares[0, np.arange(len(labels)), said] = 0.7
    shares[1] = [0.5, 0.25, 0.25]
    counted = np.ones((2, len(labels)), dtype=bool)
    counted[1, -1] = False
    return HeadOutputs(
        heads=("rgb", "logmel"),
        log_probs=np.log(shares).astype(np.float32),
        counted=counted,
        labels=np.array(labels),
        positions=np.arange(len(labels)),
    )


@pytest.fixture
def run(tmp_path):
    """Trained on train-0 and train-2, with train-1 held out; of noop, fire and left in test, rgb misses the second."""
    write_dataset(tmp_path / "data")
    place = tmp_path / "equal-s0"
    config = {"modalities": ["rgb", "logmel"], "missing": "zero"}
    write_run(place, result("equal", 0, {"rgb": 0.5, "logmel": 0.5}), config=config)
    write_json(f"{place}/{HOLDOUT_FILE}", ["train-1"])
    kept = {HELDOUT: outputs([1], [1]), "test": outputs([0, 2, 2], [0, 1, 2])}
    save_outputs(f"{place}/{OUTPUTS_FILE}", {"": kept})
    found = load_run(str(place))
    return replace(found, result=replace(found.result, heads=("rgb",)))


def test_every_head_that_has_an_answer_gives_its_class_and_probability_beside_the_truth(run, tmp_path):
    found = load_answers(run, str(tmp_path / "data"), load_samples(str(tmp_path / "data"), per_split=3))
    said = {clip: [(a.head, a.said, round(a.probability, 2), a.right) for a in of] for clip, of in found.clips.items()}
    assert said["test-0"] == [("rgb", "noop", 0.7, True), ("logmel", "noop", 0.5, True)]
    assert said["test-1"] == [("rgb", "left", 0.7, False), ("logmel", "noop", 0.5, False)]
    assert said["test-2"] == [("rgb", "left", 0.7, True)]


def test_of_the_training_split_only_what_was_held_out_has_answers(run, tmp_path):
    found = load_answers(run, str(tmp_path / "data"), load_samples(str(tmp_path / "data"), per_split=3))
    assert [clip for clip in found.clips if clip.startswith("train")] == ["train-1"]
    assert found.clips["train-1"][0].said == "fire"


def test_data_with_other_labels_than_the_run_was_scored_on_has_no_answers(run, tmp_path):
    kept = {HELDOUT: outputs([1], [1]), "test": outputs([0, 2, 2], [0, 1, 1])}
    save_outputs(f"{run.directory}/{OUTPUTS_FILE}", {"": kept})
    found = load_answers(run, str(tmp_path / "data"), load_samples(str(tmp_path / "data"), per_split=3))
    assert list(found.clips) == ["train-1"]


@pytest.mark.parametrize(("best_single", "answering"), [(0.5, "equal"), (0.95, "uni:rgb")])
def test_the_first_seed_of_the_recommended_network_answers(tmp_path, best_single, answering):
    runs = []
    of_val = {"uni:rgb": best_single, "naive": 0.4, "equal": 0.6, "ensemble": 0.9}
    heads = {"uni:rgb": "rgb", "ensemble": "mean"}
    for method, val in of_val.items():
        head = heads.get(method, "fused")
        for seed in (1, 0):
            place = tmp_path / f"{method.replace(':', '-')}-s{seed}"
            write_run(place, result(method, seed, {head: 0.5}, val={head: val}))
            runs.append(load_run(str(place)))
    found = answering_run(runs, comparison_table([run.result for run in runs]))
    assert found is not None
    assert (found.result.method, found.result.seed) == (answering, 0)
