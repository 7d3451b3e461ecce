import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.annotations import from_csv, from_folder, list_files, parse_csv
from pipelines.manifest import read_manifest, write_manifest
from pipelines.preflight import build


def test_a_spreadsheet_export_reads_like_a_plain_file(tmp_path):
    plain = "path,start,end,label,split\na.mp4,1.5,3,dog,train\nb.mp4,,,cat,validation\n"
    (tmp_path / "plain.csv").write_text(plain)
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").encode())
    assert from_csv(str(tmp_path / "plain.csv")).table == from_csv(str(tmp_path / "excel.csv")).table


def test_columns_are_found_by_name_in_any_order():
    rows = parse_csv("extra, split ,label,path\n1,train,dog,a.mp4\n", what="x.csv")
    assert rows.table.select(["name", "split", "label.label"]).to_pylist() == [
        {"name": "a.mp4", "split": "train", "label.label": 0}
    ]
    assert rows.tasks[0].classes == ("dog",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,b\n", "x.csv has no column 'path'; its header is: file, label"),
        ("path,split\na,train\n", "no column 'label' or 'label.TASK'"),
        ("path,split,label\na,dev,x\n", "line 2: split 'dev' is unknown"),
        ("path,split,label,start\na,train,x,1:30\n", "line 2: start must be seconds, got '1:30'"),
        ("path,split,label\n", "has no rows"),
        ("path,split,label\na.mp4,train,Speech, male\n", "x.csv, line 2: 4 cells where 3 belong; put .* quotes"),
        ("path,split,label\na.mp4,train\n", "x.csv, line 2: 2 cells where 3 belong"),
        ('path,split,label\na,train,"x\nb,train,x\n', "x.csv, line 3 is not CSV"),
        ("path,split,label,start,start_s\na,train,x,1,2\n", "two columns for 'start'"),
        ("path,split,label,time_start\na,train,x,1\n", "a column 'time_start'; call it 'start'"),
        ("path,spilt,label\na,train,x\n", "a column 'spilt'; call it 'split'"),
        ("path,split,label,Groups\na,train,x,1\n", "a column 'Groups'; call it 'group'"),
        ("path,split,Label.verb\na,train,x\n", "a column 'Label.verb'; call it 'label.verb'"),
        ("path,split,label,start\n\na,train,x,inf\n", "line 3: start must be seconds, got 'inf'; allowed: .* from 0"),
        ("path,split,label,end\na,train,x,nan\n", "line 2: end must be seconds, got 'nan'"),
        ("path,split,label,start\na,train,x,-1\n", "line 2: start must be seconds, got '-1'"),
        ("path,split,label,start,end\na,train,x,3,3\n", "line 2: end must be after start, which is 3.0 s, got '3'"),
        ("path,split,label,end\na,train,x,0\n", "line 2: end must be after start, which is 0.0 s, got '0'"),
    ],
)
def test_a_wrong_annotation_file_is_an_error_that_names_the_place(text, message):
    with pytest.raises(ValueError, match=message):
        parse_csv(text, what="x.csv")


def test_the_names_of_a_manifest_are_read_like_those_of_a_csv_file():
    ours = parse_csv("path,split,label,start,end,id\na,train,x,1,2,n\n", what="x")
    assert parse_csv("uri,split,label,start_s,end_s,clip_id\na,train,x,1,2,n\n", what="x") == ours


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
    assert report.lines()[0] == "annotated 3, found 1, missing files 1, duplicates 1, ignored media files 0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,split,label\na,train,x\na,train,y\n",
            r"clip id 'a' but differ in label.label: 'x' and 'y'.*separated by '\|'",
        ),
        ("path,split,label\na,train,x\na,test,x\n", "clip id 'a' but differ in split: 'train' and 'test'"),
        ("path,split,label,id\na,train,x,n\nb,train,x,n\n", "clip id 'n' but differ in uri: 'a' and 'b'"),
    ],
)
def test_two_different_rows_with_one_id_are_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        build(parse_csv(text, what="x"), files=["a", "b"])


def test_files_and_spans_that_differ_a_little_are_clips_of_their_own():
    paths = ["a b.mp4", "a_b.mp4", "a%20b.mp4", "a.mp4", "a.mp4@0-1000"]
    text = "path,split,label,end\n" + "".join(f"{path},train,x,\n" for path in paths)
    text += "a.mp4,train,x,1\na.mp4,train,x,0.0001\na.mp4,train,x,0.0002\n"
    table, report = build(parse_csv(text, what="x"), files=paths)
    assert (table.num_rows, report.duplicates) == (8, ())


def test_no_file_at_all_is_an_error():
    with pytest.raises(ValueError, match="none of the 1 annotated files exists"):
        build(parse_csv("path,split,label\na,train,x\n", what="x"), files=[])


def test_a_tree_without_splits_is_split_within_every_class_the_same_way_each_time():
    paths = [f"{c}/{i:02d}.mp4" for c in ("cat", "dog") for i in range(20)] + ["dog/notes.txt"]
    rows = from_folder(paths, seed=3)
    assert rows == from_folder(reversed(paths), seed=3)
    assert rows != from_folder(paths, seed=4)
    for name in ("cat", "dog"):
        of_class = pc.equal(rows.table["label.label"], rows.tasks[0].classes.index(name))
        splits = rows.table["split"].filter(of_class).to_pylist()
        assert (splits.count("train"), splits.count("val"), splits.count("test")) == (16, 2, 2)


def test_a_tree_of_splits_keeps_them():
    rows = from_folder(["train/dog/a.mp4", "val/dog/b.mp4", "test/cat/deep/c.mp4"])
    assert rows.table["split"].to_pylist() == ["test", "train", "val"]
    assert [rows.tasks[0].classes[code] for code in rows.table["label.label"].to_pylist()] == ["cat", "dog", "dog"]


def test_a_tree_of_which_some_top_folders_name_splits_is_an_error():
    with pytest.raises(ValueError, match=r"\(train, val\) and others do not \(replacement\); name all of them"):
        from_folder(["train/dog/a.mp4", "val/dog/b.mp4", "replacement/x.mp4"])


@pytest.mark.parametrize("tree", [["train/dog/a.mp4", "train/b.mp4", "c.MP4"], ["dog/a.mp4", "c.MP4"]])
def test_files_too_high_in_the_tree_are_counted_and_listed(tree):
    _, report = build(from_folder(tree), files=[*tree, "notes.txt"])
    ignored = sorted(set(tree) - {"train/dog/a.mp4", "dog/a.mp4"})
    assert list(report.ignored) == ignored
    assert report.lines()[0].endswith(f"ignored media files {len(ignored)}")
    assert "ignored: c.MP4" in report.lines()


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((1.0, 0.0), "share for val must be at least 0 and below 1, got 1.0"),
        ((0.1, -0.1), "share for test must be at least 0 and below 1, got -0.1"),
        ((float("nan"), 0.1), "share for val .* got nan"),
        ((0.5, 0.5), r"must leave some for train: 0\.5 \+ 0\.5"),
    ],
)
def test_shares_that_are_none_are_an_error(shares, message):
    with pytest.raises(ValueError, match=message):
        from_folder(["dog/a.mp4"], shares=shares)


def test_a_directory_is_not_written_into(tmp_path):
    table, _ = build(from_folder(["dog/a.mp4"]), files=["dog/a.mp4"])
    with pytest.raises(OSError, match=r"is a directory; name a file, such as .*clips.parquet"):
        write_manifest(table, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_written_manifest_passes_the_check_of_preprocess(tmp_path):
    (tmp_path / "v" / "dog").mkdir(parents=True)
    (tmp_path / "v" / "dog" / "-a b.mp4").write_bytes(b"")
    table, _ = build(from_folder(list_files(str(tmp_path / "v"))), files=list_files(str(tmp_path / "v")))
    out = tmp_path / "made" / "clips.parquet"
    write_manifest(table, str(out))
    manifest = read_manifest(str(out))
    assert manifest.table.to_pylist()[0]["clip_id"] == "dog/-a%20b.mp4"
    assert pq.read_table(out)["group"].to_pylist() == ["dog/-a b.mp4"]
    assert [p.name for p in out.parent.iterdir()] == ["clips.parquet"]
