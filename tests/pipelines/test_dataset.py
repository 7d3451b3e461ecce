import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from ray.exceptions import RayTaskError

from pipelines import dataset as dataset_module
from pipelines import survey as survey_module
from pipelines.annotations import parse_csv
from pipelines.dataset import ChangedDatasetError, PreprocessConfig, ShardError, TooManyFailuresError, preprocess
from pipelines.manifest import read_manifest, write_manifest
from pipelines.plan import ShardPlan, plan_shards
from pipelines.preflight import build
from pipelines.shards import ShardJob, write_shard
from pipelines.source import DecodeLimits
from schemas.features import MODALITIES, FeatureSpec, FlowSpec, RgbSpec
from schemas.layout import DatasetInfo
from tests.media import ordinary_clip, steady, tone, write_media

FEATURES = FeatureSpec(rgb=RgbSpec(fps=10.0, fixed_size_px=(48, 64)))
GOOD = [f"good{i}.mp4" for i in range(8)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for i, name in enumerate(GOOD):
        ordinary_clip(root / name, hz=300 + 50 * i, seconds=0.4)
    write_media(root / "mute.mkv", pts_s=steady(0.4))
    write_media(root / "sound.mkv", sound=tone(440, seconds=0.4))
    (root / "corrupt.mp4").write_bytes(b"\0" * 5000)
    return root


@pytest.fixture
def one_process(monkeypatch):
    """The shards are written here, one after another, as a task writes them: for tests of everything around that."""

    def written(manifest, todo, job):
        for plan in todo:
            (row,) = dataset_module._shard_row(manifest, plan).to_pylist()
            yield dataset_module._write(row, job=job)

    monkeypatch.setattr(dataset_module, "_written", written)


def config(videos, folder, names, **changes):
    text = "path,split,label\n" + "".join(
        f"{name},{('train', 'train', 'val', 'test')[i % 4]},{'ab'[i % 2]}\n" for i, name in enumerate(names)
    )
    table, _ = build(parse_csv(text, what="x"), files=names)
    write_manifest(table, str(folder / "clips.parquet"))
    values = {"features": FEATURES, "clips_per_shard": 2, "out": str(folder / "data"), **changes}
    return PreprocessConfig(manifest=str(folder / "clips.parquet"), videos=str(videos), **values)


def run(settings):
    lines: list[str] = []
    return preprocess(settings, say=lines.append), lines


def files_below(folder):
    return {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}


def contents(folder):
    return {name: path.read_bytes() for name, path in files_below(folder).items()}


def test_every_clip_is_accounted_for_and_bad_ones_cost_only_themselves(ray_session, videos, tmp_path):
    names = [*GOOD[:3], "corrupt.mp4", "mute.mkv", "missing.mp4", "sound.mkv", *GOOD[3:]]
    summary, lines = run(config(videos, tmp_path, names, max_error_rate=0.2))
    assert (summary.ok, summary.failed) == (len(names) - 2, 2)
    assert summary.reasons == {"unreadable": 1, "missing-file": 1}
    ledger = pq.read_table(tmp_path / "data" / "ledger.parquet").to_pylist()
    assert [row["uri"] for row in ledger] == names
    for row in ledger:
        assert (row["status"] == "ok") == (row["row"] is not None)
    info = DatasetInfo.loads((tmp_path / "data" / "dataset.json").read_text(), what="x")
    assert sum(shard.clips for shard in info.shards) == len(names) - 2
    assert sum(counts["failed"] for counts in info.counts.values()) == 2
    assert any("clips/s" in line for line in lines)


def test_the_job_gives_the_bytes_that_one_process_gives(ray_session, videos, tmp_path):
    settings = config(videos, tmp_path, GOOD)
    run(settings)
    manifest = read_manifest(settings.manifest)
    alone = ShardJob(out=str(tmp_path / "alone"), videos=str(videos), features=FEATURES, limits=DecodeLimits())
    for plan in plan_shards(manifest, clips_per_shard=2):
        write_shard(plan.name, manifest.table.take(plan.positions), alone)
    made = contents(tmp_path / "data")
    assert made.pop("ledger.parquet")
    assert made.pop("dataset.json")
    assert made == contents(tmp_path / "alone")


def test_running_again_touches_nothing(one_process, videos, tmp_path):
    settings = config(videos, tmp_path, GOOD)
    run(settings)
    before = {name: path.stat().st_mtime_ns for name, path in files_below(tmp_path / "data").items()}
    summary, _ = run(settings)
    assert summary.kept_shards == summary.shards
    assert {name: path.stat().st_mtime_ns for name, path in files_below(tmp_path / "data").items()} == before


def test_after_a_kill_the_rest_is_made_to_the_same_bytes(ray_session, videos, tmp_path):
    settings = config(videos, tmp_path, GOOD)
    run(settings)
    whole = contents(tmp_path / "data")
    data = tmp_path / "data"
    (data / "dataset.json").unlink()
    (data / "ledger.parquet").unlink()
    (data / "train/00001/done.json").unlink()
    (data / "train/00001/rgb.arrow").write_bytes(b"torn")
    (data / "train/00001/.tmp-1-flow.arrow").write_bytes(b"half")
    shutil.rmtree(data / "val")
    kept = (data / "train/00000/rgb.arrow").stat().st_mtime_ns
    summary, _ = run(settings)
    assert contents(data) == whole
    assert (data / "train/00000/rgb.arrow").stat().st_mtime_ns == kept
    assert summary.kept_shards == summary.shards - 2


def test_other_settings_are_refused_with_the_difference_and_replaced_on_request(one_process, videos, tmp_path):
    settings = config(videos, tmp_path, GOOD)
    run(settings)
    before = contents(tmp_path / "data")
    other = FeatureSpec(rgb=RgbSpec(fps=5.0, fixed_size_px=(48, 64)))
    with pytest.raises(ChangedDatasetError, match=r"rgb\.fps: 10\.0 -> 5\.0.*--on-change redo"):
        run(config(videos, tmp_path, GOOD, features=other))
    assert contents(tmp_path / "data") == before
    run(config(videos, tmp_path, GOOD, features=other, on_change="redo"))
    info = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert info["features"]["rgb"]["fps"] == 5.0


def test_a_shorter_manifest_is_refused_and_its_shards_are_removed_on_request(one_process, videos, tmp_path):
    run(config(videos, tmp_path, GOOD))
    with pytest.raises(ChangedDatasetError, match="manifest"):
        run(config(videos, tmp_path, GOOD[:4]))
    run(config(videos, tmp_path, GOOD[:4], on_change="redo"))
    assert not (tmp_path / "data" / "train" / "00001").exists()


def test_past_the_error_rate_the_job_fails_and_keeps_the_ledger(ray_session, videos, tmp_path):
    names = ["missing0.mp4", "missing1.mp4", "corrupt.mp4", *GOOD]
    with pytest.raises(TooManyFailuresError, match=r"of 11 clips failed .*--max-error-rate 0.05 .*ledger.parquet"):
        run(config(videos, tmp_path, names))
    ledger = pq.read_table(tmp_path / "data" / "ledger.parquet").to_pylist()
    assert [row["uri"] for row in ledger] == names
    assert {row["status"] for row in ledger} <= {"ok", "failed", "skipped"}
    assert all(row["reason"] == "error-rate" for row in ledger if row["status"] == "skipped")
    assert not (tmp_path / "data" / "dataset.json").exists()


def test_a_split_of_which_nothing_is_left_is_an_error(one_process, videos, tmp_path):
    names = [GOOD[0], GOOD[1], "corrupt.mp4", GOOD[2]]
    with pytest.raises(ValueError, match="none of the 1 clips of split 'val' could be stored"):
        run(config(videos, tmp_path, names, max_error_rate=1.0))


def test_a_place_that_cannot_be_written_to_is_said_in_one_line(ray_session, videos, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").write_text("in the way")
    with pytest.raises(ShardError, match=r"could not be written: .*(exists|directory).*train") as caught:
        run(config(videos, tmp_path, GOOD[:2]))
    assert "\n" not in str(caught.value)


def test_a_missing_video_root_is_said_before_anything_starts(tmp_path):
    with pytest.raises(FileNotFoundError, match="no video root"):
        run(config(tmp_path / "nowhere", tmp_path, GOOD))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("name", "value"), [("max_error_rate", 1.5), ("clips_per_shard", 0)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        PreprocessConfig(manifest="m", videos="v", out="o", **{name: value})


def test_a_file_put_back_is_tried_again_and_lasting_failures_are_kept(one_process, videos, tmp_path):
    root = tmp_path / "videos"
    shutil.copytree(videos, root)
    (root / GOOD[0]).rename(tmp_path / "away.mp4")
    settings = config(root, tmp_path, [*GOOD, "corrupt.mp4"], max_error_rate=0.5)
    first, _ = run(settings)
    assert first.reasons == {"missing-file": 1, "unreadable": 1}
    again, _ = run(settings)
    assert again.kept_shards == again.shards
    (tmp_path / "away.mp4").rename(root / GOOD[0])
    restored, _ = run(settings)
    assert restored.reasons == {"unreadable": 1}
    assert restored.kept_shards == restored.shards - 1
    (root / "corrupt.mp4").write_bytes((root / GOOD[1]).read_bytes())
    repaired, _ = run(settings)
    assert repaired.failed == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_done_file_that_cannot_be_read_is_an_unfinished_shard(one_process, videos, tmp_path, text):
    settings = config(videos, tmp_path, GOOD[:4])
    run(settings)
    whole = contents(tmp_path / "data")
    (tmp_path / "data/train/00000/done.json").write_text(text)
    summary, _ = run(settings)
    assert summary.kept_shards == summary.shards - 1
    assert contents(tmp_path / "data") == whole


def test_a_truncated_feature_file_is_made_again(one_process, videos, tmp_path):
    settings = config(videos, tmp_path, GOOD[:4])
    run(settings)
    whole = contents(tmp_path / "data")
    (tmp_path / "data/train/00000/rgb.arrow").write_bytes(whole["train/00000/rgb.arrow"][:100])
    run(settings)
    assert contents(tmp_path / "data") == whole


def test_shards_of_a_killed_run_with_another_shard_size_are_refused(one_process, videos, tmp_path):
    run(config(videos, tmp_path, GOOD, clips_per_shard=1))
    for name in ("dataset.json", *(f"train/{i:05d}/done.json" for i in range(4))):
        (tmp_path / "data" / name).unlink()
    shutil.rmtree(tmp_path / "data/val")
    shutil.rmtree(tmp_path / "data/test")
    with pytest.raises(ChangedDatasetError, match=r"train/0000\d.*--clips-per-shard 4.*--on-change redo"):
        run(config(videos, tmp_path, GOOD, clips_per_shard=4))
    run(config(videos, tmp_path, GOOD, clips_per_shard=4, on_change="redo"))
    assert [p.name for p in (tmp_path / "data/train").iterdir()] == ["00000"]


def test_an_error_of_a_task_is_one_line_without_traces():
    error = RayTaskError("write", "Traceback of several processes", ValueError("no such\ncolumn"))
    assert dataset_module._why(error) == "ValueError: no such column"
    assert dataset_module._why(error.as_instanceof_cause()) == "ValueError: no such column"


def test_whatever_a_shard_raises_is_its_row(monkeypatch, videos, tmp_path):
    def broken(*_):
        raise ValueError("no such column")

    monkeypatch.setattr(dataset_module, "write_shard", broken)
    monkeypatch.setattr(dataset_module, "from_bytes", lambda data: data)
    job = ShardJob(out=str(tmp_path), videos=str(videos), features=FEATURES, limits=DecodeLimits())
    assert dataset_module._write({"shard": "s", "rows": b""}, job=job)["error"] == "ValueError: no such column"


def test_a_stricter_error_rate_leaves_no_dataset_of_the_laxer_run(one_process, videos, tmp_path):
    run(config(videos, tmp_path, [*GOOD, "corrupt.mp4"], max_error_rate=0.5))
    with pytest.raises(TooManyFailuresError):
        run(config(videos, tmp_path, [*GOOD, "corrupt.mp4"], max_error_rate=0.0))
    assert not (tmp_path / "data/dataset.json").exists()


def test_modalities_added_later_give_the_dataset_that_making_all_at_once_gives(one_process, videos, tmp_path):
    names = [*GOOD[:5], "mute.mkv", "sound.mkv", *GOOD[5:]]
    (tmp_path / "once").mkdir()
    run(config(videos, tmp_path / "once", names))
    for modalities in (("rgb",), ("logmel",), ("flow",)):
        run(config(videos, tmp_path, names, features=replace(FEATURES, modalities=modalities)))
    assert contents(tmp_path / "data") == contents(tmp_path / "once/data")


def test_adding_a_modality_leaves_the_other_files_and_the_readable_dataset_alone(one_process, videos, tmp_path):
    run(config(videos, tmp_path, GOOD, features=replace(FEATURES, modalities=("rgb", "logmel"))))
    before = {name: path.stat().st_mtime_ns for name, path in files_below(tmp_path / "data").items()}
    seen = []

    def look(line):
        seen.append((tmp_path / "data/dataset.json").exists())

    summary = preprocess(config(videos, tmp_path, GOOD, features=replace(FEATURES, modalities=("flow",))), say=look)
    assert all(seen)
    assert summary.present == dict.fromkeys(MODALITIES, len(GOOD))
    after = {name: path.stat().st_mtime_ns for name, path in files_below(tmp_path / "data").items()}
    changed = {name for name in after if after[name] != before.get(name)}
    assert {name.rsplit("/", 1)[-1] for name in changed} == {"flow.arrow", "done.json", "dataset.json"}


def test_a_modality_that_is_not_asked_for_stays_with_the_settings_it_has(one_process, videos, tmp_path):
    raw = replace(FEATURES, rgb=replace(FEATURES.rgb, codec="raw"), modalities=("rgb",))
    run(config(videos, tmp_path, GOOD, features=raw))
    run(config(videos, tmp_path, GOOD, features=replace(FEATURES, modalities=("logmel",))))
    info = DatasetInfo.loads((tmp_path / "data/dataset.json").read_text(), what="x")
    assert info.features.modalities == ("rgb", "logmel")
    assert info.features.rgb.codec == "raw"


def test_other_sampling_is_refused_for_a_modality_added_later(one_process, videos, tmp_path):
    run(config(videos, tmp_path, GOOD, features=replace(FEATURES, modalities=("rgb",))))
    other = FeatureSpec(rgb=RgbSpec(fps=5.0, fixed_size_px=(48, 64)), modalities=("flow",))
    with pytest.raises(ChangedDatasetError, match=r"rgb\.fps: 10\.0 -> 5\.0.*repeat the settings"):
        run(config(videos, tmp_path, GOOD, features=other))


def test_a_modality_that_no_clip_has_is_said(one_process, videos, tmp_path):
    _, lines = run(config(videos, tmp_path, ["mute.mkv"] * 1, clips_per_shard=1))
    assert "preprocess: warning: not one clip has logmel" in lines


def test_a_clip_past_a_limit_is_tried_again_when_the_limit_is_another(one_process, videos, tmp_path):
    short = DecodeLimits(max_duration_s=0.1)
    with pytest.raises(TooManyFailuresError, match="too-long"):
        run(config(videos, tmp_path, GOOD, limits=short))
    summary, _ = run(config(videos, tmp_path, GOOD))
    assert summary.ok == len(GOOD)
    again, _ = run(config(videos, tmp_path, GOOD))
    assert again.kept_shards == again.shards


def test_spans_of_one_source_share_a_shard_whatever_their_order_in_the_manifest(one_process, videos, tmp_path):
    text = "path,start,end,split,label\n" + "".join(
        f"{GOOD[i % 2]},{i * 0.04},{i * 0.04 + 0.1},train,a\n" for i in range(6)
    )
    table, _ = build(parse_csv(text, what="x"), files=GOOD)
    write_manifest(table, str(tmp_path / "clips.parquet"))
    settings = PreprocessConfig(
        manifest=str(tmp_path / "clips.parquet"),
        videos=str(videos),
        out=str(tmp_path / "data"),
        features=FEATURES,
        clips_per_shard=4,
    )
    run(settings)
    ledger = pq.read_table(tmp_path / "data/ledger.parquet").to_pylist()
    assert [row["clip_id"] for row in ledger] == table["clip_id"].to_pylist()
    assert {(row["uri"], row["shard"]) for row in ledger} == {(GOOD[0], "train/00000"), (GOOD[1], "train/00001")}


@pytest.mark.parametrize(("flow", "gpus", "asked"), [("raft", 2.0, 0.25), ("raft", 0.0, None), ("dis", 2.0, None)])
def test_a_gpu_is_asked_for_when_the_flow_wants_one_and_there_is_one(monkeypatch, flow, gpus, asked):
    monkeypatch.setattr(dataset_module.ray, "cluster_resources", lambda: {"GPU": gpus})
    assert dataset_module._gpus(FeatureSpec(flow=FlowSpec(algorithm=flow))) == asked
    assert dataset_module._gpus(FeatureSpec(flow=FlowSpec(algorithm=flow), modalities=("rgb",))) is None


def test_a_shard_with_a_clip_to_try_again_is_not_touched_while_it_gets_a_modality(
    one_process, videos, tmp_path, monkeypatch
):
    run(config(videos, tmp_path, GOOD, features=replace(FEATURES, modalities=("rgb",))))
    before = {name: path.stat().st_mtime_ns for name, path in files_below(tmp_path / "data").items()}
    monkeypatch.setattr(survey_module, "worth_another_try", lambda *args, **kwargs: True)
    run(config(videos, tmp_path, GOOD, features=replace(FEATURES, modalities=("flow",))))
    after = {name: path.stat().st_mtime_ns for name, path in files_below(tmp_path / "data").items()}
    changed = {name.rsplit("/", 1)[-1] for name in after if after[name] != before.get(name)}
    assert changed == {"flow.arrow", "done.json", "dataset.json"}


def test_network_flow_that_a_dataset_holds_is_prepared_before_a_shard_lacks_it(monkeypatch):
    weighed = []
    monkeypatch.setattr("pipelines.flow.prepared", lambda spec: weighed.append(spec) or spec)
    raft = FeatureSpec(flow=FlowSpec(algorithm="raft", raft_weights_sha256="0" * 64))
    before = survey_module.Before(features=raft, done={}, kept={}, growing=[], again=[], stray=[])
    plan = ShardPlan(name="train/00000", split="train", positions=np.arange(1))
    dataset_module._prepared(before, [plan])
    assert weighed == [raft.flow]
