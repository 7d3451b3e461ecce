import os

import pytest

from gblend.config import ComputeConfig
from jobs.cache import with_cache


def test_workers_get_the_directory_of_the_cache_as_it_is_seen_from_the_job(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert with_cache(ComputeConfig(cache_dir="copies"), "memory://data").cache_dir == os.path.join(tmp_path, "copies")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("directory", "said"), [("/copies", True), (None, False)])
def test_a_cache_that_is_asked_for_and_has_no_use_is_told_of(tmp_path, capsys, directory, said):
    assert with_cache(ComputeConfig(cache_dir=directory), str(tmp_path)).cache_dir == directory
    line = f"--cache-dir /copies is not used: {tmp_path} is a path, which is read in place\n"
    assert capsys.readouterr().out == (line if said else "")


def test_a_cache_is_no_url():
    with pytest.raises(ValueError, match="cache_dir must be a directory on a local disk, got s3://bucket/copies"):
        ComputeConfig(cache_dir="s3://bucket/copies")
