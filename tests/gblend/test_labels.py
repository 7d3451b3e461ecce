"""Labels from stored shards: which clips take part in what, and what is refused."""

import numpy as np
import pytest

from gblend.config import BlendConfig, InputConfig, TrainConfig
from gblend.data import load_run_data
from schemas import FeatureSpec, RgbSpec, Task
from tests.gblend.shards import TASK, gradient_clip, write_dataset

EVENT = Task(name="event", kind="multi", classes=("x", "y"))
CONFIG = TrainConfig(
    name="test",
    input=InputConfig(frames=3, crop_px=16, mel_frames=10),
    blend=BlendConfig(holdout_share=0.25),
)


def stored(root, labels, *, tasks=(TASK, EVENT), test=None):
    """One clip for each pair of labels in train; one of test."""
    clips = [
        gradient_clip(f"c{i}", seed=i, labels=dict(zip(("action", "event"), pair, strict=True)))
        for i, pair in enumerate(labels)
    ]
    others = [gradient_clip("t", labels=test or {"action": 0, "event": [0]})]
    spec = FeatureSpec(rgb=RgbSpec(fps=20.0))
    return write_dataset(root, {"train": clips, "test": others}, spec=spec, tasks=tasks)


PAIRS = [(i % 3 if i % 4 else None, [[0], [1], [0, 1], []][i % 4] if i % 8 else None) for i in range(24)]
"""Every eighth clip has no label at all, every fourth no action."""


def test_clips_without_any_label_are_left_out_and_counted(tmp_path):
    run = load_run_data(stored(tmp_path / "data", PAIRS), CONFIG)
    assert run.unlabelled == {"train": 3, "test": 0}
    assert len(run.train) + len(run.heldout) == 21
    assert set(run.heldout_ids).isdisjoint({"c0", "c8", "c16"})


def test_a_sample_has_the_labels_of_all_tasks_as_training_takes_them(tmp_path):
    run = load_run_data(stored(tmp_path / "data", PAIRS), CONFIG)
    for at, name in enumerate(run.train.index.clip_ids):
        action, event = PAIRS[int(name[1:])]
        found = run.train[at, None]["labels"]
        assert found["action"] == (-1 if action is None else action)
        assert found["event"].tolist() == ([-1, -1] if event is None else [float(k in event) for k in (0, 1)])


def test_v_has_its_share_of_every_class_of_every_task(tmp_path):
    run = load_run_data(stored(tmp_path / "data", PAIRS), CONFIG)
    held = [PAIRS[int(name[1:])] for name in run.heldout_ids]
    for task, classes in ((0, 3), (1, 2)):
        for label in range(classes):
            has = [label in np.atleast_1d(pair[task]) for pair in PAIRS if pair[task] is not None]
            kept = [label in np.atleast_1d(pair[task]) for pair in held if pair[task] is not None]
            assert abs(sum(kept) - 0.25 * sum(has)) <= 1.5, (task, label)


def test_class_counts_are_those_of_t_in_every_task(tmp_path):
    run = load_run_data(stored(tmp_path / "data", PAIRS), CONFIG)
    pairs = [PAIRS[int(name[1:])] for name in run.train.index.clip_ids]
    assert run.class_counts["action"] == [sum(action == k for action, _ in pairs) for k in range(3)]
    assert run.class_counts["event"] == [sum(k in (event or []) for _, event in pairs) for k in range(2)]


def test_a_split_without_a_label_of_a_task_is_refused(tmp_path):
    data = stored(tmp_path / "data", PAIRS, test={"action": None, "event": [0]})
    with pytest.raises(ValueError, match="task 'action' has no label on any of the 1 test clips; label some, or leave"):
        load_run_data(data, CONFIG)


def test_a_split_without_any_label_is_refused(tmp_path):
    data = stored(tmp_path / "data", PAIRS, test={"action": None, "event": None})
    with pytest.raises(ValueError, match="no clip of split 'test' has a label"):
        load_run_data(data, CONFIG)
