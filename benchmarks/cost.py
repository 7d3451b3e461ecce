"""What 1,000 clips cost here, and what that implies for whole data sets, with the assumptions beside the numbers.

The measured clip is one of Kinetics or AudioSet as they are usually kept: 10 s, 340 x 256, 30 frames/s. For 1080p the
bare loop is timed on two files made for it, and divided by the job's share of the bare loop's speed.
"""

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.job import ROOT, environment
from benchmarks.media import write_clips
from benchmarks.table import table

if TYPE_CHECKING:
    from benchmarks.preprocess import Bench, Cost

HD_SECONDS = 6.0

EPIC_VIDEO_S = 100 * 3600.0
EPIC_SEGMENTS = 90_000
EPIC_SEGMENT_S = 3.1


def cost_report(bench: "Bench", job: "Cost", *, share: float) -> str:
    """Two tables: measured, and implied. ``share`` is the job's of the bare loop's speed."""
    clips = bench.clips
    megabytes = {
        name: sum(path.stat().st_size for path in (bench.folder / "job").rglob(pattern)) / 1e6 * 1000 / clips
        for name, pattern in (("rgb", "rgb.arrow"), ("flow", "flow.arrow"), ("log-mel", "logmel.arrow"), ("all", "*"))
    }
    cpu_s = 1000 * job.steady_s
    measured = [["CPU s", cpu_s], ["core hours", cpu_s / 3600], ["start, CPU s once a job", job.start_s]]
    measured += [[f"MB written, {name}", value] for name, value in megabytes.items()]
    hd = time_hd(bench)
    reading_s, storing_s = hd["decode"] + hd["sound"], sum(hd.values()) - hd["decode"] - hd["sound"]
    epic_hours = (reading_s * EPIC_VIDEO_S + storing_s * EPIC_SEGMENTS * EPIC_SEGMENT_S) / share / 3600
    per_second = megabytes["all"] / 1000 / 10
    rows = [
        _implied("Kinetics-400", 240_000, job, megabytes["all"], "10 s at 340 x 256, 30 frames/s, as measured"),
        _implied("AudioSet", 2_000_000, job, megabytes["all"], "10 s kept at 340 x 256, 30 frames/s, as measured"),
        [
            "EPIC-KITCHENS-100",
            EPIC_SEGMENTS,
            epic_hours,
            epic_hours / 64,
            EPIC_SEGMENTS * EPIC_SEGMENT_S * per_second / 1e3,
            f"100 h of 1080p at 50 frames/s read once, {EPIC_SEGMENTS:,} segments of {EPIC_SEGMENT_S} s stored; "
            f"1080p measured in the bare loop ({reading_s:.2f} CPU s a second to read), over {share:.2f}",
        ],
    ]
    headers = ["data set", "clips", "core hours", "hours on 64 cores", "GB", "assumptions"]
    return "\n".join(["", "cost of 1,000 clips", "", table(["what", "value"], measured), "", table(headers, rows)])


def _implied(name: str, clips: int, job: "Cost", megabytes: float, assumptions: str) -> list[object]:
    hours = clips * job.steady_s / 3600
    return [name, clips, hours, hours / 64, clips / 1000 * megabytes / 1e3, assumptions]


def time_hd(bench: "Bench") -> dict[str, float]:
    """CPU seconds by stage for one second of 1080p at 50 frames/s, in the bare loop."""
    videos = bench.fresh("videos-hd")
    write_clips(videos, clips=2, distinct=2, seconds=HD_SECONDS, height=1080, width=1920, fps=50)
    command = [sys.executable, "-m", "benchmarks.bare_loop", str(videos), str(bench.fresh("loop-hd")), "1"]
    done = subprocess.run(command, env=environment(), cwd=ROOT, check=True, capture_output=True, text=True)
    spent_s = json.loads(done.stdout)["spent_s"]
    return {stage: value / (2 * HD_SECONDS) for stage, value in spent_s.items()}
