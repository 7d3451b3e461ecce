"""What is wrong with a URL is one line, whichever job it is given to."""

import sys

import fsspec
import pytest

from gblend import storage
from jobs.cli import main

SECRET = "s3://AKIAKEY:secret@bucket/x"

COMMANDS = {
    "train": ["train", "small-cpu", "--data", "DATA", "--out", "OUT"],
    "compare": ["compare", "small-cpu", "--data", "DATA", "--out", "OUT"],
    "tune": ["tune", "small-cpu", "--data", "DATA", "--out", "OUT"],
    "evaluate": ["evaluate", "--run", "DATA", "--out", "OUT"],
    "report": ["report", "DATA", "--out", "OUT"],
}


def command(job: str, *, data: str, out: str) -> list[str]:
    return [{"DATA": data, "OUT": out}.get(word, word) for word in COMMANDS[job]]


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("job", COMMANDS)
@pytest.mark.parametrize("where", ["data", "out"])
def test_credentials_in_a_url_are_refused_without_repeating_them(job, where, tmp_path, capsys):
    given = {"data": str(tmp_path / "data"), "out": str(tmp_path / "out"), where: SECRET}
    assert main(command(job, **given)) == 1
    line = told(capsys)
    assert line.startswith("error: a URL must not hold credentials (s3://...); give them in the environment")
    assert not any(part in line for part in ("AKIAKEY", "secret@"))


@pytest.mark.parametrize("job", COMMANDS)
def test_a_client_that_is_not_installed_is_one_line(job, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert main(command(job, data="gs://bucket/data", out=str(tmp_path / "out"))) == 1
    assert "pip install 'gcsfs'" in told(capsys)


@pytest.fixture
def lost(monkeypatch):
    """S3 where nobody answers, and no time that passes while waiting."""
    s3 = pytest.importorskip("s3fs").S3FileSystem
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    s3.clear_instance_cache()
    yield
    s3.clear_instance_cache()


@pytest.mark.parametrize("job", ["train", "report"])
def test_a_store_that_does_not_answer_is_one_line(job, lost, tmp_path, capsys):
    assert main(command(job, data="s3://bucket/data", out=str(tmp_path / "out"))) == 1
    line = told(capsys)
    assert line.startswith("error: s3://bucket/data")
    assert "cannot be used, 4 attempts failed: EndpointConnectionError; check the network" in line
    assert "127.0.0.1" not in line


def test_missing_credentials_are_one_line(lost, tmp_path, capsys, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert main(command("train", data="s3://bucket/data", out=str(tmp_path / "out"))) == 1
    assert "s3://bucket/data/dataset.json cannot be used: there are no credentials; give them" in told(capsys)
