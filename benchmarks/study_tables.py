"""Tables of `benchmarks.study`: rates chosen on val, every variant by every way of predicting on test, weights."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.study_runs import CPU_FILE, LEADERS, RATES, Setup, cell_name, place, variants_of, ways_of
from benchmarks.table import table
from gblend.ensemble import join_runs
from gblend.heads import FUSED
from gblend.records import HeadScore, RunResult, read_json, read_lines, run_result

BUILDS_ON = {"pretrain": ("uni:rgb", "uni:logmel"), "offline": ("uni:rgb", "uni:logmel", "naive")}
"""Method to the variants whose runs it reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One data set of the study, as its finished runs tell it."""

    setup: Setup
    """What its runs share."""
    seeds: tuple[int, ...]
    """All."""
    grid_seeds: tuple[int, ...]
    """Those that choose rates."""

    def result(self, variant: str, rate: float, seed: int) -> RunResult:
        """Of a finished run."""
        where = place(self.setup, variant, rate, seed)
        return run_result(read_json(str(where / "result.json")))

    def rate(self, variant: str, way: str) -> float:
        """The best on ``val``, mean over the seeds of the grid; of equals the lowest."""
        leader = next((lead for lead, ways in LEADERS.items() if way in ways), FUSED)

        def on_val(rate: float) -> float:
            return statistics.mean(
                _way(self.result(variant, rate, seed), "val", leader).value for seed in self.grid_seeds
            )

        return max(RATES[self.setup.optimizer], key=on_val)

    def rates(self, variant: str) -> set[float]:
        """All that are chosen for some way of predicting."""
        return {self.rate(variant, way) for way in LEADERS}

    def accuracy(self, variant: str, way: str, split: str) -> list[float]:
        """Per seed, at the chosen rate."""
        rate = self.rate(variant, way)
        return [_way(self.result(variant, rate, seed), split, way).value for seed in self.seeds]

    def ensemble(self, members: Sequence[str], way: str, split: str) -> list[float]:
        """Per seed, of finished runs, each at its own rate."""
        found = []
        for seed in self.seeds:
            runs = {name: str(place(self.setup, name, self.rate(name, FUSED), seed)) for name in members}
            found.append(join_runs(runs).predictions.scores[split][way].value)
        return found

    def cost(self, variant: str, way: str) -> tuple[float, float]:
        """Branch epochs and CPU seconds of a run and all that it builds on, means over the seeds."""
        rate = self.rate(variant, way)
        results = [self.result(variant, rate, seed) for seed in self.seeds]
        builds_on = BUILDS_ON.get(variants_of(self.setup)[variant].method, ())
        cpu_s = [
            json.loads((place(self.setup, name, rate, seed) / CPU_FILE).read_text())
            for name in (variant, *builds_on)
            for seed in self.seeds
        ]
        return statistics.mean(r.branch_epochs for r in results), math.fsum(cpu_s) / len(self.seeds)


def _way(result: RunResult, split: str, way: str) -> HeadScore:
    """A run's score by a way of predicting; a network of one head has one way."""
    if result.predictions is not None and way in result.predictions.scores[split]:
        return result.predictions.scores[split][way]
    (only,) = result.scores[split].values()
    return only


def rows_of(cell: Cell) -> list[dict[str, Any]]:
    """Every variant by every way: test accuracy, differences paired by seed, cost."""
    variants = variants_of(cell.setup)
    single = max(("uni:rgb", "uni:logmel"), key=lambda name: statistics.mean(cell.accuracy(name, FUSED, "val")))
    best = cell.accuracy(single, FUSED, "test")
    equal = {way: cell.accuracy("equal", way, "test") for way in ways_of(variants["equal"])}
    rows = []

    def add(name: str, way: str, test: list[float], val: list[float], rate: str, cost: float, cpu_s: float) -> None:
        rows.append(
            {
                "cell": cell_name(cell.setup.data),
                "variant": name,
                "way": way,
                "rate": rate,
                "val": statistics.mean(val),
                "test": test,
                "over_single": [one - other for one, other in zip(test, best, strict=True)],
                "over_equal": [one - other for one, other in zip(test, equal[way], strict=True)]
                if way in equal
                else [],
                "single": single,
                "branch_epochs": cost,
                "cpu_s": cpu_s,
            }
        )

    for name, variant in variants.items():
        for way in ways_of(variant):
            cost, cpu_s = cell.cost(name, way)
            test, val = (cell.accuracy(name, way, split) for split in ("test", "val"))
            add(name, way, test, val, f"{cell.rate(name, way):g}", cost, cpu_s)
    for name, members in (
        ("ensemble", ("uni:rgb", "uni:logmel")),
        ("ensemble+naive", ("uni:rgb", "uni:logmel", "naive")),
    ):
        for way in ("best-head", "mean", "stack"):
            costs = [cell.cost(member, FUSED) for member in members]
            test, val = (cell.ensemble(members, way, split) for split in ("test", "val"))
            add(name, way, test, val, "own", sum(c for c, _ in costs), sum(s for _, s in costs))
    return rows


def to_text(rows: Sequence[dict[str, Any]]) -> str:
    """A table per cell."""
    cells = dict.fromkeys(row["cell"] for row in rows)
    parts = []
    for cell in cells:
        lines = [
            [
                row["variant"],
                row["way"],
                row["rate"],
                spread(row["test"]),
                spread(row["over_single"], signed=True),
                spread(row["over_equal"], signed=True),
                round(row["branch_epochs"]),
                round(row["cpu_s"]),
            ]
            for row in rows
            if row["cell"] == cell
        ]
        titles = ["variant", "way", "rate", "test", "vs best single", "vs equal, same way", "branch epochs", "cpu_s"]
        single = next(row["single"] for row in rows if row["cell"] == cell)
        parts.append(f"{cell} (best single modality on val: {single})\n\n{table(titles, lines)}")
    return "\n\n".join(parts)


def spread(values: Sequence[float], *, signed: bool = False) -> str:
    """Mean and sample standard deviation.

    >>> spread([0.5, 0.52]), spread([-0.01, 0.03], signed=True), spread([])
    ('0.510+-0.014', '+0.010+-0.028', '')
    """
    if not values:
        return ""
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):{'+' if signed else ''}.3f}+-{sd:.3f}"


def estimates(cell: Cell) -> str:
    """Weights of the estimating variants, and how much of them chance moves."""
    lines = []
    for name, variant in variants_of(cell.setup).items():
        if variant.method not in ("offline", "online"):
            continue
        rate = cell.rate(name, FUSED)
        for seed in cell.seeds:
            where = place(cell.setup, name, rate, seed)
            for record in read_lines(str(where / "weights.jsonl")):
                weights = " ".join(f"{weight:.2f}" for weight in record["weights"])
                lines.append([name, seed, record["epoch"], weights, record["weights_moved"]])
    titles = ["variant", "seed", "epoch", "w rgb, logmel, fused", "moved"]
    return f"{cell_name(cell.setup.data)}: weights\n\n{table(titles, lines)}"
