import pyarrow.parquet as pq
import pytest

from pipelines.annotations import from_csv, parse_csv
from pipelines.folder import from_folder, list_files
from pipelines.manifest import build, write_manifest
from pipelines.plan import read_manifest


def test_a_spreadsheet_export_reads_like_a_plain_file(tmp_path):
    plain = "path,start,end,label,split\na.mp4,1.5,3,dog,train\nb.mp4,,,cat,validation\n"
    (tmp_path / "plain.csv").write_text(plain)
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").encode())
    assert from_csv(str(tmp_path / "plain.csv")) == from_csv(str(tmp_path / "excel.csv"))


def test_columns_are_found_by_name_in_any_order():
    rows = parse_csv("extra, split ,label,path\n1,train,dog,a.mp4\n", what="x.csv")
    assert (rows[0].uri, rows[0].split, rows[0].labels) == ("a.mp4", "train", {"label": ("dog",)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,b\n", "x.csv has no column 'path'; its header is: file, label"),
        ("path,split\na,train\n", "no column 'label' or 'label.TASK'"),
        ("path,split,label\na,dev,x\n", "line 2: split 'dev' is unknown"),
        ("path,split,label,start\na,train,x,1:30\n", "line 2: start must be seconds, got '1:30'"),
        ("path,split,label\n", "has no rows"),
    ],
)
def test_a_wrong_annotation_file_is_an_error_that_names_the_place(text, message):
    with pytest.raises(ValueError, match=message):
        parse_csv(text, what="x.csv")


def test_integer_classes_sort_as_numbers_and_names_as_text():
    rows = parse_csv("path,split,label\na,train,10\nb,train,9\nc,train,2\n", what="x")
    table, _ = build(rows, files=["a", "b", "c"])
    assert table.schema.metadata[b"gblend.tasks"].count(b'["2", "9", "10"]') == 1
    assert table["label.label"].to_pylist() == [2, 1, 0]


def test_several_labels_in_a_cell_make_a_multi_label_task():
    rows = parse_csv("path,split,label.event\na,train,dog|cat\nb,train,dog\nc,test,\n", what="x")
    table, report = build(rows, files=["a", "b", "c"])
    assert table["label.event"].to_pylist() == [[1, 0], [1], None]
    assert report.histogram["event"]["train"] == {"cat": 1, "dog": 2}


def test_several_heads_have_a_column_each():
    rows = parse_csv("path,split,label.verb,label.noun,group\na,train,cut,onion,P01\n", what="x")
    table, _ = build(rows, files=["a"])
    assert table.column_names[-2:] == ["label.verb", "label.noun"]
    assert table["group"].to_pylist() == ["P01"]


def test_missing_and_repeated_clips_are_reported_and_left_out():
    text = "path,split,label\na,train,x\na,train,x\ngone,train,x\n"
    table, report = build(parse_csv(text, what="x"), files=["a"])
    assert table.num_rows == 1
    assert (report.annotated, report.found, report.missing, report.duplicates) == (3, 1, ("gone",), ("a",))
    assert report.lines()[0] == "annotated 3, found 1, missing files 1, duplicates 1"


def test_no_file_at_all_is_an_error():
    with pytest.raises(ValueError, match="none of the 1 annotated files exists"):
        build(parse_csv("path,split,label\na,train,x\n", what="x"), files=[])


def test_a_tree_without_splits_is_split_within_every_class_the_same_way_each_time():
    paths = [f"{c}/{i:02d}.mp4" for c in ("cat", "dog") for i in range(20)] + ["dog/notes.txt"]
    rows = from_folder(paths, seed=3)
    assert rows == from_folder(reversed(paths), seed=3)
    assert rows != from_folder(paths, seed=4)
    for name in ("cat", "dog"):
        splits = [r.split for r in rows if r.labels["label"] == (name,)]
        assert (splits.count("train"), splits.count("val"), splits.count("test")) == (16, 2, 2)


def test_a_tree_of_splits_keeps_them():
    rows = from_folder(["train/dog/a.mp4", "val/dog/b.mp4", "test/cat/deep/c.mp4"])
    assert [(r.split, r.labels["label"]) for r in rows] == [("test", ("cat",)), ("train", ("dog",)), ("val", ("dog",))]


def test_a_written_manifest_passes_the_check_of_preprocess(tmp_path):
    (tmp_path / "v" / "dog").mkdir(parents=True)
    (tmp_path / "v" / "dog" / "-a b.mp4").write_bytes(b"")
    table, _ = build(from_folder(list_files(str(tmp_path / "v"))), files=list_files(str(tmp_path / "v")))
    out = tmp_path / "made" / "clips.parquet"
    write_manifest(table, str(out))
    manifest = read_manifest(str(out))
    assert manifest.table.to_pylist()[0]["clip_id"] == "dog/-a_b.mp4"
    assert pq.read_table(out)["group"].to_pylist() == ["dog/-a b.mp4"]
    assert [p.name for p in out.parent.iterdir()] == ["clips.parquet"]
