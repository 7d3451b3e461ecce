import os

import pytest

from gblend.config import ComputeConfig
from jobs.cache import with_cache


def test_workers_get_the_directory_of_the_cache_as_it_is_seen_from_the_job(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert with_cache(ComputeConfig(cache_dir="copies"), "memory://data").cache_dir == os.path.join(tmp_path, "copies")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cache_dir": "/copies"}, "--cache-dir /copies is not used: "),
        ({"cache_gib": 2.5}, "--cache-gib 2.5 is not used: "),
        ({"cache_dir": "/copies", "cache_gib": 20.0}, "--cache-dir /copies and --cache-gib 20 are not used: "),
        ({}, ""),
    ],
)
def test_a_cache_that_is_asked_for_and_has_no_use_is_told_of(tmp_path, capsys, given, said):
    assert with_cache(ComputeConfig(**given), str(tmp_path)) == ComputeConfig(**given)
    line = f"{said}{tmp_path} is a path, which is read in place\n"
    assert capsys.readouterr().out == (line if said else "")


def test_the_size_of_a_cache_that_is_used_is_not_told_of(capsys):
    assert with_cache(ComputeConfig(cache_gib=2.5), "memory://data") == ComputeConfig(cache_gib=2.5)
    assert capsys.readouterr().out == ""


def test_a_cache_is_no_url():
    with pytest.raises(ValueError, match="cache_dir must be a directory on a local disk, got s3://bucket/copies"):
        ComputeConfig(cache_dir="s3://bucket/copies")
