import csv
import io

import pytest

from pipelines.annotations import kinetics
from pipelines.annotations.cells import class_list
from pipelines.preflight import build

HEADER = "label,youtube_id,time_start,time_end,split\n"
DASH = "-_3456_89ab"


def parse(rows, **options):
    return kinetics.parse({"k.csv": HEADER + rows}, **options)


def test_files_are_found_wherever_they_lie_and_ids_are_not_taken_apart():
    made = parse(f"tying tie (bow),{DASH},4,14,validate\ntying tie (bow),aaaaaaaaaaa,0,10,train\n")
    files = ["train/tying_tie_(bow)/aaaaaaaaaaa_000000_000010.mkv", f"{DASH}_000004_000014.mp4"]
    table, report = build(made, files=files)
    assert table["uri"].to_pylist() == files[::-1]
    assert table["group"].to_pylist() == [DASH, "aaaaaaaaaaa"]
    assert table["start_s"].null_count == 2
    assert (report.found, report.missing, report.short) == (2, (), ())


def test_the_older_columns_and_a_file_without_splits_read_alike():
    old = "video-id,start-time,end-time,label-name\naaaaaaaaaaa,4,14,dancing\n"
    new = "label,youtube_id,time_start,time_end,split,is_cc\ndancing,aaaaaaaaaaa,4,14,val,1\n"
    assert kinetics.parse({"k_val.csv": old}).table == kinetics.parse({"k.csv": new}).table
    with pytest.raises(ValueError, match=r"name of k.csv which split it holds; say so with --splits"):
        kinetics.parse({"k.csv": old})
    assert kinetics.parse({"k.csv": old}, splits=["test"]).table["split"].to_pylist() == ["test"]


def test_only_test_rows_may_lack_a_label():
    test = "youtube_id,time_start,time_end,split\nbbbbbbbbbbb,0,10,test\n"
    made = kinetics.parse({"a.csv": HEADER + "x,aaaaaaaaaaa,0,10,train\n", "b.csv": test})
    assert made.table["label.action"].to_pylist() == [0, None]
    with pytest.raises(ValueError, match=r"k.csv, line 2: label is empty; only test clips may have none"):
        parse(",aaaaaaaaaaa,0,10,train\n")


def test_labels_are_case_sensitive_and_classes_keep_the_order_of_their_list():
    rows = "passing American football,aaaaaaaaaaa,0,10,train\npassing american football,bbbbbbbbbbb,0,10,train\n"
    classes = ("passing american football", "passing American football")
    assert parse(rows, classes=classes).table["label.action"].to_pylist() == [1, 0]
    with pytest.raises(ValueError, match="line 3: label 'passing american football' is not in the class list"):
        parse(rows, classes=classes[1:])


def test_a_clip_in_two_splits_is_an_error_and_a_video_in_two_splits_is_reported():
    one = "x,aaaaaaaaaaa,0,10,train\n"
    stem = "aaaaaaaaaaa_000000_000010.mp4"
    with pytest.raises(ValueError, match="differ in split: 'train' and 'val'"):
        build(parse(one + "x,aaaaaaaaaaa,0,10,val\n"), files=[stem])
    made = parse(one + "x,aaaaaaaaaaa,20,30,val\n")
    files = [stem, "aaaaaaaaaaa_000020_000030.mp4"]
    assert build(made, files=files)[1].shared_videos == {"aaaaaaaaaaa": ("train", "val")}
    with pytest.raises(ValueError, match="1 videos have clips in several splits, such as aaaaaaaaaaa in train and val"):
        build(made, files=files, shared_videos="refuse")


@pytest.mark.parametrize(
    ("folders", "taken", "ambiguous"),
    [
        (["train", "val"], "val", 0),
        (["replacement", "val"], "replacement", 0),
        (["other", "train"], "other", 0),
        (["a", "b"], "a", 1),
    ],
)
def test_of_files_with_one_name_the_best_is_taken_and_a_draw_is_reported(folders, taken, ambiguous):
    files = [f"{folder}/x/aaaaaaaaaaa_000000_000010.mp4" for folder in folders]
    table, report = build(parse("x,aaaaaaaaaaa,0,10,validate\n"), files=files)
    assert table["uri"].to_pylist() == [f"{taken}/x/aaaaaaaaaaa_000000_000010.mp4"]
    assert (len(report.ambiguous), len(report.ignored)) == (ambiguous, 1)


def test_odd_rows_are_left_out_with_a_reason_each_when_asked(official):
    text = official("constructed/kinetics_edge.csv")
    with pytest.raises(ValueError, match=r"^edge.csv, line 7: label is empty.*; bad rows: 14; --bad-rows report"):
        kinetics.parse({"edge.csv": text})
    made = kinetics.parse({"edge.csv": text}, bad_rows="report")
    assert [row.line for row in made.bad] == list(range(7, 21))
    assert made.tasks[0].classes == ("air drumming", "café work", "label, with comma", "padded label", 'she said "hi"')
    table, report = build(made, files=[f"{name}.mp4" for name in made.table["name"].to_pylist()])
    assert (report.annotated, table.num_rows, len(report.bad)) == (19, 5, 14)


def test_a_byte_order_mark_and_other_line_ends_change_nothing(official):
    assert kinetics.parse({"k.csv": official("constructed/kinetics_bom_crlf.csv")}).table.num_rows == 2


@pytest.mark.parametrize(
    ("name", "message"), [("empty.csv", "its header is: empty"), ("kinetics_header_only.csv", "has no rows")]
)
def test_files_without_rows_are_errors(official, name, message):
    with pytest.raises(ValueError, match=message):
        kinetics.parse({name: official(f"constructed/{name}")})


FORMS = ["activitynet_crawler/kinetics-{}00_val.csv", "activitynet_crawler/kinetics-{}00_test.csv"]
FORMS += ["deepmind/validate.csv", "deepmind/test.csv"]
FILES = [(edition, form) for edition in (4, 6, 7) for form in FORMS if edition < 7 or "deepmind" in form]


@pytest.mark.parametrize(("edition", "source"), FILES)
def test_the_official_files_read_as_the_csv_module_reads_them(official, edition, source):
    text = official(f"kinetics{edition}00/{source.format(edition)}")
    classes = class_list(official(f"kinetics{edition}00/label_map_k{edition}00.txt"), what="map")
    made = kinetics.parse({source.format(edition): text}, classes=classes)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(classes) == edition * 100
    assert made.table["name"].to_pylist() == [
        f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}" for row in rows
    ]
    assert made.table["label.action"].to_pylist() == [
        classes.index(row["label"]) if "label" in row else None for row in rows
    ]
    assert set(made.table["split"].to_pylist()) == {"val" if "val" in source else "test"}
    short = [length for length in made.table["length_s"].to_pylist() if length < 10]
    assert len(short) == {"validate.csv": 3, "test.csv": 6}[source.split("/")[1]] if edition == 7 else not short
