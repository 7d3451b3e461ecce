import json
from pathlib import Path

import pytest

from benchmarks.hostile import LARGEST_WORKER_BYTES, no_strace, offences, run_hostile, trace_hostile

READABLE = {
    "broken/bitflips_40.mp4",
    "broken/header_says_10h.mp4",
    "broken/mdat_cut_half.mp4",
    "broken/mkv_named.mp4",
    "broken/neighbour.ts",
    "broken/zero_hole.mp4",
}
"""Damaged or misnamed files that are not beyond reading."""

pytestmark = pytest.mark.slow


@pytest.fixture
def names(media_fixtures):
    return sorted(json.loads((media_fixtures / "expected.json").read_text())["files"])


def test_all_files_go_through_one_job_with_a_reason_for_each_broken_one(media_fixtures, names, tmp_path):
    made = run_hostile(media_fixtures / "videos", names, tmp_path)
    assert made.unexplained == ()
    assert sum(made.status.values()) == len(names)
    # One is odd, a container without streams; of the damaged ones some hold what can be decoded.
    other = {name: why for name, why in made.failed.items() if why != "open unreadable"}
    assert other == {
        "broken/declared_16384.avi": "video no-frames",
        "broken/huge_16000.mp4": "open too-large",
        "broken/no_samples.mp4": "video no-frames",
        "odd/pymediainfo_mpeg4.mp4": "open no-streams",
    }
    readable = {name for name in names if name.startswith("broken/")} - set(made.failed)
    assert readable == READABLE
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
