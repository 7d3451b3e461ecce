"""Shards read back to the value, and one clear line for every way in which a data set can be wrong."""

import gc
import os
import pickle

import numpy as np
import pyarrow as pa
import pytest

from gblend.clips import ClipReader, StoredClip, read_dataset_info, read_index, resolve_modalities
from schemas import FeatureSpec, FlowSpec, RgbSpec, Task
from schemas.features import FORMAT_VERSION
from tests.gblend.shards import TASK, Clip, encode_flow, encode_rgb, gradient_clip, write_dataset

EVERYTHING = ("rgb", "flow", "logmel")


def three_clips(tmp_path, **changes) -> str:
    clips = [gradient_clip(f"c{i}", seed=i, label=i, group=f"g{i // 2}") for i in range(3)]
    return write_dataset(tmp_path / "data", {"train": clips, "test": [gradient_clip("t")]}, **changes)


def open_reader(data: str, modalities=EVERYTHING) -> ClipReader:
    return ClipReader(data, read_dataset_info(data), modalities)


def index_of(data: str, split: str = "train", modalities=EVERYTHING):
    return read_index(data, read_dataset_info(data), split, modalities)


@pytest.mark.parametrize("name", ["height", "width", "audio_start_s", "own", "has"])
def test_a_column_called_like_something_else_of_a_clip_is_present_only_where_it_is(name):
    values = np.ones(3, dtype=np.float32)
    assert not StoredClip(rgb=[b""], height=4, width=4).has(name)
    assert StoredClip(own={name: values}).has(name)


def test_the_index_lists_every_clip_of_the_split_in_stored_order(tmp_path):
    index = index_of(three_clips(tmp_path, per_shard=2))
    assert index.clip_ids == ("c0", "c1", "c2")
    assert index.groups == ("g0", "g0", "g1")
    assert index.labels[""].to_pylist() == [0, 1, 2]
    assert index.shards == ("train/00000", "train/00000", "train/00001")
    assert index.rows.tolist() == [0, 1, 0]


def test_presence_is_what_the_clips_file_says(tmp_path):
    clips = [gradient_clip("whole"), gradient_clip("mute", logmel=None), gradient_clip("blind", frames=None, flow=None)]
    index = index_of(write_dataset(tmp_path / "data", {"train": clips}))
    assert {name: mask.tolist() for name, mask in index.present.items()} == {
        "rgb": [True, True, False],
        "flow": [True, True, False],
        "logmel": [True, False, True],
    }


def test_a_part_of_an_index_keeps_what_belongs_together(tmp_path):
    index = index_of(three_clips(tmp_path, per_shard=2))
    by_mask, by_position = index.take(np.array([False, True, True])), index.take(np.array([2, 1]))
    assert (by_mask.clip_ids, by_mask.rows.tolist(), by_mask.labels[""].to_pylist()) == (("c1", "c2"), [1, 0], [1, 2])
    assert (by_position.clip_ids, by_position.shards) == (("c2", "c1"), ("train/00001", "train/00000"))


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_stored_bytes_come_back_as_they_were_written(tmp_path, codec):
    spec = FeatureSpec(rgb=RgbSpec(codec=codec), flow=FlowSpec(codec=codec))
    data = three_clips(tmp_path, spec=spec)
    got, wanted = open_reader(data).read("train/00000", 1), gradient_clip("c1", seed=1)
    assert [bytes(image) for image in got.rgb] == [encode_rgb(image, codec) for image in wanted.frames]
    assert [bytes(image) for image in got.flow] == [encode_flow(image, codec) for image in wanted.flow]
    np.testing.assert_array_equal(got.logmel, wanted.logmel)
    assert (got.height, got.width) == (20, 24)


def test_only_the_modalities_of_the_reader_are_opened(tmp_path):
    data = three_clips(tmp_path)
    for name in ("rgb", "flow"):
        (tmp_path / "data" / "train" / "00000" / f"{name}.arrow").unlink()
    clip = open_reader(data, ("logmel",)).read("train/00000", 0)
    assert clip.rgb is None
    assert clip.logmel.shape == (30, 40)


def test_a_modality_the_clip_lacks_is_none(tmp_path):
    clips = [gradient_clip("mute", logmel=None), gradient_clip("blind", frames=None, flow=None)]
    reader = open_reader(write_dataset(tmp_path / "data", {"train": clips}))
    mute, blind = reader.read("train/00000", 0), reader.read("train/00000", 1)
    assert mute.logmel is None
    assert mute.rgb is not None
    assert (blind.rgb, blind.flow, blind.height) == (None, None, 0)


def test_a_log_mel_without_frames_is_empty_not_an_error(tmp_path):
    clip = gradient_clip("short", logmel=np.zeros((0, 40), dtype=np.float16))
    reader = open_reader(write_dataset(tmp_path / "data", {"train": [clip]}))
    assert reader.read("train/00000", 0).logmel.shape == (0, 40)


def test_clips_outlive_their_reader_and_the_files(tmp_path):
    data = three_clips(tmp_path)
    reader = open_reader(data)
    clip = reader.read("train/00000", 2)
    for path in (tmp_path / "data" / "train" / "00000").iterdir():
        path.unlink()
    del reader
    gc.collect()
    wanted = gradient_clip("c2", seed=2)
    assert bytes(clip.rgb[-1]) == encode_rgb(wanted.frames[-1], "jpeg")
    np.testing.assert_array_equal(clip.logmel, wanted.logmel)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors through /proc")
def test_open_shards_hold_no_file_descriptor(tmp_path):
    data = write_dataset(tmp_path / "data", {"train": [gradient_clip(f"c{i}") for i in range(20)]}, per_shard=1)
    reader = open_reader(data)
    before = len(os.listdir("/proc/self/fd"))
    clips = [reader.read(f"train/{i:05d}", 0) for i in range(20)]
    assert len(clips) == 20
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_reader_travels_to_another_process_without_its_files(tmp_path):
    reader = open_reader(three_clips(tmp_path))
    reader.read("train/00000", 0)
    copied = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(copied.read("train/00000", 1).logmel, reader.read("train/00000", 1).logmel)


def test_a_remote_data_set_is_read_like_a_local_one(tmp_path):
    import fsspec

    local = three_clips(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.put(local, "/clips-test", recursive=True)
    reader = open_reader("memory://clips-test")
    np.testing.assert_array_equal(reader.read("train/00000", 2).logmel, gradient_clip("c2", seed=2).logmel)
    memory.rm("/clips-test", recursive=True)


def test_a_directory_without_dataset_json_is_not_a_data_set(tmp_path):
    with pytest.raises(ValueError, match=r"dataset.json does not exist: .* is not a finished data set; rerun"):
        read_dataset_info(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", " is not JSON "),
        ("", " is not JSON "),
        ("[]", " must hold a JSON object; rerun `gblend preprocess`"),
        (f'{{"format_version": {FORMAT_VERSION}}}', ": tasks must be a list of at least one task, got None"),
    ],
)
def test_a_dataset_json_that_makes_no_sense_is_named(tmp_path, text, problem):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=r"/dataset\.json" + problem):
        read_dataset_info(str(tmp_path))


def test_another_format_version_is_named(tmp_path):
    (tmp_path / "dataset.json").write_text('{"format_version": 99}')
    with pytest.raises(ValueError, match=f"has format_version 99, this version reads {FORMAT_VERSION}"):
        read_dataset_info(str(tmp_path))


def test_an_empty_split_names_the_splits_that_have_clips(tmp_path):
    with pytest.raises(ValueError, match="no clip in split 'val'; splits with clips: test, train"):
        index_of(three_clips(tmp_path), "val")


def test_a_missing_clips_file_is_named(tmp_path):
    data = three_clips(tmp_path)
    (tmp_path / "data" / "train" / "00000" / "clips.arrow").unlink()
    with pytest.raises(ValueError, match=r"train/00000/clips.arrow is missing; rerun `gblend preprocess`"):
        index_of(data)


def test_a_missing_feature_file_is_named(tmp_path):
    data = three_clips(tmp_path)
    (tmp_path / "data" / "train" / "00000" / "flow.arrow").unlink()
    with pytest.raises(ValueError, match=r"train/00000/flow.arrow is missing"):
        open_reader(data).read("train/00000", 0)


@pytest.mark.parametrize("keep", [0, 5, 400, -10])
def test_a_truncated_file_is_named(tmp_path, keep):
    data = three_clips(tmp_path)
    path = tmp_path / "data" / "train" / "00000" / "rgb.arrow"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"rgb.arrow is not a whole Arrow file .*; rerun"):
        open_reader(data).read("train/00000", 0)


def test_a_file_of_another_schema_says_which_column_differs(tmp_path):
    data = three_clips(tmp_path)
    table = pa.table({"clip_id": ["c0"], "n_frames": [1.5]})
    with pa.ipc.new_file(str(tmp_path / "data" / "train" / "00000" / "logmel.arrow"), table.schema) as file:
        file.write_table(table)
    with pytest.raises(ValueError, match=r"logmel.arrow .*column 'n_frames' is double, must be int32; .*'values'"):
        open_reader(data).read("train/00000", 0)


def test_a_feature_file_with_fewer_clips_than_its_shard_is_an_error(tmp_path):
    data = three_clips(tmp_path)
    other = write_dataset(tmp_path / "other", {"train": [gradient_clip("c0")]})
    source, target = (f"{root}/train/00000/rgb.arrow" for root in (other, data))
    os.replace(source, target)
    with pytest.raises(ValueError, match=r"rgb.arrow holds 1 clips, dataset.json says 3"):
        open_reader(data).read("train/00000", 0)


def test_an_unlabelled_clip_is_listed_without_a_label(tmp_path):
    clips = [gradient_clip("a", label=2), gradient_clip("b", label=None)]
    index = index_of(write_dataset(tmp_path / "data", {"train": clips}))
    assert index.labels[""].to_pylist() == [2, None]
    assert index.labelled().tolist() == [True, False]


EVENT = Task(name="event", kind="multi", classes=("x", "y", "z"))


def test_every_task_has_its_labels_under_its_key(tmp_path):
    clips = [
        gradient_clip("a", labels={"action": 2, "event": [0, 2]}),
        gradient_clip("b", labels={"action": None, "event": []}),
        gradient_clip("c", labels={"action": None, "event": None}),
    ]
    data = write_dataset(tmp_path / "data", {"train": clips}, tasks=(TASK, EVENT), per_shard=2)
    index = index_of(data)
    assert {key: column.to_pylist() for key, column in index.labels.items()} == {
        "action": [2, None, None],
        "event": [[0, 2], [], None],
    }
    assert index.labelled().tolist() == [True, True, False]
    assert index.take(np.array([2, 0])).labels["event"].to_pylist() == [None, [0, 2]]


def test_a_label_of_a_list_that_is_no_class_is_an_error(tmp_path):
    clips = [Clip(name="a", labels={"event": [0, 3]})]
    with pytest.raises(ValueError, match=r"label\.event is 3, but there are 3 classes"):
        index_of(write_dataset(tmp_path / "data", {"train": clips}, tasks=(EVENT,)))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_an_error(tmp_path, label):
    data = write_dataset(tmp_path / "data", {"train": [Clip(name="a", label=label)]})
    with pytest.raises(ValueError, match=f"label.action is {label}, but there are 3 classes"):
        index_of(data)


def test_a_modality_that_is_not_stored_names_those_that_are(tmp_path):
    data = three_clips(tmp_path, spec=FeatureSpec(modalities=("rgb", "logmel")))
    with pytest.raises(ValueError, match="no modality 'flow'; it holds rgb, logmel; add it with"):
        resolve_modalities(read_dataset_info(data), ("rgb", "flow"))


def test_modalities_come_in_the_order_of_heads_whatever_was_typed(tmp_path):
    info = read_dataset_info(three_clips(tmp_path))
    assert resolve_modalities(info, ("logmel", "rgb")) == ("rgb", "logmel")
    assert resolve_modalities(info, ()) == EVERYTHING
