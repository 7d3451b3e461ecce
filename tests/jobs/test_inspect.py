import json

import pytest

from jobs.cli import main, run
from jobs.inspect import inspect
from tests.gblend.synthetic_data import write_dataset


def test_tables_come_first_and_the_sheet_is_the_last_line(tmp_path, capsys):
    write_dataset(tmp_path / "data")
    sheet = str(tmp_path / "new" / "sheet.png")
    assert main(["inspect", str(tmp_path / "data"), "--contact-sheet", sheet]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == sheet
    assert lines[0].startswith(f"{tmp_path / 'data'}: 6 clips, 2 failed, 1 skipped")
    assert (tmp_path / "new" / "sheet.png").stat().st_size > 1000


def test_data_and_sheet_may_be_named_as_other_jobs_name_them(tmp_path, capsys):
    write_dataset(tmp_path / "data")
    assert run(inspect, ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "sheet.png")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "sheet.png")


def test_json_is_one_document_and_nothing_else(tmp_path, capsys):
    write_dataset(tmp_path / "data")
    sheet = str(tmp_path / "sheet.png")
    assert run(inspect, [str(tmp_path / "data"), "--json", "--contact-sheet", sheet]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(loss["reason"], loss["clips"]) for loss in document["ledger"]] == [("unreadable", 2), ("duplicate", 1)]
    assert document["result"] == sheet
    assert document["findings"][0] == "3 of 9 clips are lost: 2 failed, 1 skipped"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name one data set: gblend inspect DATA"),
        (["a", "--data", "b"], "name one data set: gblend inspect DATA"),
        (["nowhere"], "nowhere/dataset.json does not exist: "),
        (["nowhere", "--clips", "a"], "clips are for the picture; name its file with --contact-sheet FILE.png"),
    ],
)
def test_what_cannot_be_inspected_is_one_clear_line(arguments, message, capsys):
    assert run(inspect, arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_sheet_that_cannot_be_drawn_leaves_nothing_on_standard_output(tmp_path, capsys):
    write_dataset(tmp_path / "data")
    assert run(inspect, [str(tmp_path / "data"), "--contact-sheet", str(tmp_path / "sheet.gif")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "sheet.gif has another suffix" in captured.err


def test_a_data_set_in_a_bucket_is_what_the_local_one_is(tmp_path, capsys, s3_client, s3_bucket):
    write_dataset(tmp_path / "data")
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file():
            s3_client.upload_file(str(path), s3_bucket, f"data/{path.relative_to(tmp_path / 'data')}")
    documents = []
    for place in (str(tmp_path / "data"), f"s3://{s3_bucket}/data/"):
        assert run(inspect, [place, "--json"]) == 0
        documents.append(json.loads(capsys.readouterr().out))
    local, remote = documents
    assert remote == {**local, "data": f"s3://{s3_bucket}/data"}
