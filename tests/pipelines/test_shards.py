import hashlib
import json
import shutil
from dataclasses import replace

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipelines.annotations import parse_csv
from pipelines.decoder import Decoder
from pipelines.preflight import build
from pipelines.shards import LostClipError, ShardJob, write_shard
from pipelines.source import DecodeLimits
from pipelines.state import differences, find_done
from pipelines.store import Store
from schemas.features import MODALITIES, FeatureSpec, FlowSpec, RgbSpec
from schemas.shards import clips_schema, feature_schema
from schemas.task import decode_tasks
from tests.media import ordinary_clip, steady, write_media

FEATURES = FeatureSpec(rgb=RgbSpec(fps=10.0, fixed_size_px=(48, 64)))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for i in range(3):
        ordinary_clip(root / f"good{i}.mp4", hz=300 + 100 * i)
    write_media(root / "mute.mkv", pts_s=steady(0.4))
    (root / "corrupt.mp4").write_bytes(b"\0" * 5000)
    return root


@pytest.fixture
def rows():
    names = ["good0.mp4", "corrupt.mp4", "mute.mkv", "good1.mp4", "missing.mp4", "good2.mp4"]
    text = "path,split,label\n" + "".join(f"{n},train,{'ab'[i % 2]}\n" for i, n in enumerate(names))
    return build(parse_csv(text, what="x"), files=names)[0]


def job(videos, out, features=FEATURES):
    return ShardJob(out=str(out), videos=str(videos), features=features, limits=DecodeLimits())


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_bad_clips_cost_their_own_rows_only(videos, rows, tmp_path):
    ledger = write_shard("train/00000", rows, job(videos, tmp_path)).to_pylist()
    assert [(r["status"], r["reason"], r["row"]) for r in ledger] == [
        ("ok", None, 0),
        ("failed", "unreadable", None),
        ("ok", None, 1),
        ("ok", None, 2),
        ("failed", "missing-file", None),
        ("ok", None, 3),
    ]
    assert all(r["message"] and "\n" not in r["message"] for r in ledger if r["status"] == "failed")


def test_row_i_of_every_file_is_the_same_clip_and_one_batch(videos, rows, tmp_path):
    write_shard("train/00000", rows, job(videos, tmp_path))
    tasks = decode_tasks(rows.schema.metadata, what="m")
    with pa.memory_map(str(tmp_path / "train/00000/clips.arrow")) as file:
        clips = pa.ipc.open_file(file).read_all()
    assert clips.schema.equals(clips_schema(tasks), check_metadata=True)
    assert clips["label.label"].to_pylist() == [0, 0, 1, 1]
    for modality in ("rgb", "flow", "logmel"):
        with pa.memory_map(str(tmp_path / f"train/00000/{modality}.arrow")) as file:
            reader = pa.ipc.open_file(file)
            assert reader.schema.equals(feature_schema(modality, FEATURES), check_metadata=True)
            assert reader.num_record_batches == clips.num_rows
            assert [reader.get_batch(i)["clip_id"][0].as_py() for i in range(4)] == clips["clip_id"].to_pylist()
            if modality == "logmel":
                mute = reader.get_batch(1).to_pylist()[0]
                assert mute == {**dict.fromkeys(reader.schema.names), "clip_id": "mute.mkv"}
                values = reader.get_batch(0)["values"][0].values.to_numpy()
                assert values.dtype == np.float16


def test_done_says_what_is_there(videos, rows, tmp_path):
    write_shard("train/00000", rows, job(videos, tmp_path))
    done = json.loads((tmp_path / "train/00000/done.json").read_text())
    assert (done["clips"], done["failed"]) == (4, 2)
    assert sorted(done["fingerprints"]) == ["flow", "logmel", "rgb"]
    files = files_of(tmp_path / "train/00000")
    assert sorted(files) == sorted([*done["checksums"], "done.json"])
    for name, checksum in done["checksums"].items():
        assert hashlib.sha256(files[name]).hexdigest() == checksum


def test_a_half_written_shard_is_made_again_to_the_same_bytes(videos, rows, tmp_path):
    write_shard("train/00000", rows, job(videos, tmp_path / "whole"))
    shard = tmp_path / "torn" / "train" / "00000"
    shard.mkdir(parents=True)
    (shard / ".tmp-99-rgb.arrow").write_bytes(b"half")
    (shard / "rgb.arrow").write_bytes(b"renamed before the kill")
    write_shard("train/00000", rows, job(videos, tmp_path / "torn"))
    assert files_of(shard) == files_of(tmp_path / "whole" / "train" / "00000")


def test_a_failing_writer_leaves_no_readable_shard(videos, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.shards.sha256_of", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_shard("train/00000", rows, job(videos, tmp_path))
    assert find_done(Store(str(tmp_path)), "train/00000") is None
    assert not [p for p in (tmp_path / "train/00000").iterdir() if p.name.startswith(".tmp-")]


def test_a_url_gets_the_same_bytes_as_a_path(videos, rows, tmp_path):
    write_shard("train/00000", rows, job(videos, tmp_path))
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    write_shard("train/00000", rows, job(videos, "memory://data"))
    remote = {name.rsplit("/", 1)[1]: memory.cat_file(name) for name in memory.find("/data/train/00000")}
    assert remote == files_of(tmp_path / "train/00000")


def test_a_difference_is_shown_setting_by_setting(videos, rows, tmp_path):
    write_shard("train/00000", rows, job(videos, tmp_path))
    store = Store(str(tmp_path))
    done = find_done(store, "train/00000")
    assert differences(done, rows, FEATURES) == []
    other = FeatureSpec(rgb=RgbSpec(fps=5.0, fixed_size_px=(48, 64)), flow=FlowSpec(bound_px=8.0))
    assert differences(done, rows, other) == ["rgb.fps: 10.0 -> 5.0", "flow.bound_px: 20.0 -> 8.0"]
    assert "manifest rows" in differences(done, rows.slice(1), FEATURES)[0]


@pytest.mark.parametrize("later", ["rgb", "flow", "logmel"])
def test_a_modality_added_later_gives_the_bytes_of_making_all_at_once_and_touches_nothing(
    videos, rows, tmp_path, later
):
    write_shard("train/00000", rows, job(videos, tmp_path / "once"))
    others = tuple(m for m in MODALITIES if m != later)
    grown = tmp_path / "grown" / "train" / "00000"
    write_shard("train/00000", rows, job(videos, tmp_path / "grown", replace(FEATURES, modalities=others)))
    before = {p.name: p.stat().st_mtime_ns for p in grown.iterdir() if p.name != "done.json"}
    write_shard("train/00000", rows, job(videos, tmp_path / "grown"))
    assert files_of(grown) == files_of(tmp_path / "once" / "train" / "00000")
    assert {name: (grown / name).stat().st_mtime_ns for name in before} == before


def test_a_finished_shard_is_left_alone(videos, rows, tmp_path):
    first = write_shard("train/00000", rows, job(videos, tmp_path))
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "train/00000").iterdir()}
    assert write_shard("train/00000", rows, job(videos, tmp_path)).equals(first)
    assert {p: p.stat().st_mtime_ns for p in times} == times


def test_a_changed_modality_replaces_its_own_file_only(videos, rows, tmp_path):
    write_shard("train/00000", rows, job(videos, tmp_path))
    before = files_of(tmp_path / "train/00000")
    other = replace(FEATURES, flow=FlowSpec(bound_px=8.0))
    write_shard("train/00000", rows, job(videos, tmp_path, other))
    after = files_of(tmp_path / "train/00000")
    assert {name for name in after if after[name] != before[name]} == {"flow.arrow", "done.json"}


def test_a_kill_while_a_modality_is_replaced_leaves_the_others_and_no_mixture(videos, rows, tmp_path, monkeypatch):
    write_shard("train/00000", rows, job(videos, tmp_path))
    other = replace(FEATURES, flow=FlowSpec(bound_px=8.0))
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.shards.replace", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_shard("train/00000", rows, job(videos, tmp_path, other))
    write_shard("train/00000", rows, job(videos, tmp_path, other))
    write_shard("train/00000", rows, job(videos, tmp_path / "fresh", other))
    assert files_of(tmp_path / "train/00000") == files_of(tmp_path / "fresh/train/00000")


def test_a_stored_clip_that_is_gone_is_an_error_or_a_new_shard(videos, rows, tmp_path):
    root = tmp_path / "videos"
    shutil.copytree(videos, root)
    write_shard("train/00000", rows, job(root, tmp_path, replace(FEATURES, modalities=("rgb",))))
    before = files_of(tmp_path / "train/00000")
    (root / "good1.mp4").unlink()
    with pytest.raises(LostClipError, match=r"'good1\.mp4' of shard train/00000 .*missing-file.*--on-change redo"):
        write_shard("train/00000", rows, job(root, tmp_path))
    assert files_of(tmp_path / "train/00000") == before
    ledger = write_shard("train/00000", rows, replace(job(root, tmp_path), on_change="redo")).to_pylist()
    assert [r["reason"] for r in ledger if r["uri"] == "good1.mp4"] == ["missing-file"]


def test_a_clip_without_what_is_asked_for_is_a_null(videos, rows, tmp_path):
    only = replace(FEATURES, modalities=("logmel",))
    ledger = write_shard("train/00000", rows, job(videos, tmp_path, only)).to_pylist()
    assert [(r["status"], r["message"]) for r in ledger if r["uri"] == "mute.mkv"] == [("ok", "no sound")]
    done = find_done(Store(str(tmp_path)), "train/00000")
    assert (done.clips, done.present) == (4, {"logmel": 3})


def test_a_shard_says_its_versions_whatever_its_worker_had_to_decode(videos, rows, tmp_path, monkeypatch):
    failing = rows.filter(pc.equal(rows["uri"], "corrupt.mp4"))
    write_shard("train/00000", failing, job(videos, tmp_path / "once"))
    write_shard("train/00000", failing, job(videos, tmp_path / "grown", replace(FEATURES, modalities=("rgb",))))
    monkeypatch.setattr("pipelines.decoder._decoder", Decoder())  # As in a worker that has not decoded anything yet.
    write_shard("train/00000", failing, job(videos, tmp_path / "grown"))
    assert files_of(tmp_path / "grown/train/00000") == files_of(tmp_path / "once/train/00000")


def test_a_shard_that_a_stopped_job_finished_late_is_made_again_under_the_limits_of_this_one(videos, rows, tmp_path):
    short = replace(job(videos, tmp_path), limits=DecodeLimits(max_duration_s=0.1))
    reasons = write_shard("train/00000", rows, short)["reason"].to_pylist()
    assert reasons.count("too-long") == 4
    ledger = write_shard("train/00000", rows, job(videos, tmp_path))
    assert ledger["status"].to_pylist().count("ok") == 4
    found = find_done(Store(str(tmp_path)), "train/00000")
    assert found is not None
    assert found.limits["max_duration_s"] == DecodeLimits().max_duration_s
