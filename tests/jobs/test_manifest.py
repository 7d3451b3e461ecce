import pyarrow.parquet as pq

from jobs.cli import main
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
