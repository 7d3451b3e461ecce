"""`gblend predict`: a file says what its shard says; what cannot be predicted is a line and not the end."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gblend.evaluation import measure_views, open_evaluation
from gblend.prediction import clip_from, modalities_of
from gblend.prediction import predict as ask
from gblend.predictions import ways
from gblend.trained import load_trained
from gblend.views import Views
from jobs.cli import main
from jobs.predict import Source, decode, decode_job
from pipelines.shards import ShardJob, write_shard
from pipelines.source import DecodeLimits
from schemas import DatasetInfo, FeatureSpec, FlowSpec, RgbSpec, ShardEntry, TensorSpec, manifest_schema, shard_name
from tests.gblend.evaluated import ACTION, CONFIG, EVENT, train_on
from tests.media import gray_level, steady, tone, write_media

FEATURES = FeatureSpec(rgb=RgbSpec(fps=10.0, short_side_px=16), flow=FlowSpec(bound_px=4.0))
TASKS = (ACTION, EVENT)
COUNTS = {"train": 12, "val": 3, "test": 4}
VIEWS = Views(clips=3, crops="three")


def picture(i: int, level: int) -> np.ndarray:
    image = gray_level(level, height=24, width=32)
    image[4:12, (2 * i) % 24 : (2 * i) % 24 + 8] = 255
    return image


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[str, Path]:
    """A data set made by the pipeline, and its videos; one of test has no sound, one of each split is short."""
    root = tmp_path_factory.mktemp("predict")
    videos, entries = root / "videos", []
    job = ShardJob(out=str(root / "data"), videos=str(videos), features=FEATURES, limits=DecodeLimits())
    for split, count in COUNTS.items():
        rows = []
        for i in range(count):
            seconds = 0.3 if i == 1 else 0.9
            name = f"{split}-{i}.mkv"
            write_media(
                videos / name,
                pts_s=steady(seconds),
                picture=lambda at, i=i: picture(at, 40 + 60 * (i % 3)),
                sound=None if split == "test" and i == 2 else tone(300.0 * (1 + i % 3), seconds=seconds),
            )
            labels = {"label.action": i % 3, "label.event": [at for at in (0, 1) if (i + at) % 2]}
            rows.append({"clip_id": name, "uri": name, "split": split, "group": name, **labels})
        write_shard(shard_name(split, 0), pa.Table.from_pylist(rows, manifest_schema(TASKS)), job)
        entries.append(ShardEntry(split=split, name=shard_name(split, 0), clips=count))
    info = DatasetInfo(tasks=TASKS, features=FEATURES, shards=tuple(entries), counts={}, present={}, versions={})
    (root / "data" / "dataset.json").write_text(info.dumps())
    return str(root / "data"), videos


@pytest.fixture(scope="module")
def equal(made, tmp_path_factory) -> str:
    return train_on(made[0], tmp_path_factory.mktemp("equal"), "equal")


def predicted(run: str, file: Path, views: Views = VIEWS):
    trained = load_trained(run)
    job = decode_job(trained, limits=DecodeLimits())
    found = decode(Source(name="", root=str(file.parent), uri=file.name), job)
    return ask(trained, clip_from(dict(found.batches), trained, frames=found.presence["frames"]), views)


def of_shards(run: str, data: str) -> list[dict[str, np.ndarray]]:
    """Per clip of test, what evaluation averages and joins."""
    trained, test = open_evaluation(run, data, "test", VIEWS)
    clips = [{} for _ in test.clips.index.clip_ids]
    for key, outputs in measure_views(trained.model, test.clips, spec=trained.spec).items():
        said = {head: (outputs.log_probs[at], outputs.counted[at]) for at, head in enumerate(outputs.heads)}
        if trained.choices:
            joined = ways(outputs, trained.choices[key])
            said |= {way: (one.log_probs, one.answered) for way, one in joined}
        if trained.refitted is not None:
            again = measure_views(trained.refitted, test.clips, spec=trained.spec)[key]
            said["refit"] = again.log_probs[0], again.counted[0]
        for name, (log_probs, counted) in said.items():
            for at in np.flatnonzero(counted):
                clips[at][f"{key}/{name}"] = np.exp(log_probs[at])
    return clips


def test_a_file_says_what_the_shard_made_of_it_says(made, equal):
    data, videos = made
    for number, expected in enumerate(of_shards(equal, data)):
        found = predicted(equal, videos / f"test-{number}.mkv").probabilities
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4, err_msg=name)


def test_a_network_of_pictures_alone_is_asked_at_the_same_moments_without_computing_flow(made, tmp_path):
    data, videos = made
    run = train_on(data, tmp_path, "uni:rgb", replace(CONFIG, epochs=1))
    assert modalities_of(load_trained(run)) == ("rgb",)
    for number, expected in enumerate(of_shards(run, data)):
        found = predicted(run, videos / f"test-{number}.mkv").probabilities
        assert found.keys() == expected.keys() == {"action/rgb", "event/rgb"}
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4)


@pytest.mark.parametrize("policy", ["zero", "drop"])
def test_without_sound_heads_that_need_it_say_so_and_the_fused_one_follows_the_policy(made, equal, policy):
    trained = load_trained(equal)
    trained = replace(trained, config=replace(trained.config, missing=policy))
    job = decode_job(trained, limits=DecodeLimits())
    row = decode(Source(name="", root=str(made[1]), uri="test-2.mkv"), job)
    found = ask(trained, clip_from(dict(row.batches), trained, frames=row.presence["frames"]), VIEWS)
    needs_all = {f"{task}/{way}" for task in ("action", "event") for way in ("fused", "refit")}
    silent = {"action/logmel", "event/logmel"} | (needs_all if policy == "drop" else set())
    assert found.missing.keys() == silent
    assert found.missing["event/logmel"] == "no sound"
    if policy == "drop":
        assert found.missing["action/fused"].startswith("no sound (trained with --missing drop")
    assert {"action/rgb", "action/stack", "event/mean"} <= found.probabilities.keys()


def test_a_column_of_the_users_own_cannot_come_from_a_video(equal):
    trained = load_trained(equal)
    spec = TensorSpec(shape=(2,), mean=(0.0, 0.0), sd=(1.0, 1.0), sha256="")
    trained = replace(trained, inputs=replace(trained.inputs, columns={"logmel": spec}))
    with pytest.raises(ValueError, match="reads 'logmel', a column of your own, which a video file does not hold"):
        modalities_of(trained)


def lines_of(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_classes_come_by_name_the_likeliest_first(made, equal, capsys):
    assert main(["predict", "--run", equal, "--top", "2", "--clips", "1", str(made[1] / "test-0.mkv")]) == 0
    (line,) = lines_of(capsys)
    best = line["predictions"]["action/stack"]
    full = predicted(equal, made[1] / "test-0.mkv", Views(clips=1)).probabilities["action/stack"]
    order = np.argsort(-full)[:2]
    assert [one["class"] for one in best] == [ACTION.classes[at] for at in order]
    assert [one["probability"] for one in best] == pytest.approx(full[order], rel=1e-5)
    assert {one["class"] for one in line["predictions"]["event/fused"]} == set(EVENT.classes)
    assert (line["predict_by"], line["duration_s"]) == ("stack", pytest.approx(0.88))  # 22 frames, 25 a second


def test_a_file_that_fails_is_a_line_and_the_job_goes_on(made, equal, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 5000)
    (tmp_path / "empty").mkdir()
    files = [str(tmp_path / "broken.mp4"), "/nowhere/x.mp4", str(tmp_path / "empty"), str(made[1] / "test-1.mkv")]
    assert main(["predict", equal, *files]) == 0  # the run as the first of the files
    lines = lines_of(capsys)
    assert [line["file"] for line in lines] == files
    assert [line.get("reason") for line in lines] == ["unreadable", "missing-file", "missing-file", None]
    assert lines[1]["error"] == "there is no file /nowhere/x.mp4"
    assert lines[2]["error"] == "the folder holds no media file"
    assert main(["predict", "--run", equal, files[0]]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["reason"] == "unreadable"
    assert captured.err == "error: none of the 1 files could be predicted; the lines above say why\n"


def test_a_folder_a_list_and_a_link_are_what_they_name(made, equal, tmp_path, capsys, monkeypatch):
    videos = made[1]
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "notes.txt").write_text("no video")
    (folder / "inner" / "a.mkv").write_bytes((videos / "test-0.mkv").read_bytes())
    (folder / "out.mkv").symlink_to(videos / "test-0.mkv")
    (tmp_path / "link.mkv").symlink_to(videos / "test-0.mkv")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{tmp_path / 'link.mkv'}\n\n"))
    assert main(["predict", "--run", equal, "--clips", "1", str(folder), "-"]) == 0
    lines = lines_of(capsys)
    assert [line["file"] for line in lines] == [
        f"{folder}/inner/a.mkv",
        f"{folder}/out.mkv",
        f"{tmp_path}/link.mkv",
    ]
    # What is found in a folder must not lead out of it; what somebody names may.
    assert [line.get("reason") for line in lines] == [None, "outside-root", None]
    assert lines[0]["predictions"] == lines[2]["predictions"]


def test_the_lines_can_go_to_a_file_which_is_then_the_result(made, equal, tmp_path, capsys):
    file, out = str(made[1] / "test-3.mkv"), tmp_path / "new" / "found.jsonl"
    assert main(["predict", "--run", equal, file]) == 0
    printed = capsys.readouterr().out
    assert main(["predict", "--run", equal, "--out", str(out), file]) == 0
    assert (capsys.readouterr().out, out.read_text()) == (f"{out}\n", printed)


def test_a_document_has_all_files_those_that_fail_as_well(made, equal, tmp_path, capsys):
    file = str(made[1] / "test-3.mkv")
    assert main(["predict", equal, file, "/nowhere/x.mp4", "--clips", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["result"], document["predicted"], document["failed"]) == (None, 1, 1)
    assert [line["file"] for line in document["files"]] == [file, "/nowhere/x.mp4"]
    assert "there is no file /nowhere/x.mp4" in err
    assert main(["predict", equal, "/nowhere/x.mp4", "--json"]) == 1
    assert capsys.readouterr().out == ""


def test_a_table_has_a_row_for_every_head_and_says_which_is_silent(made, equal, capsys):
    assert main(["predict", "--run", equal, "--format", "table", str(made[1] / "test-2.mkv")]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0] for line in out.splitlines() if line.startswith("  ") and line.strip()}
    assert {"action/rgb", "event/stack", "action/refit"} <= rows
    assert "action/logmel: no answer, no sound" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a run and at least one file: gblend predict --run RUN FILE..."),
        (["--top", "0", "x.mp4"], "top must be at least 1, got 0"),
        (["s3://user:secret@bucket/x.mp4"], "a URL must not hold credentials"),
    ],
)
def test_wrong_usage_is_one_line(equal, capsys, arguments, message):
    assert main(["predict", "--run", equal, *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "secret" not in error
