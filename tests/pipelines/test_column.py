"""A modality of the user's own in a finished dataset: every value arrives, nothing else changes, and what is wrong is
said before anything is written."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.annotations import parse_csv
from pipelines.column import ColumnConfig, add_column
from pipelines.conclude import Tally, conclude
from pipelines.manifest import check_manifest
from pipelines.plan import plan_shards
from pipelines.preflight import build
from pipelines.settings import PreprocessConfig
from pipelines.shards import ShardJob, write_shard
from pipelines.source import DecodeLimits
from pipelines.state import find_done
from pipelines.store import Store
from schemas import DatasetInfo, FeatureSpec, LogmelSpec, RgbSpec, require_schema, tensor_schema
from tests.media import ordinary_clip

FEATURES = FeatureSpec(modalities=("rgb",), rgb=RgbSpec(fps=10.0, fixed_size_px=(48, 64)))
SPLITS = {"a": "train", "b": "train", "c": "train", "d": "val", "e": "test", "corrupt": "train"}
STORED = ("a", "b", "c", "d", "e")


def preprocess(root, out, *, features=FEATURES, again=()):
    """The work of the job without Ray; the shards in ``again`` are made anew."""
    rows = "path,split,label,id\n" + "".join(f"{n}.mp4,{split},x,{n}\n" for n, split in SPLITS.items())
    table, _ = build(parse_csv(rows, what="x"), files=[f"{name}.mp4" for name in SPLITS])
    manifest = check_manifest(table, what="m")
    plans = plan_shards(manifest, clips_per_shard=2)
    job = ShardJob(out=str(out), videos=str(root), features=features, limits=DecodeLimits())
    tally, store = Tally(), Store(str(out))
    for plan in plans:
        if plan.name in again:
            store.remove(f"{plan.name}/done.json")
        ledger = write_shard(plan.name, table.take(plan.positions), job)
        tally.add(plan.name, ledger, find_done(store, plan.name))
    config = PreprocessConfig(manifest="m", videos=str(root), out=str(out), features=features, max_error_rate=0.5)
    return conclude(config, features, manifest, plans, tally, store, kept=0, wall_s=0.0)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(STORED):
        ordinary_clip(root / f"{name}.mp4", seconds=0.4, hz=300 + 100 * number)
    (root / "corrupt.mp4").write_bytes(b"\0" * 500)
    return root


@pytest.fixture(scope="module")
def finished(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "data"
    preprocess(videos, out)
    return out


@pytest.fixture
def data(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "data")


def tensors(clip_ids=STORED, shape=(4, 3), seed=0):
    rng = np.random.default_rng(seed)
    return {clip_id: rng.normal(size=shape).astype(np.float32) for clip_id in clip_ids}


def write_values(path, cells, *, kind=None, column="pose"):
    lists = [None if cell is None else np.asarray(cell).tolist() for cell in cells.values()]
    pq.write_table(pa.table({"clip_id": list(cells), column: pa.array(lists, type=kind)}), path)
    return str(path)


def add(data, values, *, name="pose", on_change="refuse", say=lambda _: None):
    config = ColumnConfig(data=str(data), name=name, values=values, on_change=on_change)
    return add_column(config, say=say)


def info_of(data):
    return DatasetInfo.loads((data / "dataset.json").read_text(), what="dataset.json")


def stored(data, name="pose"):
    """What a reader with nothing but pyarrow finds."""
    found = {}
    for place in sorted(data.glob("*/0*")):
        with pa.memory_map(str(place / "clips.arrow")) as clips, pa.memory_map(str(place / f"{name}.arrow")) as file:
            reader = pa.ipc.open_file(file)
            rows = [reader.get_batch(i).to_pylist() for i in range(reader.num_record_batches)]
            assert [row["clip_id"] for (row,) in rows] == pa.ipc.open_file(clips).read_all()["clip_id"].to_pylist()
            shape = json.loads(reader.schema.metadata[b"gblend.feature"])["column"]["shape"]
            for (row,) in rows:
                assert row[f"has_{name}"] == (row["values"] is not None)
                found[row["clip_id"]] = None if row["values"] is None else np.reshape(row["values"], shape)
    return found


def snapshot(data):
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def test_every_value_arrives_whatever_the_order_of_the_rows(data, tmp_path):
    given = tensors(("e", "c", "a", "d", "b"))
    made = add(data, write_values(tmp_path / "v.parquet", given))
    assert (made.clips, made.present, made.elsewhere, made.kept_shards) == (5, 5, 0, 0)
    found = stored(data)
    assert set(found) == set(STORED)
    for clip_id in STORED:
        np.testing.assert_array_equal(found[clip_id], given[clip_id])


def test_nothing_else_in_the_dataset_changes(data, tmp_path):
    before = snapshot(data)
    add(data, write_values(tmp_path / "v.parquet", tensors()))
    after = snapshot(data)
    changed = {name for name in after if after[name] != before.get(name)}
    assert {name.split("/")[-1] for name in changed} == {"pose.arrow", "done.json", "dataset.json"}
    assert set(before) <= set(after)


def test_the_documents_say_what_was_added(data, tmp_path):
    given = tensors(("a", "c", "d"))
    add(data, write_values(tmp_path / "v.parquet", given))
    info, done = info_of(data), find_done(Store(str(data)), "train/00000")
    assert info.modalities == ("rgb", "pose")
    assert {split: counts["pose"] for split, counts in info.present.items()} == {"train": 2, "val": 1, "test": 0}
    spec = info.columns["pose"]
    assert spec.shape == (4, 3)
    training = np.concatenate([given["a"], given["c"]]).astype(np.float64)
    np.testing.assert_allclose(spec.mean, training.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(spec.sd, training.std(axis=0), rtol=1e-4)
    assert done.present["pose"] == 1
    assert done.fingerprints["pose"] == spec.fingerprint()
    assert done.sizes["pose.arrow"] == (data / "train/00000/pose.arrow").stat().st_size


@pytest.mark.parametrize("offset", [0.0, 1234567.0, -7.654321e9, 3e-20])
def test_the_statistics_standardise_a_channel_whatever_its_offset(data, tmp_path, offset):
    """As a sensor's clock or position has it; stored in single precision, which numpy reads here in double."""
    spread = max(1.0, abs(offset) * 1e-5) if offset != 3e-20 else 1e-21
    given = {clip_id: (offset + spread * value).astype(np.float32) for clip_id, value in tensors().items()}
    spec = add(data, write_values(tmp_path / "v.parquet", given)).spec
    training = np.concatenate([given[name] for name in ("a", "b", "c")]).astype(np.float64)
    standard = (training - spec.mean) / spec.sd
    np.testing.assert_allclose(standard.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(standard.std(axis=0), 1.0, rtol=1e-9)


def test_a_clip_without_a_row_or_with_an_empty_cell_is_without_the_modality(data, tmp_path):
    given = {**tensors(("a", "d")), "b": None}
    add(data, write_values(tmp_path / "v.parquet", given))
    found = stored(data)
    assert [clip_id for clip_id in STORED if found[clip_id] is not None] == ["a", "d"]


def test_rows_of_clips_that_could_not_be_stored_are_counted_and_left_out(data, tmp_path):
    made = add(data, write_values(tmp_path / "v.parquet", tensors(("corrupt", *STORED))))
    assert (made.present, made.elsewhere) == (5, 1)
    assert "corrupt" not in stored(data)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (pa.list_(pa.float64()), (5,)),
        (pa.large_list(pa.float32()), (5,)),
        (pa.list_(pa.int8(), 5), (5,)),
        (pa.list_(pa.list_(pa.float32(), 3)), (2, 3)),
        (pa.list_(pa.list_(pa.list_(pa.float16()))), (2, 2, 3)),
        (pa.float32(), ()),
        (pa.int64(), ()),
    ],
)
def test_lists_of_all_kinds_and_numbers_are_taken(data, tmp_path, kind, shape):
    given = {clip_id: np.round(4 * value) for clip_id, value in tensors(shape=shape).items()}
    if pa.types.is_integer(kind) or (pa.types.is_fixed_size_list(kind) and pa.types.is_integer(kind.value_type)):
        given = {clip_id: value.astype(int) for clip_id, value in given.items()}
    if "halffloat" in str(kind):
        given = {clip_id: value.astype(np.float16) for clip_id, value in given.items()}
        cells = pa.array([value.tolist() for value in given.values()], pa.list_(pa.list_(pa.list_(pa.float32()))))
        pq.write_table(pa.table({"clip_id": list(given), "pose": cells.cast(kind)}), tmp_path / "v.parquet")
    else:
        write_values(tmp_path / "v.parquet", given, kind=kind)
    made = add(data, str(tmp_path / "v.parquet"))
    assert made.spec.shape == (shape or (1,))
    for clip_id, found in stored(data).items():
        np.testing.assert_array_equal(found, np.reshape(given[clip_id], shape or (1,)))


def test_arrows_own_tensors_are_taken(data, tmp_path):
    given = tensors(shape=(2, 3))
    cells = pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(list(given.values())))
    pq.write_table(pa.table({"clip_id": list(given), "pose": cells}), tmp_path / "v.parquet")
    add(data, str(tmp_path / "v.parquet"))
    for clip_id, found in stored(data).items():
        np.testing.assert_array_equal(found, given[clip_id])


def test_batches_of_rows_do_not_matter(finished, tmp_path, monkeypatch):
    values = write_values(tmp_path / "v.parquet", {**tensors(("a", "c", "d", "e")), "b": None})
    places = [shutil.copytree(finished, tmp_path / name) for name in ("whole", "pieces")]
    add(places[0], values)
    monkeypatch.setattr("pipelines.tensors.BATCH_ROWS", 1)
    monkeypatch.setattr("pipelines.tensors.CHUNK_BYTES", 1)
    add(places[1], values)
    assert snapshot(places[0]) == snapshot(places[1])


WRONG = [
    ({"a": [1.0, 2.0], "z": [1.0, 2.0]}, r"clip_id 'z', which the dataset does not know; leave it out, or take"),
    ({"a": [1.0, 2.0], "b": [1.0]}, r"tensor of clip 'b' has 1 entries along axis 0, that of clip 'a' has 2; all must"),
    ({"a": [[1.0, 2.0]], "b": [[1.0, 2.0]] * 2}, r"clip 'b' has 2 entries along axis 0, that of clip 'a' has 1"),
    ({"a": [[1.0], [2.0]], "b": [[1.0], [2.0, 3.0]]}, r"clip 'b' has 2 entries along axis 1, that of clip 'a' has 1"),
    ({"a": [1.0, 2.0], "b": [1.0, float("nan")]}, r"clip 'b' holds a number that is not finite in single precision"),
    ({"a": [1.0, 1e39]}, r"clip 'a' holds a number that is not finite in single precision; correct it, or leave"),
    ({"a": [1.0, 2.0], "b": [1.0, None]}, r"tensor of clip 'b' has an empty place; every number must be there"),
    ({"a": [[1.0], [2.0]], "b": [[1.0], None]}, r"tensor of clip 'b' has an empty place"),
    ({"a": [], "b": []}, r"tensor of clip 'a' is empty; leave the cell empty \(null\)"),
    ({"a": ["x"]}, r"holds tensors of string; allowed: integers and floating-point numbers"),
    ({"a": [True]}, r"holds tensors of bool; allowed"),
    ({"d": [1.0]}, r"has a tensor for none of the dataset's training clips; check its clip_id column"),
    ({"a": None}, r"holds tensors of null; allowed"),
]


@pytest.mark.parametrize(("cells", "message"), WRONG)
@pytest.mark.parametrize("rows", [1, 1024])
def test_what_is_wrong_with_the_file_is_said_and_nothing_is_written(data, tmp_path, monkeypatch, cells, message, rows):
    monkeypatch.setattr("pipelines.tensors.BATCH_ROWS", rows)
    before = snapshot(data)
    pq.write_table(pa.table({"clip_id": list(cells), "pose": list(cells.values())}), tmp_path / "v.parquet")
    if rows == 1:  # Then the first of them is in an earlier batch, whose whole shape is known.
        message = message.split(" has ")[0].split(" holds ")[0]
    with pytest.raises(ValueError, match=message):
        add(data, str(tmp_path / "v.parquet"))
    assert snapshot(data) == before


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"clip_id": ["a"], "x": [[1.0]], "y": [[1.0]]}, "must have a column 'pose', or one only beside 'clip_id'"),
        ({"id": ["a"], "pose": [[1.0]]}, r"must have a string column 'clip_id'; its columns: id \(string\), pose"),
        ({"clip_id": [1], "pose": [[1.0]]}, "must have a string column 'clip_id'"),
        ({"clip_id": ["a"]}, "must have a column 'pose'"),
        ({"clip_id": ["a", "a"], "pose": [[1.0], [2.0]]}, "has two rows for clip_id 'a'; give every clip one"),
        ({"clip_id": ["a", None], "pose": [[1.0], [2.0]]}, "has an empty clip_id; every row needs one"),
    ],
)
def test_a_file_of_other_columns_is_refused(data, tmp_path, table, message):
    pq.write_table(pa.table(table), tmp_path / "v.parquet")
    with pytest.raises(ValueError, match=message):
        add(data, str(tmp_path / "v.parquet"))


def test_files_that_are_not_there_or_not_parquet_are_one_line_each(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file of tensors at"):
        add(data, str(tmp_path / "none.parquet"))
    (tmp_path / "v.parquet").write_text("clip_id,pose\n")
    with pytest.raises(ValueError, match=r"v\.parquet is not a Parquet file"):
        add(data, str(tmp_path / "v.parquet"))
    with pytest.raises(ValueError, match=r"is not a finished dataset \(no dataset\.json\); run `gblend preprocess`"):
        add(tmp_path, write_values(tmp_path / "v.parquet", tensors()))


@pytest.mark.parametrize("name", ["rgb", "fused", "mean", "clips", "a b", "1st", "_x", "", "pose/x", "größe"])
def test_a_name_that_means_something_else_or_is_no_word_is_refused(name):
    with pytest.raises(ValueError, match="name must begin with a letter"):
        ColumnConfig(data="d", name=name, values="v")


@pytest.mark.parametrize("name", ["type", "half", "keys", "values", "float", "training", "forward"])
def test_a_name_that_torch_uses_itself_is_refused_before_anything_is_written(name):
    with pytest.raises(ValueError, match=f"name must not be '{name}', which torch has its own use for; choose another"):
        ColumnConfig(data="d", name=name, values="v")


def test_the_same_values_again_change_nothing(data, tmp_path):
    values = write_values(tmp_path / "v.parquet", tensors())
    add(data, values)
    before = snapshot(data)
    assert add(data, values).kept_shards == 4
    assert snapshot(data) == before


def test_other_values_are_refused_until_they_are_to_replace_the_old(data, tmp_path):
    add(data, write_values(tmp_path / "v.parquet", tensors()))
    before = snapshot(data)
    others = write_values(tmp_path / "w.parquet", tensors(seed=1, shape=(2,)))
    with pytest.raises(ValueError, match=r"has a column 'pose' with other values \(shape \(4, 3\), these \(2,\)\)"):
        add(data, others)
    assert snapshot(data) == before
    add(data, others, on_change="redo")
    np.testing.assert_array_equal(stored(data)["c"], tensors(seed=1, shape=(2,))["c"])


class StoppedError(Exception):
    pass


def test_a_job_that_was_stopped_leaves_the_dataset_as_it_was_and_is_finished_by_the_next(data, tmp_path):
    values = write_values(tmp_path / "v.parquet", tensors())
    document = (data / "dataset.json").read_bytes()

    def stop(line):
        if line.startswith("column: train/00001"):
            raise StoppedError

    with pytest.raises(StoppedError):
        add(data, values, say=stop)
    assert (data / "dataset.json").read_bytes() == document
    assert add(data, values).kept_shards == 2
    assert set(stored(data)) == set(STORED)


def test_while_a_column_is_replaced_no_reader_finds_it(data, tmp_path):
    add(data, write_values(tmp_path / "v.parquet", tensors()))
    found = []
    others = write_values(tmp_path / "w.parquet", tensors(seed=1))
    add(data, others, on_change="redo", say=lambda _: found.append(info_of(data).columns))
    assert found == [{}] * 4
    assert list(info_of(data).columns) == ["pose"]


def test_a_modality_added_by_preprocessing_keeps_the_column(videos, data, tmp_path):
    add(data, write_values(tmp_path / "v.parquet", tensors()))
    spec, before = info_of(data).columns["pose"], stored(data)
    more = FeatureSpec(modalities=("rgb", "logmel"), rgb=FEATURES.rgb, logmel=LogmelSpec())
    made = preprocess(videos, data, features=more)
    assert made.lost_columns == ()
    assert info_of(data).columns == {"pose": spec}
    assert info_of(data).present["val"] == {"rgb": 1, "logmel": 1, "pose": 1}
    np.testing.assert_array_equal(stored(data)["a"], before["a"])


def test_a_shard_that_is_made_again_is_without_the_column_and_the_job_says_so(videos, data, tmp_path):
    values = write_values(tmp_path / "v.parquet", tensors())
    add(data, values)
    made = preprocess(videos, data, again=("train/00001",))
    assert made.lost_columns == ("pose",)
    assert info_of(data).columns == {}
    assert add(data, values).kept_shards == 3
    assert list(info_of(data).columns) == ["pose"]


def test_the_file_has_the_schema_that_it_should(data, tmp_path):
    add(data, write_values(tmp_path / "v.parquet", tensors()))
    with pa.memory_map(str(data / "val/00000/pose.arrow")) as file:
        schema = pa.ipc.open_file(file).schema
    require_schema(schema, tensor_schema("pose", info_of(data).columns["pose"]), what="f", remedy="")
    assert schema.equals(tensor_schema("pose", info_of(data).columns["pose"]), check_metadata=True)
