"""The whole chain on clips written here: CSV, manifest, shards, two training workers, table and report."""

import csv
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

from benchmarks.processes import descendants
from gblend.config import BlendConfig, ComputeConfig, InputConfig, ModelConfig, OptimConfig, TrainConfig
from gblend.data import load_run_data
from gblend.group import RAY_PREFIX
from gblend.methods import RunSpec
from gblend.runner import Runner
from gblend.runs import load_runs
from gblend.words import method_name
from gblend.worker import make_plan, train_runs
from jobs.cli import main
from jobs.compare import compare
from jobs.manifest import manifest
from jobs.preprocess import preprocess
from jobs.train import train
from schemas.features import FlowSpec, RgbSpec
from tests.gblend.stops import assert_same_files, assert_same_run
from tests.media import gray_level, steady, tone, write_media

LABELS = ("low", "middle", "high")
METHODS = ("uni:rgb", "uni:logmel", "naive", "dropout", "equal", "offline", "online", "ensemble", "ensemble+naive")

CONFIG = TrainConfig(
    name="test",
    modalities=("rgb", "logmel"),
    epochs=2,
    batch_size=8,
    input=InputConfig(frames=4, crop_px=16, mel_frames=20),
    model=ModelConfig(visual_layers=(1,), visual_width=4, audio_layers=(1,), audio_width=4, fused_hidden=8),
    optim=OptimConfig(name="adamw", learning_rate=0.02),
    blend=BlendConfig(holdout_share=0.25, first_epochs=1, next_epochs=1),
)


UP_TO_THREE = ComputeConfig(workers=3, min_workers=1)
"""The cluster has room for two of them."""


@pytest.fixture(scope="module")
def data(tmp_path_factory, ray_session) -> str:
    """Brightness and pitch both follow the label; one clip has no sound."""
    root = tmp_path_factory.mktemp("chain")
    rows, rng = [], np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2), ("test", 3)):
        for number in range(count):
            for place, label in enumerate(LABELS):
                level = 60 + 60 * place + int(rng.integers(0, 40))
                silent = split == "train" and number == 0 and place == 0
                path = root / "videos" / f"{split}-{label}-{number}.mkv"
                write_media(
                    path,
                    pts_s=steady(0.6),
                    picture=lambda i, level=level: gray_level(level + i, height=32, width=32),
                    sound=None if silent else tone(300.0 * 3**place, seconds=0.6),
                )
                rows.append((path.name, label, split))
    with (root / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    clips = manifest["csv"](
        annotations=str(root / "clips.csv"), videos=str(root / "videos"), out=str(root / "clips.parquet")
    ).place
    return preprocess(
        manifest=clips,
        videos=str(root / "videos"),
        out=str(root / "data"),
        clips_per_shard=10,
        rgb=RgbSpec(fps=10.0, fixed_size_px=(40, 40)),
        flow=FlowSpec(bound_px=4.0),
    ).place


@pytest.fixture(scope="module")
def comparison(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("comparison")
    report = compare(config=CONFIG, data=data, out=str(out), seeds=(0,), compute=UP_TO_THREE)
    assert report.place == f"{out}/report.html"
    advised = json.loads(Path(report.numbers["advised_run"], "result.json").read_text())["method"]
    assert f"Use {method_name(advised)}" in (out / "report.html").read_text()
    return out


@pytest.mark.slow
def test_every_method_is_in_the_table_and_the_report(comparison):
    table = json.loads((comparison / "table.json").read_text())
    assert {row["method"] for row in table["rows"]} == set(METHODS)
    page = (comparison / "report.html").read_text()
    for method in METHODS:
        assert method in page


@pytest.mark.slow
def test_of_the_workers_allowed_those_train_that_there_is_room_for(comparison):
    assert {run.result.workers for run in load_runs(str(comparison)) if "ensemble" not in run.result.method} == {2}


@pytest.mark.slow
def test_every_run_has_scored_every_test_clip(comparison):
    for run in load_runs(str(comparison)):
        assert all(score.count == 9 for score in run.result.scores["test"].values())


@pytest.mark.slow
def test_the_clip_without_sound_is_left_out_and_counted(comparison):
    for run in load_runs(str(comparison)):
        assert run.result.excluded_clips == {"train": 1, "val": 0, "test": 0}
        assert run.result.train_clips + run.result.heldout_clips == 23


@pytest.mark.slow
def test_offline_took_its_start_and_end_losses_from_the_baselines(comparison):
    runs = {run.result.method: run for run in load_runs(str(comparison))}
    (estimate,) = runs["offline"].estimates
    for at, (method, head) in enumerate([("uni:rgb", "rgb"), ("uni:logmel", "logmel"), ("naive", "fused")]):
        history = runs[method].history
        assert estimate.start_valid[at] == history[0].heldout[head].loss_nats
        assert estimate.end_valid[at] == history[-1].heldout[head].loss_nats
        assert estimate.end_train[at] == history[-1].train[head].loss_nats


@pytest.mark.slow
def test_a_second_comparison_keeps_the_finished_runs(comparison, data):
    before = {path: path.stat().st_mtime_ns for path in comparison.glob("runs/*/result.json")}
    assert len(before) == len(METHODS)
    compare(config=CONFIG, data=data, out=str(comparison), seeds=(0,), compute=UP_TO_THREE)
    assert before == {path: path.stat().st_mtime_ns for path in comparison.glob("runs/*/result.json")}


@pytest.fixture(scope="module")
def trained(data, s3_client, tmp_path_factory) -> Path:
    """A copy of an offline run of one worker, fed by Ray Data. Clips and run are on S3."""
    s3_client.create_bucket(Bucket="chain")
    for file in Path(data).rglob("*"):
        if file.is_file():
            s3_client.upload_file(str(file), "chain", f"data/{file.relative_to(data)}")
    place = tmp_path_factory.mktemp("trained")
    compute = ComputeConfig(workers=1, ingest="ray", cache_dir=str(place / "cache"))
    config = replace(CONFIG, epochs=1)
    out = train(config=config, data="s3://chain/data", out="s3://chain/run", method="offline", compute=compute)
    assert out.place == "s3://chain/run"
    fsspec.filesystem("s3").get("chain/run/", str(place / "run"), recursive=True)
    return place / "run"


@pytest.mark.slow
def test_train_writes_one_run_with_its_report_and_keeps_the_probes_below_it(trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {"config.json", "history.jsonl", "weights.jsonl", "result.json", "checkpoint.pt", "report.html"}
    probes = {path.name for path in (trained / "probes").iterdir()}
    assert probes == {"uni-rgb-s0", "uni-logmel-s0", "naive-s0"}


@pytest.mark.slow
def test_nothing_but_the_run_is_left_in_its_place(trained):
    assert [path.name for path in trained.iterdir() if path.name.startswith(RAY_PREFIX)] == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["uni:rgb", "naive"])
def test_a_run_on_s3_fed_by_ray_data_is_the_one_fed_by_its_own_worker(trained, data, tmp_path, method):
    config, run = replace(CONFIG, epochs=1), RunSpec(method=method, seed=0)
    Runner(data=load_run_data(data, config), config=config, data_path=data).run(run, str(tmp_path / "own"))
    # Where the clips are is in its settings.
    assert_same_files(trained / "probes" / run.name, tmp_path / "own", but=("config.json",))


@pytest.mark.slow
def test_a_worker_that_fails_becomes_one_readable_error(data, tmp_path):
    shard = next(Path(data).glob("train/*/rgb.arrow"))
    whole = shard.read_bytes()
    alone = ComputeConfig(workers=1, restarts=0, ingest="ray")
    plan = make_plan(data, CONFIG, ["uni:rgb"], [0], compute=alone, place=lambda run: str(tmp_path / run.name))
    try:
        shard.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(RuntimeError, match=r"rgb\.arrow is not a whole Arrow file") as caught:
            train_runs(plan, alone, storage=str(tmp_path / "ray"))
    finally:
        shard.write_bytes(whole)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_ray_data_without_a_cpu_for_each_worker_is_refused_with_the_remedy(data, tmp_path):
    compute = ComputeConfig(workers=2, ingest="ray")
    plan = make_plan(data, CONFIG, ["uni:rgb"], [0], compute=compute, place=lambda run: str(tmp_path / run.name))
    with pytest.raises(ValueError, match=r"2 workers with 1 each leave 0; add CPU nodes, use fewer workers, or leave"):
        train_runs(plan, compute, storage=str(tmp_path / "ray"))


@contextmanager
def killing_a_worker(run: Path) -> Iterator[list[int]]:
    """Kill one training worker of this process's cluster as soon as a state of the run is whole."""
    killed: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not killed and not done.wait(0.01):
            if any(run.glob("state/*/whole.json")):
                for process in descendants(os.getpid()):
                    if not killed and process.command.startswith("ray::RayTrainWorker"):
                        os.kill(process.pid, signal.SIGKILL)
                        killed.append(process.pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join()


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_ends_as_the_one_of_the_comparison(comparison, data, tmp_path, capsys):
    place = tmp_path / "online"
    plan = make_plan(data, CONFIG, ["online"], [0], compute=ComputeConfig(workers=2), place=lambda run: str(place))
    with killing_a_worker(place) as killed:
        train_runs(plan, ComputeConfig(workers=2, restarts=1, checkpoint_every=1), storage=str(tmp_path / "ray"))
    assert len(killed) == 1
    said = capsys.readouterr().out
    assert "failed: " in said
    assert "online seed 0 was stopped and goes on: " in said
    assert_same_run(place, comparison / "runs" / "online-s0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "bogus"], "unknown method 'bogus'; allowed here: uni:rgb, uni:logmel, naive"),
        (["--modalities", "rgb"], "blending needs at least two modalities"),
        (["--workers", "20"], "18 training clips in batches of 18 (batch_size 16) are too few for 20 workers"),
        (
            ["--blend.fixed-weights", "1", "1", "1"],
            "blend.fixed_weights is read by fixed only, not by uni:rgb, uni:logmel, naive",
        ),
        (["--seeds", "-1"], "seeds must not be negative, got -1"),
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
    ],
)
def test_a_wrong_setting_costs_one_clear_line(data, tmp_path, capsys, arguments, message):
    line = ["compare", "small-cpu", "--data", data, "--out", str(tmp_path), "--modalities", "rgb", "logmel", *arguments]
    assert main(line) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_a_value_out_of_range_names_the_flag_the_value_and_what_is_allowed(data, tmp_path, capsys):
    line = ["compare", "small-cpu", "--data", data, "--out", str(tmp_path), "--blend.holdout-share", "0.7"]
    assert main(line) == 2
    assert "blend.holdout_share must be in (0, 0.5), got 0.7" in capsys.readouterr().err


def test_a_directory_that_is_no_data_set_is_named(tmp_path, capsys):
    assert main(["compare", "small-cpu", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "is not a finished data set; rerun `gblend preprocess`" in capsys.readouterr().err


def test_a_misspelt_recipe_is_wrong_usage_with_a_suggestion(capsys):
    assert main(["compare", "smal-cpu", "--data", "x", "--out", "y"]) == 2
    assert "did you mean 'small-cpu'?" in capsys.readouterr().err
