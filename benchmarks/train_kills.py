"""Kills at random moments of a training on several nodes, and whether the run ends as the one that nobody disturbed.

    python -m benchmarks.train_kills [--kills 12] [--seed 0] [--check]        (about a minute a kill)

A cluster of simulated nodes (`benchmarks.nodes`) trains one online run on two workers: probes, main epochs, a new fused
head, measuring and scores. In turn a worker, the driver and a node with a worker on it are killed with SIGKILL. A lost
node is replaced; a job that died is submitted again, which only the end of its driver may make necessary. What must be
the same to the last bit is all that a run holds but the time it took. The moment is a share of the states that an
undisturbed run saves, and up to a second more.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from benchmarks.blend_cost import write_clips
from benchmarks.job import ROOT, environment, tail
from benchmarks.nodes import Nodes, simulated_nodes
from benchmarks.processes import descendants
from benchmarks.table import table
from tests.gblend.stops import assert_same_run

Victim = Literal["worker", "driver", "node"]

SETTINGS = """
    --method online --epochs 3 --blend.first-epochs 2 --blend.next-epochs 1 --blend.refit-epochs 1 --workers 2
    --checkpoint-every 2 --batch-size 8 --input.frames 4 --loader-processes 1
"""

NODES = 3
"""The head, where the driver is, and one for each worker."""

MOST_RERUNS = 3
JITTER_S = 1.0
DEADLINE_S = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one kill."""

    at: str
    """Where the run was when it was last saved before the kill."""
    hit: bool
    """There was something to kill."""
    reruns: int
    """How often the job was submitted again."""
    differs: str
    """The first thing that is not as in the undisturbed run; empty when all is."""


def command(data: str, out: Path) -> list[str]:
    """The job's command line."""
    return [sys.executable, "-m", "jobs.train", "small-cpu", "--data", data, "--out", str(out), *SETTINGS.split()]


def states_of(run: Path) -> int:
    """Number of the newest whole state."""
    return max((int(path.parent.name) for path in run.glob("state/*/whole.json")), default=0)


def where(run: Path) -> str:
    """In words, from the newest whole state."""
    try:
        return json.loads((run / "state" / f"{states_of(run):06d}" / "whole.json").read_text())["at"]
    except FileNotFoundError:  # deleted between two looks: the run is about to be finished
        return "after its last state"


def carry_out(data: str, out: Path, address: str) -> int:
    """Run the job to its end without disturbing it; how many states it saved."""
    with out.with_suffix(".log").open("ab") as log:
        job = subprocess.Popen(command(data, out), env=environment(address), cwd=ROOT, stdout=log, stderr=log)
        most = 0
        while job.poll() is None:
            most = max(most, states_of(out))
            time.sleep(0.01)
    if job.returncode:
        raise RuntimeError(f"the job failed: {tail(out.with_suffix('.log'))}")
    return most


def kill(victim: Victim, job: subprocess.Popen[bytes], nodes: Nodes, rng: random.Random) -> bool:
    """SIGKILL one of a kind; False when there is none."""
    if victim == "driver":
        job.kill()
        return True
    workers = {raylet: _workers_below(raylet.pid) for raylet in nodes.raylets()}
    busy = [(raylet, pids) for raylet, pids in workers.items() if pids]
    if not busy:
        return False
    if victim == "worker":
        os.kill(rng.choice([pid for _, pids in busy for pid in pids]), signal.SIGKILL)
        return True
    head = nodes.raylets()[0]
    away = [raylet for raylet, _ in busy if raylet != head]
    if away:
        nodes.kill(rng.choice(away))
        nodes.grow(NODES)
    return bool(away)


def _workers_below(pid: int) -> list[int]:
    return [each.pid for each in descendants(pid) if each.command.startswith("ray::RayTrainWorker")]


def run_with_kill(
    victim: Victim, data: str, whole: Path, out: Path, *, states: int, nodes: Nodes, rng: random.Random
) -> Outcome:
    """Carry the run out with one kill in it, and compare it with the whole one."""
    moment, jitter_s = rng.randrange(1, states + 1), rng.random() * JITTER_S
    with out.with_suffix(".log").open("ab") as log:
        line, env = command(data, out), environment(nodes.address)
        job = subprocess.Popen(line, env=env, cwd=ROOT, stdout=log, stderr=log)
        while job.poll() is None and states_of(out) < moment:
            time.sleep(0.01)
        time.sleep(jitter_s)
        at = where(out)
        hit = job.poll() is None and kill(victim, job, nodes, rng)
        status, reruns = job.wait(DEADLINE_S), 0
        while status and reruns < MOST_RERUNS:
            reruns += 1
            status = subprocess.run(
                line, env=env, cwd=ROOT, stdout=log, stderr=log, check=False, timeout=DEADLINE_S
            ).returncode
    if status:
        return Outcome(at=at, hit=hit, reruns=reruns, differs=tail(out.with_suffix(".log")))
    (out / "report.html").unlink()  # it names the directory and the time
    try:
        assert_same_run(out, whole)
        differs = ""
    except AssertionError as error:
        differs = (str(error).splitlines() or ["something"])[0]
    return Outcome(at=at, hit=hit, reruns=reruns, differs=differs)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 when a run differs, or a job ended needlessly"
    )
    given = parser.parse_args()
    rng, victims = random.Random(given.seed), get_args(Victim)
    folder = Path(tempfile.mkdtemp(prefix="gbk-"))
    outcomes: list[tuple[Victim, Outcome]] = []
    with simulated_nodes(NODES, temporary=folder) as nodes:
        data = write_clips(folder / "data", 60)
        whole = folder / "whole"
        states = carry_out(data, whole, nodes.address)
        (whole / "report.html").unlink()
        for number in range(given.kills):
            victim, out = victims[number % len(victims)], folder / f"run{number}"
            found = run_with_kill(victim, data, whole, out, states=states, nodes=nodes, rng=rng)
            print(f"{victim}, {found.at}: {found.differs or 'the same bits'}", flush=True)
            outcomes.append((victim, found))
    rows = [[v, o.at, "yes" if o.hit else "no", o.reruns, o.differs or "nothing"] for v, o in outcomes]
    print(table(["killed", "last saved at", "hit", "submitted again", "differs"], rows))
    hits = [outcome for _, outcome in outcomes if outcome.hit]
    same = sum(not outcome.differs for outcome in hits)
    ended = sum(outcome.reruns > 0 for victim, outcome in outcomes if victim != "driver")
    print(f"runs with a kill that end as the undisturbed one: {same} of {len(hits)}")
    print(f"jobs that ended with a worker or a node: {ended}")
    if same == len(hits) and not ended:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"their directories and logs: {folder}")
    return int(given.check and (same < len(hits) or ended > 0 or not hits))


if __name__ == "__main__":
    sys.exit(main())
