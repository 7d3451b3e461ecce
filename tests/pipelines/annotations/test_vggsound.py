import csv
import io

import pytest

from pipelines.annotations import vggsound
from pipelines.preflight import build


def test_both_forms_read_alike_and_labels_keep_their_commas():
    long = '-aaaaaaa_aa,7,"pigeon, dove cooing",test\n'
    short = '-aaaaaaa_aa_000007.mp4,"pigeon, dove cooing"\r\n'
    assert vggsound.parse({"vggsound.csv": long}).table == vggsound.parse({"test.csv": short}).table
    table, _ = build(vggsound.parse({"vggsound.csv": long}), files=["video/-aaaaaaa_aa_000007.mp4"])
    assert table["group"].to_pylist() == ["-aaaaaaa_aa"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aaaaaaaaaaa,1,x,dev\n", "line 1: split 'dev' is unknown"),
        ("aaaaaaaaaaa,1.5,x,test\n", "line 1: start must be whole seconds"),
        ("youtube_id,start,label,split\n", "line 1: video id 'youtube_id'"),
        ("a,b,c\n", "line 1: 3 cells; VGGSound has id,start,label,split or file,label"),
        ("aaaaaaaaaaa,1,,test\n", "line 1: label is empty"),
    ],
)
def test_a_bad_row_is_named_with_its_line(text, message):
    with pytest.raises(ValueError, match=message):
        vggsound.parse({"vggsound.csv": text})


@pytest.mark.parametrize(("name", "rows"), [("vggsound.csv", 65), ("test.csv", 209), ("AStest.csv", 63)])
def test_the_official_rows_read_as_the_csv_module_reads_them(official, name, rows):
    classes = vggsound.read_classes(official("vggsound/stat.csv"), what="stat.csv")
    text = official(f"vggsound/{name}")
    made = vggsound.parse({name: text}, classes=classes, splits=["test"])
    expected = list(csv.reader(io.StringIO(text, newline="")))
    assert len(classes) == 309
    assert made.table.num_rows == rows == len(expected)
    named = [row[0].removesuffix(".mp4") if len(row) == 2 else f"{row[0]}_{int(row[1]):06d}" for row in expected]
    assert made.table["name"].to_pylist() == named
    label = 1 if len(expected[0]) == 2 else 2
    assert made.table["label.sound"].to_pylist() == [classes.index(row[label]) for row in expected]
