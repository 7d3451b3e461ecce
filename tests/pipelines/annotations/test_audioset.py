import csv
import io

import pyarrow as pa
import pytest

from pipelines.annotations import audioset
from pipelines.preflight import build

CLASSES = {"/m/a": "Speech", "/t/dd1": "Male speech, man speaking", "/g/c": "Dog"}
TEXT = """# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=2, num_segs=2, num_unique_labels=3, num_positive_labels=3
# YTID, start_seconds, end_seconds, positive_labels
--4gqARaEJE, 0.000, 10.000, "/g/c,/m/a"
_BfvyPmVMo-, 20.500, 21.000, "/t/dd1"
"""
PLAIN = 'YTID,start_seconds,end_seconds,positive_labels\n--4gqARaEJE,0,10,"/g/c,/m/a"\n_BfvyPmVMo-,20.5,21,/t/dd1\n'


def parse(text=TEXT, name="eval_segments.csv", **options):
    return audioset.parse({name: text}, classes=CLASSES, **options)


def test_the_original_and_its_plain_copies_read_alike():
    drop = ["line"]
    assert parse().table.drop_columns(drop) == parse(PLAIN).table.drop_columns(drop)
    assert parse().table["label.event"].to_pylist() == [[2, 0], [1]]
    assert parse().table["split"].to_pylist() == ["test", "test"]
    assert parse().tasks[0].classes == tuple(CLASSES.values())


@pytest.mark.parametrize(
    ("files", "holds", "spans"),
    [
        (["Y--4gqARaEJE.wav", "Y_BfvyPmVMo-.wav"], "clips", [(None, None), (None, None)]),
        (["a/--4gqARaEJE.mp4", "b/_BfvyPmVMo-.mp4"], "sources", [(0.0, 10.0), (20.5, 21.0)]),
        (["--4gqARaEJE_0_10000.flac", "_BfvyPmVMo-_20500_21000.flac"], "clips", [(None, None), (None, None)]),
    ],
)
def test_file_names_are_recognised_and_spans_written_for_whole_sources_only(files, holds, spans):
    made = audioset.name_files(parse(), paths=pa.array(files), holds=holds)
    table, report = build(made, files=files)
    assert table["uri"].to_pylist() == files
    assert list(zip(table["start_s"].to_pylist(), table["end_s"].to_pylist(), strict=True)) == spans
    assert len(report.short) == 1


def test_a_template_may_name_an_ending():
    files = ["--4gqARaEJE.wav", "--4gqARaEJE.mp3"]
    made = audioset.name_files(parse(), paths=pa.array(files), template="{id}.mp3", holds="clips")
    assert build(made, files=files)[0]["uri"].to_pylist() == ["--4gqARaEJE.mp3"]


@pytest.mark.parametrize(
    ("template", "message"),
    [("{name}", "not understood"), ("a/{id}", "not understood"), ("x.wav", "one file for all clips")],
)
def test_a_template_that_is_none_is_an_error(template, message):
    with pytest.raises(ValueError, match=message):
        audioset.name_files(parse(), paths=pa.array(["a.wav"]), template=template, holds="clips")


def test_names_of_no_known_form_are_an_error_with_an_example():
    with pytest.raises(ValueError, match=r"say how with --template \(found, for example: clip_0\)"):
        audioset.name_files(parse(), paths=pa.array(["x/clip_0.wav"]), holds="clips")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('--4gqARaEJE, 0, 10, "/m/zz"\n', "line 2: label '/m/zz' is not in the class file"),
        ('--4gqARaEJE, 10, 10, "/m/a"\n', "line 2: end must be after start, which is 10.0 s, got '10'"),
        ('--4gqARaEJE, nan, 10, "/m/a"\n', "line 2: start must be seconds, got 'nan'"),
        ('short, 0, 10, "/m/a"\n', "line 2: video id 'short' is not 11"),
        ('--4gqARaEJE, 0, 10, ""\n', "line 2: positive_labels is empty"),
        ('#NAME?, 0, 10, "/m/a"\n', "line 2: '#NAME\\?' is what a spreadsheet makes"),
        ("--4gqARaEJE, 0, 1", "line 2: the file ends in the middle of a row; download it again"),
    ],
)
def test_a_bad_row_is_named_with_its_line(row, message):
    with pytest.raises(ValueError, match=message):
        parse(PLAIN.splitlines()[0] + "\n" + row)


def test_fewer_rows_than_the_file_declares_are_noted():
    assert parse(TEXT.replace("num_segs=2", "num_segs=20371")).notes == (
        "eval_segments.csv says it has 20371 segments and holds 2",
    )


@pytest.mark.parametrize(
    ("name", "rows", "short"),
    [
        ("eval_segments.csv", 221, None),
        ("normalised/balanced_train_segments.csv", 203, None),
        ("normalised_v2/balanced_train_segments.csv", 67, None),
    ],
)
def test_the_official_rows_read_as_the_csv_module_reads_them(official, name, rows, short):
    text = official(f"audioset/{name}")
    classes = audioset.read_classes(official("audioset/class_labels_indices.csv"), what="classes")
    made = audioset.parse({name: text}, classes=classes)
    lines = [line for line in text.splitlines() if not line.startswith(("#", "YTID"))]
    expected = list(csv.reader(io.StringIO("\n".join(lines)), skipinitialspace=True))
    assert len(classes) == 527
    assert made.table.num_rows == rows
    mids = list(classes)
    assert made.table["label.event"].to_pylist() == [[mids.index(m) for m in row[3].split(",")] for row in expected]
    assert made.table["video"].to_pylist() == [row[0] for row in expected]
    assert made.table["start_s"].to_pylist() == [float(row[1]) for row in expected]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "eval_segments_spreadsheet_damaged.csv",
            "line 1 is padded with commas: a spreadsheet.*take the original file",
        ),
        ("eval_segments_truncated_download.csv", "line 43: the file ends in the middle of a row; download it again"),
    ],
)
def test_damaged_copies_are_refused_whole(official, name, message):
    classes = audioset.read_classes(official("audioset/class_labels_indices.csv"), what="classes")
    with pytest.raises(ValueError, match=message):
        audioset.parse({name: official(f"audioset/wild/{name}")}, classes=classes, bad_rows="report")
