import csv
import io

import pytest

from pipelines.annotations import epic_kitchens as epic
from pipelines.preflight import build

VERBS = epic.Classes(edition="100", keys=("take", "put"), what="verbs")
NOUNS = epic.Classes(edition="100", keys=("tap", "cup"), what="nouns")
HEADER = (
    "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,start_frame,verb,verb_class,noun,noun_class\n"
)
ROW = "P01_01_{},P01,P01_01,{},{},999999,take,{},cup,1\n"


def parse(*spans, name="train.csv", **options):
    rows = "".join(ROW.format(i, start, stop, 0) for i, (start, stop) in enumerate(spans))
    return epic.parse({name: HEADER + rows}, verbs=VERBS, nouns=NOUNS, **options)


def test_spans_come_from_time_stamps_of_any_precision_and_length():
    made = parse(("00:08:45.83", "00:08:46.1"), ("01:02:03.004", "01:02:04"))
    table, report = build(made, files=["P01/videos/P01_01.MP4"])
    assert table["start_s"].to_pylist() == [525.83, 3723.004]
    assert table["end_s"].to_pylist() == [526.1, 3724.0]
    assert table["clip_id"].to_pylist() == ["P01_01_0", "P01_01_1"]
    assert table["group"].to_pylist() == ["P01", "P01"]
    assert table["uri"].to_pylist() == ["P01/videos/P01_01.MP4"] * 2
    assert report.short == ("P01_01_0", "P01_01_1")


def test_short_segments_are_widened_within_their_video_when_asked():
    spans = [("00:00:00.10", "00:00:00.50"), ("00:00:04.00", "00:00:04.40"), ("00:00:09.80", "00:00:10.20")]
    made = parse(*spans, short="expand", window_s=1.0, durations_s={"P01_01": 10.0})
    assert made.table["start_s"].to_pylist() == [0.0, 3.7, 9.0]
    assert made.table["end_s"].to_pylist() == [1.0, 4.7, 10.0]
    assert made.notes == (
        "1 segments ended after their video and were cut to it",
        "3 segments shorter than 1 s were widened around their centre",
    )


@pytest.mark.parametrize(
    ("span", "message"),
    [
        (("00:00:05.00", "00:00:04.00"), "line 2: stop '00:00:04.00' is not after start '00:00:05.00'"),
        (("5.0", "00:00:04.00"), "line 2: start_timestamp '5.0' is not HH:MM:SS.ff"),
        (("00:01:00.00", "00:01:01.00"), "line 2: start '00:01:00.00' is not inside video P01_01"),
    ],
)
def test_a_bad_span_is_named_with_its_line(span, message):
    with pytest.raises(ValueError, match=message):
        parse(span, durations_s={"P01_01": 10.0})


def test_participants_can_be_moved_to_validation():
    made = parse(("00:00:01", "00:00:02"), val_participants=["P01"])
    assert made.table["split"].to_pylist() == ["val"]
    with pytest.raises(ValueError, match="--val-participants: 'P02' has no segment; there are P01"):
        parse(("00:00:01", "00:00:02"), val_participants=["P02"])


def test_class_ids_of_another_edition_are_noticed_by_what_they_mean():
    other = epic.Classes(edition="100", keys=("put", "take"), what="other")
    text = HEADER + ROW.format(0, "00:00:01", "00:00:02", 0)
    with pytest.raises(
        ValueError, match="other does not fit the annotations: verb 'take' has class 0 there and 1 here"
    ):
        epic.parse({"train.csv": text}, verbs=other, nouns=NOUNS)


def test_an_empty_class_is_a_bad_row():
    text = HEADER + ROW.format(0, "00:00:01", "00:00:02", "")
    with pytest.raises(ValueError, match="line 2: verb_class is empty: the narration names no valid verb"):
        epic.parse({"train.csv": text}, verbs=VERBS, nouns=NOUNS)


def classes(official, edition):
    prefix = {"55": "epic55/EPIC_", "100": "epic100/EPIC_100_"}[edition]
    verbs, nouns = (
        epic.read_classes(official(f"{prefix}{head}_classes.csv"), what=f"{head} {edition}", head=head)
        for head in ("verb", "noun")
    )
    return {"verbs": verbs, "nouns": nouns}


@pytest.mark.parametrize(
    ("name", "edition", "rows", "split"),
    [
        ("epic100/EPIC_100_validation.csv", "100", 215, "val"),
        ("epic100/EPIC_100_test_timestamps.csv", "100", 205, "test"),
        ("epic100/UDA_annotations/EPIC_100_uda_source_train.csv", "100", 215, "train"),
        ("epic100/UDA_annotations/EPIC_100_uda_target_val.csv", "100", 207, "val"),
        ("epic55/EPIC_train_action_labels.csv", "55", 212, "train"),
        ("epic55/EPIC_test_s1_timestamps.csv", "55", 200, "test"),
        ("epic55/EPIC_test_s2_timestamps.csv", "55", 100, "test"),
    ],
)
def test_the_official_rows_read_as_the_csv_module_reads_them(official, name, edition, rows, split):
    text = official(name)
    made = epic.parse({name: text}, **classes(official, edition))
    expected = list(csv.DictReader(io.StringIO(text)))
    assert made.table.num_rows == rows == len(expected)
    assert set(made.table["split"].to_pylist()) == {split}
    for column, stamp in (("start_s", "start_timestamp"), ("end_s", "stop_timestamp")):
        hms = [row[stamp].split(":") for row in expected]
        times = [int(h) * 3600 + int(m) * 60 + float(s) for h, m, s in hms]
        assert made.table[column].to_pylist() == pytest.approx(times, abs=1e-9)
    for head in ("verb", "noun"):
        labels = [int(row[f"{head}_class"]) if f"{head}_class" in row else None for row in expected]
        assert made.table[f"label.{head}"].to_pylist() == labels
    short = [row for row, length in zip(expected, made.table["length_s"].to_pylist(), strict=True) if length < 1]
    _, report = build(made, files=[f"{row['video_id']}.MP4" for row in expected])
    assert len(report.short) == len(short) > 0


def test_the_official_class_files_have_the_sizes_of_their_editions(official):
    sizes = {e: tuple(len(c.keys) for c in classes(official, e).values()) for e in ("55", "100")}
    assert sizes == {"55": (125, 352), "100": (97, 300)}


def test_editions_are_never_mixed(official):
    text = official("epic100/EPIC_100_validation.csv")
    mixed = classes(official, "100") | {"verbs": classes(official, "55")["verbs"]}
    with pytest.raises(ValueError, match="differ; take files of one edition"):
        epic.parse({"val.csv": text}, **mixed)
    both = {"val.csv": text, "train.csv": official("epic55/EPIC_train_action_labels.csv")}
    with pytest.raises(ValueError, match="differ; take files of one edition"):
        epic.parse(both, **classes(official, "100"))


def test_the_rows_listed_as_invalid_are_bad_rows(official):
    name = "epic55/EPIC_train_invalid_labels.csv"
    texts = {n: official(n) for n in (name, "epic55/EPIC_train_action_labels.csv")}
    made = epic.parse(texts, **classes(official, "55"), bad_rows="report")
    assert (len(made.bad), made.table.num_rows) == (116, 212)


def test_odd_rows_neither_run_code_nor_pass(official):
    options = classes(official, "100") | {"splits": ["train"], "bad_rows": "report"}
    made = epic.parse({"edge.csv": official("constructed/epic100_edge.csv")}, **options)
    assert [row.line for row in made.bad] == [4]
    assert made.table["start_s"].to_pylist() == [1.0, 3723.004, 5.0]


def test_lengths_of_videos_are_read_from_both_editions(official):
    old = epic.read_durations(official("epic55/EPIC_video_info.csv"), what="55")
    new = epic.read_durations(official("epic100/EPIC_100_video_info.csv"), what="100")
    assert (len(old), len(new), old["P01_01"]) == (432, 700, 1652.152817)
