import json
from pathlib import Path

import pytest

from benchmarks.hostile import LARGEST_WORKER_BYTES, no_strace, offences, run_hostile, trace_hostile

pytestmark = pytest.mark.slow


@pytest.fixture
def names(media_fixtures):
    return sorted(json.loads((media_fixtures / "expected.json").read_text())["files"])


def test_all_files_go_through_one_job_with_a_reason_for_each_broken_one(media_fixtures, names, tmp_path):
    made = run_hostile(media_fixtures / "videos", names, tmp_path)
    assert made.unexplained == ()
    assert sum(made.status.values()) == len(names)
    # Streamless containers are odd yet hold nothing; damaged ones may hold something.
    broken = sum(name.startswith("broken/") for name in names)
    assert 0 < made.status["failed"] <= broken
    assert made.peak_process_bytes <= LARGEST_WORKER_BYTES


def test_no_file_makes_the_job_open_another(media_fixtures, names, tmp_path):
    if no_strace():
        pytest.skip(no_strace())
    assert trace_hostile(media_fixtures / "videos", names, tmp_path) == []


def test_a_trace_that_follows_a_playlist_is_an_offence():
    trace = ['7 openat(AT_FDCWD, "/v/a.mp4", O_RDONLY) = 5', '7 openat(AT_FDCWD, "/etc/hostname", O_RDONLY) = 6']
    trace += ["7 connect(8, {sa_family=AF_INET, sin_port=htons(9)}, 16) = -1 ECONNREFUSED"]
    found = offences(trace, videos=Path("/v"), names=["a.mp4"], out=Path("/out"))
    assert [what.split(":")[0] for what in found] == ["network", "opened /etc/hostname"]
