import pytest

from pipelines.annotations import sports1m
from pipelines.annotations.cells import class_list
from pipelines.preflight import build

CLASSES = ("boomerang", "boxing", "kyūdō")
LINE = "https://www.youtube.com/watch?v=-lsNw_WvGgE"


def test_labels_count_lines_of_the_class_file_and_files_go_by_video_id():
    made = sports1m.parse({"train_partition.txt": f"{LINE} 2,0\n"}, classes=CLASSES)
    table, report = build(made, files=["v/-lsNw_WvGgE.webm"])
    assert table["label.sport"].to_pylist() == [[2, 0]]
    assert report.histogram == {"sport": {"train": {"boomerang": 1, "kyūdō": 1}}}


def test_a_video_in_both_splits_can_be_refused():
    texts = {"sports0_train.txt": f"{LINE} 2\n", "sports0_test.txt": f"{LINE} 0\n"}
    with pytest.raises(ValueError, match=r"'-lsNw_WvGgE.mp4' but differ in split: 'train' and 'test'"):
        build(sports1m.parse(texts, classes=CLASSES), files=["-lsNw_WvGgE.mp4"], shared_videos="refuse")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{LINE} 3\n", r"line 1: label '3' is not in the class list, which counts from 0 to 2"),
        (f"{LINE}\n", "line 1: 1 cells where 2 belong"),
        ("https://vimeo.com/1 2\n", "line 1: video id 'https://vimeo.com/1' is not"),
    ],
)
def test_a_bad_line_is_named(line, message):
    with pytest.raises(ValueError, match=message):
        sports1m.parse({"test.txt": line}, classes=CLASSES)


@pytest.mark.parametrize(
    ("name", "rows", "several"),
    [("constructed/sports1m_test_partition.txt", 60, None), ("sports1m/derived/test_vid.txt", 213, None)],
)
def test_the_official_lines_read_as_split_at_blanks(official, name, rows, several):
    classes = class_list(official("sports1m/labels.txt"), what="labels.txt")
    text = official(name)
    made = sports1m.parse({name: text}, classes=classes)
    expected = [line.split() for line in text.splitlines()]
    assert (len(classes), classes[0], classes[486]) == (487, "boomerang", "model aircraft")
    assert made.table.num_rows == rows
    assert made.table["video"].to_pylist() == [row[0][-11:] for row in expected]
    assert made.table["label.sport"].to_pylist() == [[int(n) for n in row[1].split(",")] for row in expected]
