"""A slash at the end of a URL names no other place: jobs on S3, the worker group replaced by this process."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

import jobs.evaluate
import jobs.train
from gblend.data import load_run_data
from gblend.evaluation import evaluate, open_evaluation
from gblend.records import to_json, write_json
from gblend.runner import Runner
from jobs.places import absolute
from tests.gblend.evaluated import CONFIG, write_noisy


def train_here(plan, compute, *, storage, more, say, step):
    runner = Runner(data=load_run_data(plan.data, plan.config), config=plan.config, data_path=plan.data)
    for run, directory in plan.places.items():
        runner.run(run, directory)


def evaluate_here(job, compute, *, storage, say, step):
    write_json(job.out, to_json(evaluate(*open_evaluation(job.run, job.data, job.split, job.views))))


@pytest.fixture
def here(monkeypatch) -> None:
    for module in (jobs.train, jobs.evaluate):
        monkeypatch.setattr(module, "connect", nullcontext)
    monkeypatch.setattr(jobs.train, "train_runs", train_here)
    monkeypatch.setattr(jobs.evaluate, "evaluate_run", evaluate_here)


def test_a_run_on_s3_is_found_again_whether_urls_end_with_a_slash_or_not(
    here, s3_client, s3_bucket, tmp_path: Path, capsys
):
    local = Path(write_noisy(tmp_path / "data"))
    for path in filter(Path.is_file, local.rglob("*")):
        s3_client.put_object(Bucket=s3_bucket, Key=f"data/{path.relative_to(local)}", Body=path.read_bytes())
    url = f"s3://{s3_bucket}"
    said = []
    for end in ("/", ""):
        jobs.train.train(
            config=replace(CONFIG, epochs=1), data=f"{url}/data{end}", out=f"{url}/run{end}", method="uni:logmel"
        )
        said.append(capsys.readouterr().out)
    assert ["to train: 1 run" in lines for lines in said] == [True, False]
    for end in ("/", ""):
        assert jobs.evaluate.evaluate(run=f"{url}/run{end}", data=f"{url}/data{end}", clips=1).place == (
            f"{url}/run/evaluation/test-1xcentre.json"
        )
    keys = [item["Key"] for item in s3_client.list_objects_v2(Bucket=s3_bucket)["Contents"]]
    assert {"run/config.json", "run/result.json", "run/report.html"} <= set(keys)
    assert not [key for key in keys if "//" in key]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("s3://bucket/run//", "s3://bucket/run"), ("gs://bucket/", "gs://bucket"), ("/runs/a/", "/runs/a")],
)
def test_what_ends_with_a_slash_means_what_ends_without(typed, meant):
    assert absolute(typed) == absolute(meant) == meant
