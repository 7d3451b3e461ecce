"""Kill -9 at random moments: a worker, the driver, a whole node, a decoder. Nothing may change.

    python -m benchmarks.chaos [--kills 20] [--kinds worker driver node decoder] [--seed 0]      (about 20 minutes)
    python -m benchmarks.chaos --hostile ../shared/fixtures/videos

Every kill is a run of its own, at a moment drawn evenly from the bytes it writes, and compared byte by byte with a run
without one. After the kill of a worker, a node or a decoder the job should finish by itself; when it exits with an
error instead, and always after the kill of the driver, it is run again. `--hostile` runs a folder of good, odd and
broken files through one job instead; see `benchmarks.hostile`. Exit status 1 when anything is not as it should be.
"""

import argparse
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.hostile import hostile_report
from benchmarks.kills import KINDS, Kind, Outcome, Reference, Strike, make_reference, run_with_kills, temporary_files
from benchmarks.nodes import simulated_nodes
from benchmarks.processes import wait_until_gone
from benchmarks.table import table

NODES = 3

AGENTS_S = 120.0
"""How long Ray's agents may look for a cluster that is gone."""


def kill_many(reference: Reference, kind: Kind, *, kills: int, seed: int) -> list[Outcome]:
    """So many runs with one kill each, the moments spread evenly and jittered by the seed."""
    rng = random.Random(f"{seed}/{kind}")
    outcomes = []
    with ExitStack() as stack:
        nodes = (
            stack.enter_context(simulated_nodes(NODES, temporary=temporary_files(reference)))
            if kind == "node"
            else None
        )
        for _ in range(kills):
            if nodes is not None:
                nodes.grow(NODES)
            outcome = run_with_kills(reference, [Strike(kind=kind, moment=rng.random())], rng=rng, nodes=nodes)
            outcomes.append(outcome)
            print("." if outcome.good and outcome.hit else "-" if outcome.good else "X", end="", flush=True)
            if not outcome.good:
                print(f" {kind}: {outcome}", flush=True)
    print(f" {kind}", flush=True)
    return outcomes


def kill_row(kind: str, outcomes: list[Outcome]) -> list[object]:
    """A line of the table."""
    hits = [outcome for outcome in outcomes if outcome.hit]
    return [
        kind,
        len(outcomes),
        len(hits),
        sum(outcome.recovered for outcome in hits),
        sum(outcome.reruns for outcome in outcomes),
        sum(outcome.kept for outcome in outcomes),
        sum(not outcome.untouched for outcome in outcomes),
        f"{sum(outcome.identical for outcome in outcomes)} of {len(outcomes)}",
        sum(len(outcome.leftovers) for outcome in outcomes),
    ]


HEADERS = ["kind", "runs", "hits", "by itself", "reruns", "shards kept", "touched", "identical", "leftovers"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="runs a kind, one kill each")
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--clips", type=int, default=40, help="of one second, four a shard")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--hostile", type=Path, metavar="FOLDER", help="run the files of a folder instead of killing")
    asked = parser.parse_args()
    if asked.hostile is not None:
        return 0 if hostile_report(asked.hostile) else 1
    with tempfile.TemporaryDirectory(prefix="gblend-chaos-") as folder:
        reference = make_reference(Path(folder), clips=asked.clips)
        print(f"{asked.clips} clips in {reference.shards} shards, {reference.bytes / 1e6:.1f} MB; one kill a run")
        all_outcomes = {
            kind: kill_many(reference, kind, kills=asked.kills, seed=asked.seed) for kind in dict.fromkeys(asked.kinds)
        }
    print()
    print(table(HEADERS, [kill_row(kind, outcomes) for kind, outcomes in all_outcomes.items()]))
    outcomes = [outcome for several in all_outcomes.values() for outcome in several]
    for said in sorted({outcome.said for outcome in outcomes if outcome.said}):
        print(f"a run ended with: {said[:300]}")
    agents = [agent for outcome in outcomes for agent in outcome.agents]
    lasting = wait_until_gone(agents, timeout_s=AGENTS_S)
    print(f"Ray's own agents of killed drivers: {len(agents)}, {len(lasting)} of them left after {AGENTS_S:g} s")
    good = sum(outcome.good for outcome in outcomes)
    hits = sum(outcome.hit for outcome in outcomes)
    print(f"\n{good} of {len(outcomes)} runs are byte-identical and leave nothing behind; {hits} kills hit")
    return 0 if good == len(outcomes) and not lasting else 1


if __name__ == "__main__":
    sys.exit(main())
