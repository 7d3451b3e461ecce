import json
import random
import string

import fsspec
import pyarrow as pa
import pytest

from pipelines.annotations import from_folder, list_files, parse_csv
from pipelines.annotations.files import is_media
from pipelines.annotations.ids import make_clip_ids
from pipelines.manifest import repeated_rows
from pipelines.preflight import build, report_path, write_report
from schemas.manifest import make_clip_id


def test_ids_of_columns_are_those_of_their_rows():
    rng = random.Random(0)
    names = "".join(c for c in string.printable) + "é\u00a0\u2003@%ü"
    uris = ["".join(rng.choices(names, k=12)) for _ in range(2000)] + ["plain/-a_b.mp4"] * 10
    times = [None, 0.0, 1.5, 0.0125, 12345.678, 1e13, 1 / 3, 3600.001]
    starts, ends = ([rng.choice(times) for _ in uris] for _ in range(2))
    made = make_clip_ids(pa.array(uris), pa.array(starts, pa.float64()), pa.array(ends, pa.float64()))
    assert made.to_pylist() == [make_clip_id(*row) for row in zip(uris, starts, ends, strict=True)]


def test_repeated_rows_are_those_a_set_finds():
    rng = random.Random(1)
    values = [str(rng.randrange(150_000)) for _ in range(200_000)]
    first, expected = {}, []
    for row, value in enumerate(values):
        if first.setdefault(value, row) != row:
            expected.append((row, first[value]))
    rows, firsts = repeated_rows(pa.array(values))
    assert list(zip(rows.tolist(), firsts.tolist(), strict=True)) == expected


def test_a_root_is_listed_alike_on_disk_and_elsewhere(tmp_path):
    names = ["b/x.mp4", "a.mp4", "b/c d/é.mp4", "b.txt"]
    memory = fsspec.filesystem("memory")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        memory.pipe_file(f"/listed/{name}", b"")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert list_files(str(tmp_path)).to_pylist() == sorted(names)
    assert list_files("memory://listed").to_pylist() == sorted(names)


def test_a_root_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no video root at"):
        list_files(str(tmp_path / "none"))


def test_media_files_of_any_case_are_found_in_a_tree():
    files = ["a/x.MP4", "a/y.wav", "a/.mp4", "a/z.mp4.part", "b/w.webm"]
    assert from_folder(files).table["name"].to_pylist() == sorted(filter(is_media, files))


def test_the_report_is_written_whole(tmp_path):
    text = "path,split,label,end\na.mp4,train,x,0.5\nb.mp4,train,x,\n" + "".join(f"n{i},val,y,\n" for i in range(30))
    _, report = build(parse_csv(text, what="x.csv"), files=["a.mp4", "b.mp4", "c.mp4"], window_s=1.0)
    out = report_path(str(tmp_path / "clips.parquet"))
    write_report(report, out)
    written = json.loads((tmp_path / "clips.report.json").read_text())
    assert (written["annotated"], written["found"], written["missing_clips"], len(written["missing"])) == (
        32,
        2,
        30,
        30,
    )
    assert (written["short"], written["ignored"]) == (["a.mp4@-500"], ["c.mp4"])
    assert written["histogram"] == {"label": {"train": {"x": 2}}}
    assert "missing: ... and 10 more" in report.lines()


def test_sound_beside_a_video_of_the_same_name_is_not_ambiguous():
    from pipelines.annotations import vggsound

    made = vggsound.parse({"v.csv": "aaaaaaaaaaa,1,x,test\n"})
    table, report = build(made, files=["aaaaaaaaaaa_000001.mp4", "aaaaaaaaaaa_000001.wav"])
    assert table["uri"].to_pylist() == ["aaaaaaaaaaa_000001.mp4"]
    assert report.ambiguous == ()
