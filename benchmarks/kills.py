"""One run of the job with kills in it, and what must be true afterwards. Shared by `benchmarks.chaos` and the tests.

A moment is a share of the bytes that an uninterrupted run writes, and up to a clip's time more, whatever else the
machine does: starting Ray takes longer than these shards, and a kill before the work begins shows nothing. What a kill
must not change: the bytes of every file, the shards that were finished before it, and that nothing of the run is left
behind that the next one does not remove.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from benchmarks.job import (
    ROOT,
    bytes_below,
    checksums,
    environment,
    finished_files,
    make_manifest,
    preprocess_command,
    tail,
)
from benchmarks.media import write_clips
from benchmarks.nodes import Nodes
from benchmarks.processes import Process, adopted_orphans, descendants, orphans
from jobs.session import SCRATCH_PREFIX
from pipelines.scratch import is_abandoned

Kind = Literal["worker", "driver", "node", "decoder"]
KINDS: tuple[Kind, ...] = get_args(Kind)

CLIPS_PER_SHARD = 4
FEATURES = ("--rgb.short-side-px", "192", "--flow.preset", "medium")
"""Small files scaled up and a slow flow: seconds of work from kilobytes of media."""

MOST_RERUNS = 3

GRACE_S = 20.0
"""How long processes of a killed run may take to end; about a second on an idle machine."""

JITTER_S = 0.3
"""About the time of a clip: bytes appear when a clip is done, and kills should not wait for that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """The clips, and what an uninterrupted run makes of them."""

    folder: Path
    """Scratch directory."""
    videos: Path
    """Root of the media."""
    manifest: Path
    """All of them, in train."""
    features: tuple[str, ...]
    """Options of the job."""
    checksums: dict[str, str]
    """SHA-256 of every file of the dataset, by name."""
    bytes: int
    """Size of all its files."""
    shards: int
    """Shards of the dataset."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Strike:
    """One process to be killed."""

    kind: Kind
    """What it is."""
    moment: float
    """When, in [0, 1) of the work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a run."""

    hit: bool
    """At every moment there was something to kill."""
    recovered: bool
    """The killed run finished by itself."""
    reruns: int
    """Further runs until it was whole."""
    kept: int
    """Shards that were finished at the moment of the last kill."""
    untouched: bool
    """Their files are the same files, by inode and time of change."""
    identical: bool
    """Every file has the bytes of the reference, ledger and `dataset.json` included, and there is no other file."""
    leftovers: tuple[str, ...]
    """Unfinished files, processes that outlived the run and scratch directories without an owner."""
    agents: tuple[Process, ...]
    """Agents of Ray that still look for their cluster; they give up after a minute."""
    said: str
    """Last line of the log of a run that ended with an error of its own."""

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        return self.identical and self.untouched and not self.leftovers


def make_reference(folder: Path, *, clips: int, seconds: float = 1.0, features: Sequence[str] = FEATURES) -> Reference:
    """Make media, and run the job over it without a kill."""
    videos = folder / "videos"
    names = write_clips(videos, clips=clips, distinct=min(clips, 8), seconds=seconds, height=48, width=64, fps=25)
    manifest = make_manifest(names, videos=videos, out=folder / "clips.parquet")
    out = folder / "reference"
    command = preprocess_command(manifest, videos, out, *features, clips_per_shard=CLIPS_PER_SHARD)
    log = folder / "reference.log"
    with log.open("wb") as output:
        done = subprocess.run(command, env=environment(), cwd=ROOT, stdout=output, stderr=output, check=False)
    if done.returncode:
        raise RuntimeError(f"the reference run failed: {tail(log)}")
    return Reference(
        folder=folder,
        videos=videos,
        manifest=manifest,
        features=tuple(features),
        checksums=checksums(out),
        bytes=bytes_below(out),
        shards=len(list(out.glob("*/*/done.json"))),
    )


def wait_for_bytes(job: subprocess.Popen[bytes], out: Path, least: float) -> None:
    """Return once so much has been written, and at least one shard has begun, or the job has ended."""
    while job.poll() is None and not (any(out.glob("*/*")) and bytes_below(out) >= least):
        time.sleep(0.02)


def run_with_kills(
    reference: Reference, strikes: Sequence[Strike], *, rng: random.Random, nodes: Nodes | None = None
) -> Outcome:
    """Run the job, kill one process after the other, and see it through."""
    name = f"{'-'.join(strike.kind for strike in strikes)}-{rng.randrange(10**9)}"
    out, log = reference.folder / name, reference.folder / f"{name}.log"
    command = preprocess_command(
        reference.manifest, reference.videos, out, *reference.features, clips_per_shard=CLIPS_PER_SHARD
    )
    temporary = temporary_files(reference)
    env = {**environment(nodes.address if nodes is not None else None), "TMPDIR": str(temporary)}
    before = {process.pid for process in descendants(os.getpid())}
    scratch_before = set(Path("/tmp").glob(f"{SCRATCH_PREFIX}*"))
    kept: dict[str, tuple[int, int]] = {}
    with adopted_orphans():
        with log.open("wb") as output:
            job = subprocess.Popen(command, env=env, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
            hit = True
            for strike in strikes:
                wait_for_bytes(job, out, strike.moment * reference.bytes)
                time.sleep(rng.random() * JITTER_S)
                running = job.poll() is None
                kept = finished_files(out) if running else kept
                hit = running and kill(strike.kind, job, nodes, rng) and hit
            job.wait()
        recovered, said = job.returncode == 0, tail(log) if job.returncode > 0 else ""
        # What a killed run leaves has some seconds to notice; the rerun must not meet it. Ray's agents take a minute.
        left = orphans(before, grace_s=GRACE_S, but="ray service")
        reruns = 0
        status = job.returncode
        while status and reruns < MOST_RERUNS:
            reruns += 1
            with log.open("ab") as output:
                done = subprocess.run(command, env=env, cwd=ROOT, stdout=output, stderr=output, check=False)
            status = done.returncode
        left += orphans(before, grace_s=GRACE_S, but="ray service")
        agents = orphans(before, grace_s=0.0)
    leftovers = [f"process {process.command[:60]}" for process in left]
    leftovers += [f"file {path.name}" for path in out.rglob(".*")]
    # One that holds the lock of a dead process is removed by the next process that makes one.
    leftovers += [f"temporary {path.name}" for path in sorted(temporary.iterdir()) if not is_abandoned(str(path))]
    for path in temporary.iterdir():
        shutil.rmtree(path)
    scratch = set(Path("/tmp").glob(f"{SCRATCH_PREFIX}*")) - scratch_before
    leftovers += [f"scratch {path}" for path in scratch if is_abandoned(str(path))]
    after = finished_files(out)
    return Outcome(
        hit=hit,
        recovered=recovered,
        reruns=reruns,
        kept=sum(name.endswith("/done.json") for name in kept),
        untouched=all(after.get(name) == identity for name, identity in kept.items()),
        identical=status == 0 and checksums(out) == reference.checksums,
        leftovers=tuple(leftovers),
        agents=tuple(agents),
        said=said,
    )


def temporary_files(reference: Reference) -> Path:
    """Where processes of the job make their temporary files, of nodes that outlive a run too."""
    temporary = reference.folder / "tmp"
    temporary.mkdir(exist_ok=True)
    return temporary


def kill(kind: Kind, job: subprocess.Popen[bytes], nodes: Nodes | None, rng: random.Random) -> bool:
    """SIGKILL one process of a kind; False when there is none."""
    if kind == "driver":
        job.kill()
        return True
    if kind == "node":
        assert nodes is not None, "a node can only be killed on a cluster of several"
        alive = nodes.raylets()[1:]
        if alive:
            nodes.kill(rng.choice(alive))
        return bool(alive)
    found = victims(kind, job.pid if nodes is None else nodes.holder)
    if not found:
        return False
    with suppress(ProcessLookupError):
        os.kill(rng.choice(found).pid, signal.SIGKILL)
    return True


def victims(kind: Kind, root: int) -> list[Process]:
    """Workers that execute a shard, or decoders that run for one."""
    below = descendants(root)
    busy = {p.pid for p in below if p.kind == "worker" and p.command.startswith("ray::") and "IDLE" not in p.command}
    if kind == "worker":
        return [process for process in below if process.pid in busy]
    return [process for process in below if process.kind == "decoder"]
