import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gblend.clips import StoredClip
from gblend.findings import BETWEEN, NOTHING, findings
from gblend.inventory import take_inventory
from gblend.inventory_text import to_text
from gblend.stills import sound
from schemas import FeatureSpec, RgbSpec, Task
from schemas.layout import DatasetInfo
from tests.gblend.shards import Clip, gradient_clip, write_dataset
from tests.gblend.synthetic_data import write_dataset as write_with_losses

RAW = FeatureSpec(rgb=RgbSpec(codec="raw"))


def plain_clip(name: str, level: int, **given) -> Clip:
    """Frames of one level, six of them."""
    return gradient_clip(name, frames=np.full((6, 20, 24, 3), level, np.uint8), **given)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Six clips of train in three shards and two of test; class 2 is in test only, group g in both."""
    root = tmp_path_factory.mktemp("data")
    train = [plain_clip(f"t{i}", level=10 * i, label=i % 2) for i in range(4)]
    train += [plain_clip("dumb", 40, label=None, logmel=None), plain_clip("shared", 50, group="g")]
    test = [plain_clip("x0", 0, label=2, group="g"), gradient_clip("x1", label=1, frames=None, flow=None)]
    write_dataset(root, {"train": train, "test": test}, spec=RAW, per_shard=2)
    return root


def test_clips_are_counted_by_split_modality_and_class(data):
    found = take_inventory(str(data))
    train, test = found.splits
    assert (train.split, train.ok, train.shards, train.groups, train.seconds) == ("train", 6, 3, 6, 6.0)
    assert train.present == {"rgb": 6, "flow": 6, "logmel": 5}
    assert test.present == {"rgb": 1, "flow": 1, "logmel": 2}
    assert train.duration_s == {"min": 1.0, "median": 1.0, "mean": 1.0, "max": 1.0}
    (task,) = found.classes
    assert task.counts == {"train": (3, 2, 0), "test": (0, 1, 1)}
    assert task.unlabelled == {"train": 1, "test": 0}
    assert found.shared_groups == {("train", "test"): 1}


def test_bytes_are_those_on_disk_and_every_file_is_counted_once(data):
    found = {kind.name: kind for kind in take_inventory(str(data)).storage}
    for name in ("rgb", "flow", "logmel", "clips"):
        files = list(data.glob(f"*/*/{name}.arrow"))
        assert (found[name].files, found[name].bytes) == (4, sum(file.stat().st_size for file in files))
    everything = [file for file in data.rglob("*") if file.is_file()]
    assert sum(kind.files for kind in found.values()) == len(everything)
    assert sum(kind.bytes for kind in found.values()) == sum(file.stat().st_size for file in everything)
    assert found["rgb"].bytes_per_clip == found["rgb"].bytes / 7
    assert found["logmel"].bytes_per_clip == found["logmel"].bytes / 7
    assert found["other"].bytes_per_clip is None


def test_a_shard_that_the_documents_do_not_name_is_no_part_of_a_modality(data, tmp_path):
    clips = {"train": [plain_clip("a", 0)]}
    write_dataset(tmp_path, clips, spec=RAW)
    before = {kind.name: kind.bytes for kind in take_inventory(str(tmp_path)).storage}
    left = tmp_path / "train" / "00009"
    left.mkdir()
    (left / "rgb.arrow").write_bytes(b"x" * 1000)
    after = {kind.name: kind.bytes for kind in take_inventory(str(tmp_path)).storage}
    assert after == {**before, "other": before["other"] + 1000}


def test_brightness_and_loudness_are_the_means_of_what_is_stored(data):
    content = take_inventory(str(data)).contents["train"]
    assert content.clips == 6
    assert content.values["brightness"].tolist() == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    # gradient_clip: 0.1 a band, 1 a frame: 0.1 * 19.5 + 14.5, in half precision
    assert content.values["loudness"] == pytest.approx([16.45] * 5, abs=0.01)
    assert content.sizes == {"20x24": 6}
    assert content.values["motion_px"] == pytest.approx([np.hypot(20 / 255, 20 / 255)] * 6, rel=1e-4)


def test_loudness_is_of_the_real_sound_without_the_padding_around_it():
    clip = StoredClip(logmel=np.arange(10, dtype=np.float16)[:, None], audio_start_s=0.02, audio_end_s=0.05)
    assert sound(clip, FeatureSpec()).ravel().tolist() == [2.0, 3.0, 4.0]
    late = replace(clip, audio_start_s=0.2, audio_end_s=0.2)
    assert sound(late, FeatureSpec()).ravel().tolist() == [9.0]


def test_source_frames_that_are_shown_twice_are_counted_once(tmp_path):
    write_with_losses(tmp_path)  # six frames at 10 fps, each of a time of its own
    assert take_inventory(str(tmp_path)).contents["train"].values["source_fps"].tolist() == [10.0] * 3
    write_dataset(tmp_path / "held", {"train": [plain_clip("a", 0)]}, spec=RAW)  # six frames, all of time 0
    assert take_inventory(str(tmp_path / "held")).contents["train"].values["source_fps"].tolist() == [15.0 / 6]


def test_drift_compares_classes_and_numbers_of_every_pair_of_splits(data):
    drifts = {drift.quantity: drift for drift in take_inventory(str(data)).drifts}
    # .6 .4 0 and 0 .5 .5
    assert drifts["classes of action"].distance == pytest.approx((0.6 + 0.1 + 0.5) / 2)
    assert drifts["classes of action"].clips == (5, 2)
    assert drifts["brightness"].clips == (6, 1)
    assert drifts["brightness"].distance == pytest.approx(5 / 6)  # one of six is as dark as the only other
    assert drifts["duration_s"].distance == 0.0


def test_several_labels_a_clip_are_each_counted(tmp_path):
    task = Task(name="event", kind="multi", classes=("dog", "rain"))
    clips = [plain_clip("a", 0, label=[0, 1]), plain_clip("b", 0, label=[1]), plain_clip("c", 0, label=None)]
    write_dataset(tmp_path, {"train": clips}, spec=RAW, tasks=(task,))
    (found,) = take_inventory(str(tmp_path)).classes
    assert found.counts == {"train": (1, 2)}
    assert found.unlabelled == {"train": 1}


def test_every_reason_has_its_count_and_an_example(tmp_path):
    write_with_losses(tmp_path)
    found = take_inventory(str(tmp_path))
    assert [(loss.reason, loss.clips, loss.clip_id) for loss in found.losses] == [
        ("unreadable", 2, "bad0"),
        ("duplicate", 1, "off"),
    ]
    assert "2 failed, open, unreadable\n    such as bad0: bad0: moov missing" in to_text(found)
    assert found.notes == ()


def test_countings_that_disagree_are_noted(tmp_path):
    write_with_losses(tmp_path)
    path = tmp_path / "dataset.json"
    info = DatasetInfo.loads(path.read_text(), what="it")
    counts = {"train": {"ok": 4, "failed": 1, "skipped": 0}, "test": info.counts["test"]}
    path.write_text(replace(info, counts=counts).dumps())
    assert take_inventory(str(tmp_path)).notes == (
        "train: shards hold 3 clips, dataset.json says 4",
        "train: the ledger has 2 failed clips, dataset.json says 1",
    )


def test_the_document_is_json_with_all_that_was_counted(data):
    found = take_inventory(str(data))
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["splits"][0]["present"] == {"rgb": 6, "flow": 6, "logmel": 5}
    assert document["tasks"][0]["counts"]["train"] == [3, 2, 0]
    assert document["content"]["train"]["brightness"]["median"] == 25.0
    assert {kind["name"]: kind["bytes"] for kind in document["storage"]} == {k.name: k.bytes for k in found.storage}
    assert len(document["drift"]) == len(found.drifts)


def test_long_tables_are_cut_and_say_what_is_left(tmp_path):
    task = Task(name="action", kind="single", classes=tuple(f"class{i}" for i in range(30)))
    clips = [plain_clip(f"c{i}", 0, label=i % 25) for i in range(30)]
    write_dataset(tmp_path, {"train": clips}, spec=RAW, tasks=(task,))
    text = to_text(take_inventory(str(tmp_path)))
    assert "class19 " in text
    assert "class20 " not in text
    assert "and 10 more, with 0 to 1 clips of train each" in text
    assert "classes without a clip: 5 in train" in text
    assert "fewer than two splits have clips" in text


def test_the_last_line_says_what_is_wrong(data):
    assert to_text(take_inventory(str(data))).splitlines()[-1] == (
        "in short: no clip in val: methods cannot be chosen; 1 of 3 classes of action has no clip in train (c); "
        "1 of 3 classes of action has no clip in test (a); 1 clip of train without a label of action; "
        "1 group has clips both in train and in test"
    )


def test_clips_that_are_lost_are_a_finding(tmp_path):
    write_with_losses(tmp_path)
    assert findings(take_inventory(str(tmp_path)))[0] == "3 of 9 clips are lost: 2 failed, 1 skipped"


def test_splits_that_lie_apart_by_more_than_chance_are_a_finding(tmp_path):
    splits = {
        name: [plain_clip(f"{name}{i}", level + i, label=i % 2) for i in range(12)]
        for name, level in (("train", 0), ("val", 0), ("test", 100))
    }
    write_dataset(tmp_path, splits, spec=RAW, tasks=(Task(name="action", kind="single", classes=("a", "b")),))
    rows = "differ by more than chance in brightness (of 6 comparisons, 0.3 are expected to by chance)"
    assert findings(take_inventory(str(tmp_path))) == (f"train and test {rows}", f"val and test {rows}")


def test_where_nothing_is_wrong_that_is_said(tmp_path):
    splits = {name: [plain_clip(f"{name}{i}", i, label=i % 2) for i in range(4)] for name in ("train", "val", "test")}
    write_dataset(tmp_path, splits, spec=RAW, tasks=(Task(name="action", kind="single", classes=("a", "b")),))
    assert to_text(take_inventory(str(tmp_path))).splitlines()[-1] == f"in short: {NOTHING}{BETWEEN}"


def test_a_data_set_of_training_clips_alone_says_what_it_cannot_do(tmp_path):
    clips = {"train": [plain_clip(f"c{i}", i, label=i % 2) for i in range(4)]}
    write_dataset(tmp_path, clips, spec=RAW, tasks=(Task(name="action", kind="single", classes=("a", "b")),))
    assert findings(take_inventory(str(tmp_path))) == (
        "no clip in val: methods cannot be chosen",
        "no clip in test: nothing can be told that did not choose",
    )


def test_a_file_that_is_missing_is_one_clear_line(tmp_path):
    write_dataset(tmp_path, {"train": [plain_clip("a", 0)]}, spec=RAW)
    (tmp_path / "train" / "00000" / "flow.arrow").unlink()
    with pytest.raises(ValueError, match=r"flow\.arrow is missing; rerun `gblend preprocess`") as caught:
        take_inventory(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_finished_data_set_without_a_clip_is_said_to_be_empty(tmp_path):
    write_dataset(tmp_path, {}, spec=RAW)
    found = take_inventory(str(tmp_path))
    assert found.splits == ()
    assert "0 clips, 0 failed, 0 skipped" in to_text(found)
    assert json.dumps(found.to_json(), allow_nan=False)
