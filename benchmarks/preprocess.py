"""Clips per CPU-second of the preprocessing job, against a bare loop that does the same work on the same files.

    python -m benchmarks.preprocess [--clips 48] [--repeats 2] [--check]        (about five minutes on two cores)

Files: 10 s, 340 x 256, 30 frames/s, H.264 + AAC, textured and moving, made on the spot and not timed. Counted is the
user and system time of every process: driver, Ray, workers, decoders. The headline is marginal: what the second half
of 2N clips costs beyond the first N, because starting Ray, Python and torch is paid once a job, be it of fifty clips
or of two million, and would here be most of what is measured. Both sides are treated so, and the whole jobs are listed
beside it. Of the repeats, which alternate, the cheapest counts: other work on the machine only ever adds.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bare_loop import STAGES
from benchmarks.job import ROOT, checksums, environment, make_manifest, preprocess_command, tail
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
    ("decoder_process.py", "transfer"),
    ("decode.py", "decode"),
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
    """N; the larger run has 2N."""
    processes: int
    """Cores to use."""

    def videos(self, times: float) -> Path:
        """The folder of ``times`` N files."""
        return self.folder / f"videos-{round(times * self.clips)}"

    def manifest(self, times: float) -> Path:
        """Its manifest."""
        return self.folder / f"clips-{round(times * self.clips)}.parquet"

    def fresh(self, name: str) -> Path:
        """A directory that does not exist."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Two runs of one thing, over n and 2n clips."""

    clips: int
    """n."""
    small: Usage
    """The run over n clips."""
    large: Usage
    """The run over 2n clips."""

    @property
    def marginal_s(self) -> float:
        """CPU seconds a further clip costs."""
        return (self.large.cpu_s - self.small.cpu_s) / self.clips

    @property
    def fixed_s(self) -> float:
        """CPU seconds paid once."""
        return self.small.cpu_s - self.clips * self.marginal_s


def prepare(folder: Path, clips: int) -> Bench:
    """Make files and manifests of N/2, N and 2N clips."""
    bench = Bench(folder=folder, clips=clips, processes=len(os.sched_getaffinity(0)))
    names = write_clips(bench.videos(2), clips=2 * clips, distinct=DISTINCT, seconds=SECONDS)
    for times in (0.5, 1, 2):
        some = names[: round(times * clips)]
        if times != 2:
            bench.videos(times).mkdir()
            for name in some:
                os.link(bench.videos(2) / name, bench.videos(times) / name)
        make_manifest(some, videos=bench.videos(times), out=bench.manifest(times))
    return bench


def run_job(bench: Bench, times: float, *, address: str | None = None) -> Usage:
    """The job over ``times`` N clips."""
    out, log = bench.fresh("job"), bench.folder / "job.log"
    command = preprocess_command(bench.manifest(times), bench.videos(times), out, clips_per_shard=CLIPS_PER_SHARD)
    return _checked(run_measured(command, env=environment(address), cwd=ROOT, log=log), "the job", log)


def run_loop(bench: Bench, times: float) -> Usage:
    """The bare loop over ``times`` N clips; its own account is the last line of loop.log."""
    log = bench.folder / "loop.log"
    command = [sys.executable, "-m", "benchmarks.bare_loop", str(bench.videos(times)), str(bench.fresh("loop"))]
    used = run_measured([*command, str(bench.processes)], env=environment(), cwd=ROOT, log=log)
    return _checked(used, "the bare loop", log)


def run_rival(bench: Bench, name: str, times: float) -> Usage | None:
    """A rival over ``times`` N clips; None when it fails."""
    command = [sys.executable, "-m", "benchmarks.rivals", name, str(bench.videos(times)), str(bench.fresh("rival"))]
    log = bench.folder / "rival.log"
    used = run_measured([*command, str(bench.processes)], env=environment(), cwd=ROOT, log=log)
    return used if used.status == 0 else None


def _checked(used: Usage, what: str, log: Path) -> Usage:
    if used.status:
        raise RuntimeError(f"{what} failed with exit status {used.status}: {tail(log)}")
    return used


def measure(bench: Bench, repeats: int) -> tuple[Cost, Cost]:
    """Job and bare loop, in turns."""
    runs: dict[tuple[str, int], list[Usage]] = {}
    for _ in range(repeats):
        for times in (1, 2):
            runs.setdefault(("job", times), []).append(run_job(bench, times))
            runs.setdefault(("loop", times), []).append(run_loop(bench, times))
    best = {key: min(used, key=lambda one: one.cpu_s) for key, used in runs.items()}
    job = Cost(clips=bench.clips, small=best["job", 1], large=best["job", 2])
    return job, Cost(clips=bench.clips, small=best["loop", 1], large=best["loop", 2])


def speed_rows(bench: Bench, job: Cost, loop: Cost) -> list[list[object]]:
    """The table of section one: job, bare loop and rivals."""
    rows: list[list[object]] = []

    def add(name: str, cost: Cost, does: str) -> None:
        whole = (2 * cost.clips) / cost.large.cpu_s
        ratio = loop.marginal_s / cost.marginal_s
        rows.append([name, 1 / cost.marginal_s, ratio, cost.fixed_s, whole, cost.large.wall_s, does])

    add("job", job, "rgb, flow, log-mel to checked shards with a ledger")
    add("bare loop", loop, "rgb, flow, log-mel appended to a file")
    for name, rival in RIVALS.items():
        reason = rival.missing()
        small = large = None
        if reason is None:
            small, large = run_rival(bench, name, 0.5), run_rival(bench, name, 1)
            reason = f"failed: {tail(bench.folder / 'rival.log')[:90]}"
        if small is None or large is None:
            rows.append([name, "-", "-", "-", "-", "-", f"not measured: {reason}"])
        else:
            add(name, Cost(clips=bench.clips // 2, small=small, large=large), rival.does)
    return rows


def stage_rows(bench: Bench, job: Cost) -> list[list[object]]:
    """CPU by stage: the loop's own clocks, and a sampling profile of the job's shard code."""
    told = json.loads(tail(bench.folder / "loop.log"))["spent_s"]
    profile = profile_stages(bench)
    named = [*STAGES, *sorted(set(profile) - set(STAGES))]
    loop_total, job_total = sum(told.values()), max(sum(profile.values()), 1)
    rows: list[list[object]] = []
    for stage in named:
        in_loop = f"{told[stage] / loop_total:6.1%}" if stage in told else "-"
        rows.append([stage, in_loop, f"{profile[stage] / job_total:6.1%}" if profile else "-"])
    by_kind = Counter(job.large.cpu_s_by_kind)
    by_kind.subtract(job.small.cpu_s_by_kind)
    for kind, spent_s in sorted(by_kind.items()):
        rows.append([f"process: {kind}", "-", f"{spent_s / max(sum(by_kind.values()), 1e-9):6.1%}"])
    return rows


def profile_stages(bench: Bench) -> Counter[str]:
    """Samples by stage of every shard of N/2 clips made in one process and its decoders; empty without py-spy."""
    spy = Path(sys.executable).with_name("py-spy")
    if not spy.exists():
        print("no py-spy beside this Python (it comes with ray[default]): the job's stages are not listed")
        return Counter()
    raw = bench.folder / "profile.raw"
    job = ["benchmarks.in_process", str(bench.manifest(0.5)), str(bench.videos(0.5)), str(bench.fresh("in-process"))]
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
        if "_scaled" in frame:
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
            small = run_job(bench, 0.5, address=nodes.address)
            used = run_job(bench, 1, address=nodes.address)
        digests.append(checksums(bench.folder / "job"))
        marginal_s = (used.cpu_s - small.cpu_s) / (bench.clips / 2)
        first_s = first_s or marginal_s
        same = "yes" if digests[-1] == digests[0] else "NO"
        rows.append([count, used.wall_s, used.cpu_s, marginal_s, marginal_s / first_s, same])
    return rows, all(digest == digests[0] for digest in digests)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.preprocess", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--clips", type=int, default=64, help="N; runs of N and 2N clips are compared")
    parser.add_argument("--repeats", type=int, default=2, help="how often each run is repeated; the cheapest counts")
    parser.add_argument("--only", choices=["speed", "nodes", "cost"], nargs="+", default=["speed", "nodes"])
    parser.add_argument("--cost", action="store_true", help="also print what 1,000 clips and whole data sets cost")
    parser.add_argument("--check", action="store_true", help=f"exit 1 below {BUDGET} or if nodes disagree")
    asked = parser.parse_args()
    if asked.clips < 8 or asked.clips % 4 or asked.repeats < 1:
        parser.error("--clips must be a multiple of 4 and at least 8, --repeats at least 1")
    with tempfile.TemporaryDirectory(prefix="gblend-bench-") as folder:
        bench = prepare(Path(folder), asked.clips)
        good = report(bench, asked)
    return 0 if good or not asked.check else 1


def report(bench: Bench, asked: argparse.Namespace) -> bool:
    """Measure and print; whether all budgets hold."""
    same = True
    if "nodes" in asked.only:
        rows, same = node_rows(bench)
        print(f"\n{bench.clips} clips on simulated nodes of one CPU each; the machine has {bench.processes}\n")
        print(table(["nodes", "wall s", "CPU s", "CPU s/clip", "over 1 node", "same bytes"], rows))
    if "speed" not in asked.only and not asked.cost:
        return same
    job, loop = measure(bench, asked.repeats)
    print("\nCPU by stage; in the job column, stages of the shard code, then processes of the whole job (marginal)\n")
    print(table(["stage", "bare loop", "job"], stage_rows(bench, job)))
    if asked.cost:
        from benchmarks.cost import cost_report

        print(cost_report(bench, job, loop))
    print(f"\n{2 * bench.clips} clips of {SECONDS:g} s; CPU seconds of all processes on {bench.processes} cores\n")
    headers = ["what", "clips/CPU-s", "of loop", "start CPU-s", "clips/CPU-s incl. start", "wall s", "does"]
    print(table(headers, speed_rows(bench, job, loop)))
    ratio = loop.marginal_s / job.marginal_s
    verdict = "ok" if ratio >= BUDGET else "BELOW"
    print(f"\njob over bare loop, clips per CPU-second (marginal): {ratio:.2f}, budget >= {BUDGET:.2f}: {verdict}")
    return same and ratio >= BUDGET


if __name__ == "__main__":
    sys.exit(main())
