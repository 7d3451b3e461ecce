import json

import fsspec
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipelines.manifest import read_manifest
from tests.media import steady, write_media


def test_a_csv_becomes_a_manifest_and_a_report(tmp_path, capsys):
    write_media(tmp_path / "v" / "a.mkv", pts_s=steady(0.2))
    (tmp_path / "clips.csv").write_text("path,split,label\na.mkv,train,dog\nb.mkv,train,cat\n")
    out = str(tmp_path / "clips.parquet")
    command = ["manifest", "csv", "--annotations", str(tmp_path / "clips.csv"), "--videos", str(tmp_path / "v")]
    assert main([*command, "--out", out, "--task", "animal"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == out
    assert "missing: b.mkv" in lines
    assert pq.read_schema(out).names[-1] == "label.animal"


def test_a_folder_becomes_a_manifest(tmp_path, capsys):
    for split in ("train", "test"):
        write_media(tmp_path / "v" / split / "dog" / "a.mkv", pts_s=steady(0.2))
    out = str(tmp_path / "clips.parquet")
    assert main(["manifest", "folder", "--videos", str(tmp_path / "v"), "--out", out]) == 0
    assert pq.read_table(out)["split"].to_pylist() == ["test", "train"]


def test_a_missing_annotation_file_is_one_line(tmp_path, capsys):
    arguments = ["--annotations", str(tmp_path / "none.csv"), "--videos", str(tmp_path), "--out", "x"]
    assert main(["manifest", "csv", *arguments]) == 1
    assert "none.csv" in capsys.readouterr().err


OFFICIAL = {
    "kinetics": ("k.csv", "label,youtube_id,time_start,time_end,split\nx,-aaaaaaaaaa,0,10,train\n", {}),
    "audioset": (
        "eval_segments.csv",
        '# YTID, start_seconds, end_seconds, positive_labels\n-aaaaaaaaaa, 0.000, 10.000, "/m/a"\n',
        {"classes": 'index,mid,display_name\n0,/m/a,"Speech"\n'},
    ),
    "vggsound": ("vggsound.csv", "-aaaaaaaaaa,1,x,train\n", {}),
    "sports1m": ("train.txt", "https://www.youtube.com/watch?v=-aaaaaaaaaa 0\n", {"classes": "boomerang\n"}),
    "epic-kitchens": (
        "train.csv",
        "uid,participant_id,video_id,start_timestamp,stop_timestamp,verb,verb_class,noun,noun_class\n"
        "7,P01,P01_01,00:00:01.00,00:00:02.00,take,0,cup,0\n",
        {"verbs": "verb_id,class_key\n0,take\n", "nouns": "noun_id,class_key\n0,cup\n"},
    ),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_annotations_at_any_url_become_a_manifest_and_a_report(name, capsys):
    memory = fsspec.filesystem("memory")
    files = ["-aaaaaaaaaa_000000_000010.mp4", "-aaaaaaaaaa_000001.mp4", "-aaaaaaaaaa.mp4", "P01_01.MP4"]
    for path in files:
        memory.pipe_file(f"/official/{name}/v/{path}", b"")
    file, text, others = OFFICIAL[name]
    options = []
    for option, content in {"annotations": text, **others}.items():
        path = f"/official/{name}/{file if option == 'annotations' else option}"
        memory.pipe_file(path, content.encode())
        options += [f"--{option}", f"memory:/{path}"]
    out = f"memory://official/{name}/clips.parquet"
    assert main(["manifest", name, *options, "--videos", f"memory://official/{name}/v", "--out", out]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == out
    assert read_manifest(out).table.num_rows == 1
    assert json.loads(memory.cat_file(f"/official/{name}/clips.report.json"))["found"] == 1


def test_bad_rows_are_refused_unless_they_are_to_be_reported(tmp_path, capsys):
    write_media(tmp_path / "v" / "a.mkv", pts_s=steady(0.2))
    (tmp_path / "clips.csv").write_text("path,split,label\na.mkv,train,dog\na.mkv,dev,dog\n")
    command = ["manifest", "csv", "--annotations", str(tmp_path / "clips.csv"), "--videos", str(tmp_path / "v")]
    command += ["--out", str(tmp_path / "clips.parquet")]
    assert main(command) == 1
    assert "line 3: split 'dev' is unknown" in capsys.readouterr().err
    assert main([*command, "--bad-rows", "report"]) == 0
    assert "bad rows 1," in capsys.readouterr().out


def test_a_folder_without_classes_says_what_lies_there_and_what_to_do(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4", "notes.txt"):
        (tmp_path / "videos" / name).write_bytes(b"")
    line = ["folder", "--videos", str(tmp_path / "videos"), "--out", str(tmp_path / "clips.parquet")]
    assert main(["manifest", *line]) == 1
    error = capsys.readouterr().err
    assert "(2 media files lie in it without a class); put the files of each class into a folder named for it" in error
