"""Clips per CPU-second of the preprocessing job, against a bare loop that does the same work on the same files.

    python -m benchmarks.preprocess [--clips 96] [--repeats 3] [--check]        (about five minutes on two idle cores)

Files: 10 s, 340 x 256, 30 frames/s, H.264 + AAC, textured and moving, made on the spot and not timed. Counted is the
user and system time of every process: driver, Ray, workers, decoders. The headline is the steady state: what a clip
costs in the second half of the bytes written, to the end of the last file. Starting Ray, Python and torch is paid once
a job, be it of a hundred clips or of two million, and would here be most of what is measured; it has a column of its
own, and so has the whole run. What a CPU second is worth changes with what else the machine does, so job and loop
alternate, each run of the job is compared with the loops before and after it, and the median of the ratios counts.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bare_loop import STAGES
from benchmarks.job import ROOT, bytes_below, checksums, environment, make_manifest, preprocess_command, tail
from benchmarks.media import write_clips
from benchmarks.nodes import simulated_nodes
from benchmarks.processes import Usage, run_measured
from benchmarks.rivals import RIVALS
from benchmarks.table import table

BUDGET = 0.90
"""Least share of the bare loop's clips per CPU-second."""

SECONDS = 10.0
CLIPS_PER_SHARD = 12
"""Small, so that few clips make several shards; the default of 256 spreads the cost of a shard over more clips."""

DISTINCT = 12

STAGE_OF_FILE = (
    ("encode.py", "jpeg"),
    ("flow.py", "flow"),
    ("logmel.py", "mel"),
    ("audio.py", "sound"),
    ("picture.py", "decode"),
    ("reading.py", "decode"),
    ("container.py", "decode"),
    ("take.py", "decode"),
    ("decode.py", "decode"),
    ("clip.py", "check"),
    ("decoder_process.py", "transfer"),
    ("messages.py", "transfer"),
    ("decoder.py", "transfer"),
    ("store.py", "write"),
    ("shards.py", "write"),
)
"""Which stage a stack frame belongs to; the first that matches from the innermost frame outwards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Where the files are and how many."""

    folder: Path
    """Scratch directory."""
    clips: int
    """How many files there are."""
    processes: int
    """Cores to use."""

    def videos(self, part: int = 1) -> Path:
        """The folder of the first 1/``part`` of the files."""
        return self.folder / f"videos-{self.clips // part}"

    def manifest(self, part: int = 1) -> Path:
        """Its manifest."""
        return self.folder / f"clips-{self.clips // part}.parquet"

    def fresh(self, name: str) -> Path:
        """A directory that does not exist."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a run over some clips has cost."""

    clips: int
    """How many."""
    used: Usage
    """The run, with the bytes written as its gauge."""

    @property
    def steady_by_kind(self) -> dict[str, float]:
        """CPU seconds a clip in the second half of the bytes, by kind of process."""
        trace = self.used.trace
        whole = trace[-1].progress
        half = next(reading for reading in trace if reading.progress >= whole / 2)
        end = next(reading for reading in trace if reading.progress >= whole)
        clips = self.clips * (end.progress - half.progress) / whole
        return {kind: (s - half.cpu_s_by_kind.get(kind, 0.0)) / clips for kind, s in end.cpu_s_by_kind.items()}

    @property
    def steady_s(self) -> float:
        """CPU seconds that a further clip costs."""
        return sum(self.steady_by_kind.values())

    @property
    def start_s(self) -> float:
        """CPU seconds paid once: what the run took beyond that."""
        return self.used.cpu_s - self.clips * self.steady_s


def prepare(folder: Path, clips: int) -> Bench:
    """Make the files and manifests of all of them and of a half and a quarter."""
    bench = Bench(folder=folder, clips=clips, processes=len(os.sched_getaffinity(0)))
    names = write_clips(bench.videos(), clips=clips, distinct=DISTINCT, seconds=SECONDS)
    for part in (1, 2, 4):
        some = names[: clips // part]
        if part > 1:
            bench.videos(part).mkdir()
            for name in some:
                os.link(bench.videos() / name, bench.videos(part) / name)
        make_manifest(some, videos=bench.videos(part), out=bench.manifest(part))
    return bench


def run_job(bench: Bench, part: int = 1, *, address: str | None = None) -> Cost:
    """The job over 1/``part`` of the clips."""
    out = bench.fresh("job")
    command = preprocess_command(bench.manifest(part), bench.videos(part), out, clips_per_shard=CLIPS_PER_SHARD)
    cost = _run(bench, command, out, part, log="job.log", address=address)
    if cost is None:
        raise RuntimeError(f"the job failed: {tail(bench.folder / 'job.log')}")
    return cost


def run_loop(bench: Bench) -> Cost:
    """The bare loop; its own account is the last line of loop.log."""
    out = bench.fresh("loop")
    command = [sys.executable, "-m", "benchmarks.bare_loop", str(bench.videos()), str(out), str(bench.processes)]
    cost = _run(bench, command, out, 1, log="loop.log")
    if cost is None:
        raise RuntimeError(f"the bare loop failed: {tail(bench.folder / 'loop.log')}")
    return cost


def run_rival(bench: Bench, name: str, part: int) -> Cost | None:
    """A rival over 1/``part`` of the clips; None when it fails."""
    out = bench.fresh("rival")
    videos = bench.videos(part)
    command = [sys.executable, "-m", "benchmarks.rivals", name, str(videos), str(out), str(bench.processes)]
    return _run(bench, command, out, part, log="rival.log")


def _run(
    bench: Bench, command: list[str], out: Path, part: int, *, log: str, address: str | None = None
) -> Cost | None:
    used = run_measured(
        command, env=environment(address), cwd=ROOT, log=bench.folder / log, gauge=lambda: bytes_below(out)
    )
    return Cost(clips=bench.clips // part, used=used) if used.status == 0 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Race:
    """Runs of job and loop in turns, beginning and ending with the loop."""

    jobs: tuple[Cost, ...]
    """Runs of the job."""
    loops: tuple[Cost, ...]
    """Runs of the loop, one more."""
    loop_stages_s: dict[str, float]
    """CPU seconds a clip by stage, of all runs of the loop."""

    def loop_s(self, i: int) -> float:
        """What a clip cost the loop around the i-th run of the job."""
        return (self.loops[i].steady_s + self.loops[i + 1].steady_s) / 2

    @property
    def ratios(self) -> list[float]:
        """Clips per CPU-second over those of the loop, by run of the job."""
        return [self.loop_s(i) / job.steady_s for i, job in enumerate(self.jobs)]

    @property
    def middle(self) -> int:
        """The run with the median ratio; of two in the middle the lower one."""
        return sorted(range(len(self.jobs)), key=self.ratios.__getitem__)[(len(self.jobs) - 1) // 2]

    @property
    def job(self) -> Cost:
        """That run."""
        return self.jobs[self.middle]

    @property
    def loop(self) -> Cost:
        """The loop before it."""
        return self.loops[self.middle]


def race(bench: Bench, repeats: int) -> Race:
    """Job and bare loop in turns."""
    jobs, loops, stages = [], [], Counter[str]()
    for i in range(2 * repeats + 1):
        if i % 2:
            jobs.append(run_job(bench))
        else:
            loops.append(run_loop(bench))
            stages.update(json.loads(tail(bench.folder / "loop.log"))["spent_s"])
    clips = len(loops) * bench.clips
    by_stage = {stage: spent_s / clips for stage, spent_s in stages.items()}
    return Race(jobs=tuple(jobs), loops=tuple(loops), loop_stages_s=by_stage)


def speed_rows(bench: Bench, measured: Race) -> list[list[object]]:
    """Job, bare loop and rivals."""
    job, loop, loop_s = measured.job, measured.loop, measured.loop_s(measured.middle)
    does = "rgb, flow, log-mel to checked shards with a ledger"
    rows: list[list[object]] = [
        ["job", 1 / job.steady_s, loop_s / job.steady_s, job.start_s, job.clips, job.used.cpu_s, job.used.wall_s, does]
    ]
    does = "rgb, flow, log-mel appended to a file"
    rows.append(["bare loop", 1 / loop_s, 1.0, loop.start_s, loop.clips, loop.used.cpu_s, loop.used.wall_s, does])
    for name, rival in RIVALS.items():
        reason = rival.missing()
        small = large = None
        if reason is None:
            small, large = run_rival(bench, name, 4), run_rival(bench, name, 2)
            reason = f"failed: {tail(bench.folder / 'rival.log')[:120]}"
        if small is None or large is None:
            rows.append([name, "-", "-", "-", "-", "-", "-", f"not measured: {reason}"])
            continue
        # Some write at the very end, so that their bytes tell nothing: the cost of a clip is that of the larger run
        # beyond the smaller one.
        clip_s = (large.used.cpu_s - small.used.cpu_s) / (large.clips - small.clips)
        start_s = large.used.cpu_s - large.clips * clip_s
        used = large.used
        rows.append([name, 1 / clip_s, loop_s / clip_s, start_s, large.clips, used.cpu_s, used.wall_s, rival.does])
    return rows


def stage_rows(bench: Bench, measured: Race) -> list[list[object]]:
    """CPU time a clip by stage: the loop's own clocks, and a sampling profile of the job's shard code."""
    job, loop_s, loop = measured.job, measured.loop_s(measured.middle), measured.loop_stages_s
    scale = loop_s / sum(loop.values())  # The loops around the run; its stages are of all of them.
    profile = profile_stages(bench)
    samples = max(sum(profile.values()), 1)
    # The profile gives shares; what they are shares of is what workers and decoders use in the job.
    spent_s = job.steady_by_kind
    inside_s = spent_s.get("worker", 0.0) + spent_s.get("decoder", 0.0)
    rows: list[list[object]] = []
    for stage in [*STAGES, *sorted(set(profile) - set(STAGES))]:
        in_loop, in_job = scale * loop.get(stage, 0.0), profile[stage] / samples * inside_s
        rows.append([stage, 1e3 * in_loop, f"{in_loop / loop_s:.1%}", 1e3 * in_job, f"{in_job / job.steady_s:.1%}"])
    for kind in sorted({*spent_s} - {"worker", "decoder"}):
        rows.append([kind, 0.0, "0.0%", 1e3 * spent_s[kind], f"{spent_s[kind] / job.steady_s:.1%}"])
    rows.append(["all", 1e3 * loop_s, "100.0%", 1e3 * job.steady_s, "100.0%"])
    return rows


def profile_stages(bench: Bench) -> Counter[str]:
    """Samples by stage of the shards of a quarter of the clips, made in one process and its decoder, without Ray."""
    spy = Path(sys.executable).with_name("py-spy")
    if not spy.exists():
        print("no py-spy beside this Python (it comes with ray[default]): the job's stages are not listed")
        return Counter()
    raw = bench.folder / "profile.raw"
    job = ["benchmarks.in_process", str(bench.manifest(4)), str(bench.videos(4)), str(bench.fresh("in-process"))]
    command = [str(spy), "record", "--subprocesses", "--rate", "200", "--format", "raw", "--output", str(raw), "--"]
    subprocess.run(
        [*command, sys.executable, "-m", *job, str(CLIPS_PER_SHARD)],
        env=environment(),
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    found: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        stage = stage_of(stack)
        if stage is not None:
            found[stage] += int(count)
    return found


def stage_of(stack: str) -> str | None:
    """The stage of a sampled stack; None for starting up, which is not in the marginal cost.

    >>> stage_of("main (in_process.py:20);write_shard (pipelines/shards.py:61);_jpeg (pipelines/encode.py:3)")
    'jpeg'
    >>> stage_of("<module> (pipelines/flow.py:3);_find_and_load (<frozen importlib._bootstrap>:1176)") is None
    True
    """
    if "importlib" in stack or not re.search(r"write_shard|decoder_process", stack):
        return None
    for frame in reversed(stack.split(";")):
        if "Scaler" in frame or "_scaled" in frame:
            return "scale"
        for name, stage in STAGE_OF_FILE:
            if f"pipelines/{name}" in frame:
                return stage
    return "other"


def node_rows(bench: Bench) -> tuple[list[list[object]], bool]:
    """The same clips on 1, 2 and 4 simulated nodes of one CPU, and whether all gave the same bytes."""
    rows: list[list[object]] = []
    digests = []
    first_s = 0.0
    for count in (1, 2, 4):
        with simulated_nodes(count) as nodes:
            used = run_job(bench, 2, address=nodes.address).used
        digests.append(checksums(bench.folder / "job"))
        first_s = first_s or used.cpu_s
        same = "yes" if digests[-1] == digests[0] else "NO"
        rows.append([count, used.wall_s, used.cpu_s, used.cpu_s / first_s, same])
    return rows, all(digest == digests[0] for digest in digests)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.preprocess", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--clips", type=int, default=96, help="files to make and process")
    parser.add_argument("--repeats", type=int, default=3, help="runs of the job; the median of their ratios counts")
    parser.add_argument("--only", choices=["speed", "nodes"], nargs="+", default=["speed", "nodes"])
    parser.add_argument("--cost", action="store_true", help="also print what 1,000 clips and whole data sets cost")
    parser.add_argument("--check", action="store_true", help=f"exit 1 below {BUDGET} or if nodes disagree")
    asked = parser.parse_args()
    if asked.clips < 16 or asked.repeats < 1:
        parser.error("--clips must be at least 16 and --repeats at least 1")
    with tempfile.TemporaryDirectory(prefix="gblend-bench-") as folder:
        bench = prepare(Path(folder), asked.clips)
        good = report(bench, asked)
    return 0 if good or not asked.check else 1


def report(bench: Bench, asked: argparse.Namespace) -> bool:
    """Measure and print; whether all budgets hold."""
    same = True
    if "nodes" in asked.only:
        rows, same = node_rows(bench)
        print(f"\n{bench.clips // 2} clips on simulated nodes of one CPU each; the machine has {bench.processes}\n")
        print(table(["nodes", "wall s", "CPU s", "over 1 node", "same bytes"], rows))
    if "speed" not in asked.only and not asked.cost:
        return same
    measured = race(bench, asked.repeats)
    print("\nCPU ms a clip in the steady state, by stage\n")
    print(table(["stage", "bare loop", "share", "job", "share"], stage_rows(bench, measured)))
    ratio = statistics.median(measured.ratios)
    if asked.cost:
        from benchmarks.cost import cost_report

        print(cost_report(bench, measured.job, share=ratio))
    if "speed" in asked.only:
        print(f"\nclips of {SECONDS:g} s on {bench.processes} cores; clips/CPU-s without, whole CPU s with the start\n")
        headers = ["what", "clips/CPU-s", "of loop", "start CPU s", "clips", "whole CPU s", "wall s", "does"]
        print(table(headers, speed_rows(bench, measured)))
    print(f"\nratio of each run of the job: {', '.join(f'{ratio:.3f}' for ratio in measured.ratios)}")
    verdict = "ok" if ratio >= BUDGET else "BELOW"
    print(f"\njob over bare loop, steady clips per CPU-second, median: {ratio:.2f}, budget >= {BUDGET:.2f}: {verdict}")
    return same and ratio >= BUDGET


if __name__ == "__main__":
    sys.exit(main())
