r"""Do stale weights cost accuracy? ``online`` with exact and with stale weights beside equal weights, paired by seed.

    python -m benchmarks.stale DATA --out runs [--seeds 5] [--epochs 30] [--rate 0.01]

The recipe is that of `benchmarks.study` with short super-epochs, so that there are many of them, by the paper's rules
and by `gblend.blend_config.ROBUST`. Nothing is chosen: test is read once. Started again, it goes on. Probes train in
this process, which changes no bit; what other workers would save is counted, in epochs that must follow each other:

    shared           run + (k + 1) probes, all on the same workers
    spread           run + one probe of each super-epoch, the others beside it
    spread, stale    run + the first probes, the others beside the run
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.study_runs import CPU_FILE, Setup, Variant, config_of
from benchmarks.study_tables import spread
from benchmarks.table import table
from gblend.blend_config import ROBUST
from gblend.config import TrainConfig
from gblend.data import load_run_data
from gblend.heads import FUSED
from gblend.methods import RunSpec
from gblend.records import RunResult, read_json, read_lines, run_result
from gblend.runner import Runner
from gblend.schedule import super_epochs

WAYS = (FUSED, "stack")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One way to find the weights."""

    name: str
    method: str
    blend: dict[str, Any]
    """Settings of ``blend``."""
    against: str | None = None
    """Row whose accuracies are subtracted, besides those of equal weights."""


ROWS = (
    Row(name="equal", method="equal", blend={}),
    Row(name="online", method="online", blend={}),
    Row(name="online, stale", method="online", blend={"staleness": 1}, against="online"),
    Row(name="online, robust", method="online", blend=ROBUST),
    Row(name="online, robust, stale", method="online", blend={**ROBUST, "staleness": 1}, against="online, robust"),
)


def settings(row: Row, data: str, *, epochs: int, rate: float) -> TrainConfig:
    """The study's recipe with super-epochs of a fifth and of a tenth of the epochs."""
    setup = Setup(data=data, out="", optimizer="adamw", epochs=epochs, without=())
    config = config_of(Variant(method=row.method, blend=row.blend), setup, rate)
    short = {"first_epochs": max(1, epochs // 5), "next_epochs": max(1, epochs // 10)}
    return replace(config, name="stale", blend=replace(config.blend, **short))


def carry_out(row: Row, seed: int, given: argparse.Namespace) -> None:
    """One run, unless it is finished."""
    where = place(row, seed, given)
    if (where / CPU_FILE).exists():
        return
    config = settings(row, given.data, epochs=given.epochs, rate=given.rate)
    loaded = load_run_data(given.data, config)
    started_s = time.process_time()
    Runner(data=loaded, config=config, data_path=given.data).run(RunSpec(method=row.method, seed=seed), str(where))
    (where / CPU_FILE).write_text(json.dumps(time.process_time() - started_s))
    print(f"{row.name} seed {seed}: done", flush=True)


def place(row: Row, seed: int, given: argparse.Namespace) -> Path:
    return Path(given.out) / f"{row.name.replace(', ', '-')}-s{seed}"


def in_sequence(row: Row, branches: int, config: TrainConfig) -> tuple[int, int]:
    """Epochs of single networks that must follow each other: on the run's workers alone, and with spread probes."""
    blend, epochs = config.blend, config.epochs
    if row.method == "equal":
        return epochs, epochs
    lengths = super_epochs(epochs, blend.first_epochs, blend.next_epochs)
    stale = blend.staleness == 1 and len(lengths) > 1
    probed = [lengths[0], *(lengths[1:-1] if stale else lengths[1:])]
    return epochs + branches * sum(probed), epochs + (lengths[0] if stale else sum(probed))


def accuracies(row: Row, way: str, given: argparse.Namespace) -> list[float]:
    found: list[float] = []
    for seed in range(given.seeds):
        score = result(row, seed, given).predictions
        assert score is not None
        found.append(score.scores["test"][way].value if way != FUSED else fused(row, seed, given))
    return found


def fused(row: Row, seed: int, given: argparse.Namespace) -> float:
    return result(row, seed, given).scores["test"][FUSED].value


def result(row: Row, seed: int, given: argparse.Namespace) -> RunResult:
    return run_result(read_json(str(place(row, seed, given) / "result.json")))


def differences(row: Row, other: Row | None, way: str, given: argparse.Namespace) -> list[float]:
    """Paired by seed."""
    if other is None:
        return []
    return [a - b for a, b in zip(accuracies(row, way, given), accuracies(other, way, given), strict=True)]


def moved(row: Row, other: Row, given: argparse.Namespace) -> float:
    """Share of the weight that lies on other heads than with the other row, mean over super-epochs and seeds."""
    shares = []
    for seed in range(given.seeds):
        lines = [read_lines(str(place(each, seed, given) / "weights.jsonl")) for each in (row, other)]
        for one, two in zip(*lines, strict=True):
            shares.append(0.5 * sum(abs(a - b) for a, b in zip(one["weights"], two["weights"], strict=True)))
    return statistics.mean(shares)


def text(given: argparse.Namespace) -> str:
    by_name = {row.name: row for row in ROWS}
    lines = []
    for row in ROWS:
        config = settings(row, given.data, epochs=given.epochs, rate=given.rate)
        exact = None if row.against is None else by_name[row.against]
        alone, beside = in_sequence(row, len(result(row, 0, given).heads), config)
        cpu_s = [json.loads((place(row, seed, given) / CPU_FILE).read_text()) for seed in range(given.seeds)]
        for way in WAYS:
            lines.append(
                [
                    row.name,
                    way,
                    spread(accuracies(row, way, given)),
                    spread(
                        differences(row, None if row.method == "equal" else by_name["equal"], way, given), signed=True
                    ),
                    spread(differences(row, exact, way, given), signed=True),
                    "" if exact is None else f"{moved(row, exact, given):.2f}",
                    alone,
                    beside,
                    round(statistics.mean(cpu_s)),
                ]
            )
    titles = ["weights", "way", "test", "- equal", "- exact", "moved", "in sequence", "with spread", "cpu_s"]
    return table(titles, lines)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="data set directory with frames and log-mel")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rate", type=float, default=0.01)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(given.seeds):
        for row in ROWS:
            carry_out(row, seed, given)
    print(text(given))
    return 0


if __name__ == "__main__":
    sys.exit(main())
