import json

from jobs.cli import main
from tests.media import ordinary_clip


def test_manifest_and_preprocess_make_a_dataset(ray_session, tmp_path, capsys):
    for i, split in enumerate(("train", "train", "val")):
        ordinary_clip(tmp_path / "v" / split / "ab"[i % 2] / f"{i}.mp4", seconds=0.4)
    videos, clips, data = str(tmp_path / "v"), str(tmp_path / "clips.parquet"), str(tmp_path / "data")
    assert main(["manifest", "folder", "--videos", videos, "--out", clips]) == 0
    command = ["preprocess", "--manifest", clips, "--videos", videos, "--out", data]
    assert main([*command, "--modalities", "rgb", "logmel", "--rgb.fps", "5", "--rgb.fixed-size-px", "32", "48"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == data
    info = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert info["features"]["modalities"] == ["rgb", "logmel"]
    assert info["features"]["rgb"]["fixed_size_px"] == [32, 48]
    assert info["counts"]["train"] == {"ok": 2, "failed": 0, "skipped": 0}
    assert not (tmp_path / "data" / "train" / "00000" / "flow.arrow").exists()


def test_too_many_failures_exit_1_with_counts(ray_session, tmp_path, capsys):
    ordinary_clip(tmp_path / "v" / "train" / "a" / "0.mp4", seconds=0.4)
    (tmp_path / "v" / "train" / "a" / "1.mp4").write_bytes(b"not a video")
    videos, clips, data = str(tmp_path / "v"), str(tmp_path / "clips.parquet"), str(tmp_path / "data")
    assert main(["manifest", "folder", "--videos", videos, "--out", clips]) == 0
    assert main(["preprocess", "--manifest", clips, "--videos", videos, "--out", data]) == 1
    assert "1 of 2 clips failed (1 unreadable)" in capsys.readouterr().err


def test_an_unknown_modality_exits_2(capsys):
    assert main(["preprocess", "--manifest", "m", "--videos", "v", "--out", "o", "--modalities", "depth"]) == 2
    assert "depth" in capsys.readouterr().err


def test_relative_paths_and_limits_reach_the_workers(ray_session, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ordinary_clip(tmp_path / "v" / "train" / "a" / "0.mp4", seconds=0.4)
    assert main(["manifest", "folder", "--videos", "v", "--out", "clips.parquet"]) == 0
    command = ["preprocess", "--manifest", "clips.parquet", "--videos", "v", "--out", "data", "--modalities", "rgb"]
    assert main([*command, "--limits.max-duration-s", "0.1"]) == 1
    assert "1 too-long" in capsys.readouterr().err
    (tmp_path / "data" / "train" / "00000" / "done.json").unlink()
    assert main([*command, "--limits.max-duration-s", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "data")
    assert (tmp_path / "data" / "train" / "00000" / "rgb.arrow").exists()
