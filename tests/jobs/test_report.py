import html
import shlex
from pathlib import Path

import pytest

from gblend.records import write_json
from jobs.cli import run
from jobs.recipes import small_cpu
from jobs.report import report
from tests.gblend.synthetic import history, result, write_run
from tests.gblend.synthetic_data import write_dataset

INPUT = {
    "frames": 2,
    "frame_step": 1,
    "scale_px": None,
    "crop_px": 8,
    "mel_frames": 10,
    "mel_alignment": "stretch",
    "flip": "none",
}


def write_comparison(directory: Path, data: Path | str) -> None:
    for method, accuracy in (("naive", 0.4), ("equal", 0.5)):
        config = {"method": method, "data": str(data), "input": INPUT}
        write_run(
            directory / "runs" / f"{method}-s0",
            result(method, 0, {"fused": accuracy}),
            history(("fused",), {}),
            config=config,
        )


def test_a_comparison_directory_becomes_a_page_with_clips_and_data(tmp_path: Path, capsys):
    write_dataset(tmp_path / "data")
    write_comparison(tmp_path / "cmp", tmp_path / "data")
    out = str(tmp_path / "page.html")
    assert run(report, [str(tmp_path / "cmp"), "--out", out]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == out
    text = Path(out).read_text(encoding="utf-8")
    assert 'data-method="naive"' in text
    assert 'data-method="equal"' in text
    assert text.count('class="clip"') == 4
    assert "rgb, 2 frames" in text
    assert "bad0: moov missing" in text
    assert f"gblend report {tmp_path / 'cmp'} --out {out}" in text


def test_the_page_ends_with_the_command_that_trains_these_runs_and_the_one_that_made_the_page(tmp_path: Path):
    write_dataset(tmp_path / "data")
    for seed in (0, 1):
        config = {**small_cpu().to_json(), "epochs": 7, "method": "equal", "data": str(tmp_path / "data")}
        place = tmp_path / "cmp" / "runs" / f"equal-s{seed}"
        write_run(place, result("equal", seed, {"fused": 0.5}), history(("fused",), {}), config=config)
    assert run(report, [str(tmp_path / "cmp"), "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    trained = f"gblend compare small-cpu --data {tmp_path}/data --out OUT --methods equal --seeds 0 1 --epochs 7"
    assert f"{trained}\ngblend report {tmp_path}/cmp" in text


def test_the_command_of_a_page_has_all_that_the_page_was_made_with(tmp_path: Path):
    write_dataset(tmp_path / "moved")
    write_comparison(tmp_path / "cmp", tmp_path / "nowhere")
    given = [str(tmp_path / "cmp"), "--title", "My study", "--data", f"{tmp_path}/moved", "--clips-per-split", "1"]
    out = ["--out", str(tmp_path / "page.html")]
    assert run(report, [*given, *out]) == 0
    shown = html.unescape((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert shlex.join(["gblend", "report", given[0], *out, *given[1:]]) in shown


def test_runs_and_data_on_s3_become_the_page_that_local_ones_become(tmp_path: Path, s3_client, s3_bucket):
    write_dataset(tmp_path / "s3" / "data")
    write_comparison(tmp_path / "s3" / "cmp", f"s3://{s3_bucket}/data")
    for path in (tmp_path / "s3").rglob("*"):
        if path.is_file():
            s3_client.upload_file(str(path), s3_bucket, str(path.relative_to(tmp_path / "s3")))
    out = f"s3://{s3_bucket}/page.html"
    assert report((f"s3://{s3_bucket}/cmp",), out=out).place == out
    text = s3_client.get_object(Bucket=s3_bucket, Key="page.html")["Body"].read().decode()
    assert 'data-method="naive"' in text
    assert text.count('class="clip"') == 4


def test_single_runs_are_put_side_by_side(tmp_path: Path):
    write_comparison(tmp_path / "cmp", tmp_path / "nowhere")
    runs = [str(tmp_path / "cmp" / "runs" / name) for name in ("naive-s0", "equal-s0")]
    assert run(report, [*runs, "--out", str(tmp_path / "page.html")]) == 0
    assert 'data-method="equal"' in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_data_that_cannot_be_reached_and_unfinished_runs_are_said_on_the_page(tmp_path: Path):
    write_comparison(tmp_path / "cmp", tmp_path / "nowhere")
    write_json(str(tmp_path / "cmp" / "runs" / "online-s0" / "config.json"), {})
    out = report((str(tmp_path / "cmp"),), out=str(tmp_path / "page.html")).place
    text = Path(out).read_text(encoding="utf-8")
    assert "Sample clips and the data section are left out" in text
    assert "Not finished, so not on this page: online-s0." in text
    assert 'id="data"' not in text


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["{tmp}/absent"], 1, "does not exist"),
        (["{tmp}/empty"], 1, "holds no result.json"),
        (["{tmp}/cmp", "--data", "{tmp}/empty"], 1, "is not a finished data set"),
        (["{tmp}/cmp", "{tmp}/cmp"], 1, "two runs of"),
        ([], 1, "no run given"),
        (["{tmp}/cmp", "--oot", "x"], 2, "--out"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(tmp_path: Path, capsys, arguments, status, message):
    (tmp_path / "empty").mkdir()
    write_comparison(tmp_path / "cmp", tmp_path / "nowhere")
    filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    assert run(report, [*filled, "--out", str(tmp_path / "page.html")][: len(filled) + 2]) == status
    error = capsys.readouterr().err
    assert message in error
    if status == 1:
        assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "page.html").exists()
