import json

import pytest

from schemas.features import FeatureSpec
from schemas.layout import DatasetInfo, ShardEntry
from schemas.task import TASKS_KEY, Task, decode_tasks

INFO = DatasetInfo(
    tasks=(Task(name="a", kind="single", classes=("x", "y")),),
    features=FeatureSpec(),
    shards=(ShardEntry(split="train", name="train/00000", clips=1),),
    counts={"train": {"ok": 1}},
    present={"train": {"rgb": 1}},
    versions={},
)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b"[{", r"^m\.parquet: schema metadata 'gblend\.tasks' is not JSON"),
        (b"{}", r"^m\.parquet: tasks must be a list of at least one task, got {}"),
        (b"[]", r"^m\.parquet: tasks must be a list of at least one task"),
        (b"[3]", r"^m\.parquet: task 0 must have name, kind and classes .*, got 3"),
        (b'[{"name": "a", "kind": "single"}]', r"^m\.parquet: task 0 must have name, kind and classes"),
        (b'[{"name": "a", "kind": "single", "classes": "dog"}]', r"^m\.parquet: task 0 must have .* list of names"),
        (b'[{"name": "a", "kind": "single", "classes": []}]', r"^m\.parquet: task 'a' has no classes"),
        (b'[{"name": "a/b", "kind": "single", "classes": ["x"]}]', r"^m\.parquet: task 'a/b' has a / in its .*rename"),
    ],
)
def test_wrong_task_metadata_is_an_error_that_names_the_file(stored, message):
    with pytest.raises(ValueError, match=message):
        decode_tasks({TASKS_KEY: stored}, what="m.parquet")


def test_documents_are_read_as_they_were_written():
    assert DatasetInfo.loads(INFO.dumps(), what="x") == INFO


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_document_that_is_no_json_object_is_an_error_that_names_the_file(text):
    with pytest.raises(ValueError, match=r"^d/dataset\.json .*rerun `gblend preprocess`"):
        DatasetInfo.loads(text, what="d/dataset.json")


@pytest.mark.parametrize("key", ["tasks", "features", "shards", "counts", "present", "versions"])
def test_a_document_without_a_part_is_an_error_that_names_file_and_part(key):
    values = {name: value for name, value in json.loads(INFO.dumps()).items() if name != key}
    with pytest.raises(ValueError, match=rf"^dataset\.json.*{key}"):
        DatasetInfo.loads(json.dumps(values), what="dataset.json")


@pytest.mark.parametrize("features", [{}, 3, {"modalities": ["rgb"], "rgb": {"fps": 0.0, "fixed_size_px": None}}])
def test_a_wrong_feature_spec_is_an_error_that_names_the_file(features):
    text = json.dumps(json.loads(INFO.dumps()) | {"features": features})
    with pytest.raises(ValueError, match=r"^dataset\.json "):
        DatasetInfo.loads(text, what="dataset.json")
