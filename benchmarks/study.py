r"""Which training, and which way of predicting, wins on which data? The study behind the defaults.

    python -m benchmarks.study sets/games-600/data sets/both/data --out study [--seeds 5] [--processes 2]

Every data set is a cell. In each, every variant below is trained with every rate of `RATES` and the first seeds; per
variant and leading way of predicting the rate with the best mean accuracy on ``val`` is chosen, and the other seeds are
trained with it. ``test`` is read once, for the chosen rates. All with one recipe: `jobs.recipes.small_cpu` with four
frames a window. Stopped and started again, it goes on; the tables come at the end and with ``--tables`` at once.
Cells of other lengths of training are asked for one by one (``--epochs``).

With Adam the sum of the loss weights does not matter: it divides a gradient by its own size. So sums are studied apart,
with ``--optimizer sgd``.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.table import table
from gblend.config import OptimConfig, TrainConfig
from gblend.data import load_run_data
from gblend.ensemble import join_runs
from gblend.heads import FUSED
from gblend.methods import BLENDS, RunSpec, needed_runs
from gblend.records import HeadScore, RunResult, read_json, read_lines, run_result
from gblend.runner import Runner
from jobs.recipes import small_cpu


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A method with settings of its own."""

    method: str
    """Name of `gblend.methods`."""
    blend: dict[str, Any] = field(default_factory=dict)
    """Settings of ``blend`` that differ."""
    longer: int = 1
    """Times the epochs of the others."""


ROBUST = {"probe_end": "best-v", "overfitting_floor": "standard-error", "shrinkage": "noise"}
"""Rules against noise, set beforehand."""

VARIANTS = {
    "naive": Variant(method="naive"),
    "pretrain": Variant(method="pretrain"),
    "equal": Variant(method="equal"),
    "offline": Variant(method="offline"),
    "offline, robust": Variant(method="offline", blend=ROBUST),
    "online": Variant(method="online"),
    "online, robust": Variant(method="online", blend=ROBUST),
    "naive x3": Variant(method="naive", longer=3),
    "equal x3": Variant(method="equal", longer=3),
}
"""Beside the single modalities, all with the sum of weights 1; the last two cost what online does."""

SUMS = {
    "naive": Variant(method="naive"),
    "equal": Variant(method="equal"),
    "equal, sum 3": Variant(method="equal", blend={"scale": "heads"}),
    "offline": Variant(method="offline"),
    "offline, sum 3": Variant(method="offline", blend={"scale": "heads"}),
}
"""With SGD."""

RATES = {"adamw": (3e-3, 1e-2), "sgd": (0.03, 0.1, 0.3)}

LEADERS = {FUSED: (FUSED, "refit", "best-head"), "stack": ("mean", "stack")}
"""Ways that share a rate: chosen for the first of them by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What one process does before it takes the next: variants of a cell with one seed and rate."""

    data: str
    out: str
    optimizer: str
    epochs: int
    seed: int
    wanted: tuple[tuple[str, float], ...]
    """Variant and rate."""
    without: tuple[str, ...]
    """Variants left out."""


def config_of(variant: Variant, job: Job, rate: float) -> TrainConfig:
    """The recipe as a variant trains it."""
    base = small_cpu()
    optim = OptimConfig(name="adamw", learning_rate=rate, weight_decay=1e-2)
    if job.optimizer == "sgd":
        optim = OptimConfig(name="sgd", learning_rate=rate, weight_decay=1e-4)
    first = max(1, round(0.4 * job.epochs))
    return replace(
        base,
        name="study",
        epochs=job.epochs * variant.longer,
        modalities=("rgb", "logmel"),
        input=replace(base.input, frames=4, frame_step=4, scale_px=None),
        optim=optim,
        blend=replace(base.blend, first_epochs=first, next_epochs=max(1, round(0.3 * job.epochs)), **variant.blend),
    )


def variants_of(cell: "Cell | Job") -> dict[str, Variant]:
    """All that are trained, single modalities first."""
    single = {f"uni:{name}": Variant(method=f"uni:{name}") for name in ("rgb", "logmel")}
    every = {**single, **(VARIANTS if cell.optimizer == "adamw" else SUMS)}
    return {name: variant for name, variant in every.items() if name not in cell.without}


def place(cell: "Cell | Job", variant: str, rate: float, seed: int) -> Path:
    """Run directory."""
    cell_place = Path(cell.out) / "runs" / f"{cell_name(cell.data)}-{cell.optimizer}-{cell.epochs}"
    return cell_place / f"{rate:g}" / f"{variant.replace(', ', '-').replace(' ', '-')}-s{seed}"


def cell_name(data: str) -> str:
    """Of a data set directory.

    >>> cell_name("sets/games-600/data")
    'games-600'
    """
    path = Path(data)
    return path.parent.name if path.name == "data" else path.name


def work(job: Job) -> None:
    """Train what is not trained yet."""
    torch.set_num_threads(1)
    variants = variants_of(job)
    loaded = load_run_data(job.data, config_of(variants["naive"], job, 0.1))
    for name, rate in job.wanted:
        variant = variants[name]
        config = config_of(variant, job, rate)
        spec = RunSpec(method=variant.method, seed=job.seed)
        needed = {
            head: str(place(job, other.method, rate, job.seed))
            for head, other in needed_runs(spec, loaded.modalities, config).items()
        }
        where = place(job, name, rate, job.seed)
        if (where / "result.json").exists():
            continue
        started_s = time.process_time()
        result = Runner(data=loaded, config=config, data_path=job.data).run(spec, str(where), needed)
        (where / "cpu.json").write_text(json.dumps(time.process_time() - started_s))
        score = result.scores["val"][FUSED if FUSED in result.heads else result.heads[0]].value
        print(f"{cell_name(job.data)} {name} {rate:g} seed {job.seed}: val {score:.3f}", flush=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One data set of the study, as its finished runs tell it."""

    data: str
    out: str
    optimizer: str
    epochs: int
    seeds: tuple[int, ...]
    grid_seeds: tuple[int, ...]
    without: tuple[str, ...]
    """Variants left out."""

    def result(self, variant: str, rate: float, seed: int) -> RunResult:
        """Of a finished run."""
        where = place(self, variant, rate, seed)
        return run_result(read_json(str(where / "result.json")))

    def rate(self, variant: str, way: str) -> float:
        """The best on ``val``, mean over the seeds of the grid; of equals the lowest."""
        leader = next((lead for lead, ways in LEADERS.items() if way in ways), FUSED)

        def on_val(rate: float) -> float:
            return statistics.mean(
                _way(self.result(variant, rate, seed), "val", leader).value for seed in self.grid_seeds
            )

        return max(RATES[self.optimizer], key=on_val)

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
            runs = {name: str(place(self, name, self.rate(name, FUSED), seed)) for name in members}
            found.append(join_runs(runs).predictions.scores[split][way].value)
        return found

    def cost(self, variant: str, way: str) -> tuple[float, float]:
        """Branch epochs and CPU seconds of one run by itself, means over the seeds."""
        rate = self.rate(variant, way)
        results = [self.result(variant, rate, seed) for seed in self.seeds]
        places = [place(self, variant, rate, seed) for seed in self.seeds]
        cpu_s = [json.loads((where / "cpu.json").read_text()) for where in places]
        return statistics.mean(r.branch_epochs for r in results), statistics.mean(cpu_s)


def _way(result: RunResult, split: str, way: str) -> HeadScore:
    """A run's score by a way of predicting; a network of one head has one way."""
    if result.predictions is not None and way in result.predictions.scores[split]:
        return result.predictions.scores[split][way]
    (only,) = result.scores[split].values()
    return only


def ways_of(variant: Variant) -> tuple[str, ...]:
    """Ways of predicting that a variant leaves."""
    return (FUSED, "refit", "best-head", "mean", "stack") if variant.method in BLENDS else (FUSED,)


def wanted_first(cell: Cell) -> tuple[tuple[str, float], ...]:
    """The grid, what others build on first."""
    return tuple((name, rate) for rate in RATES[cell.optimizer] for name in variants_of(cell))


def wanted_later(cell: Cell) -> tuple[tuple[str, float], ...]:
    """Chosen rates, and at each the runs that others build on."""
    variants = variants_of(cell)
    chosen = {(name, rate) for name in variants for rate in cell.rates(name)}
    builders = {rate for name, rate in chosen if variants[name].method in ("offline", "pretrain")}
    chosen |= {(name, rate) for rate in builders for name in ("uni:rgb", "uni:logmel", "naive")}
    order = list(variants)
    return tuple(sorted(chosen, key=lambda item: (item[1], order.index(item[0]))))


def rows_of(cell: Cell) -> list[dict[str, Any]]:
    """Every variant by every way: test accuracy, differences paired by seed, cost."""
    variants = variants_of(cell)
    single = max(("uni:rgb", "uni:logmel"), key=lambda name: statistics.mean(cell.accuracy(name, FUSED, "val")))
    best = cell.accuracy(single, FUSED, "test")
    equal = {way: cell.accuracy("equal", way, "test") for way in ways_of(variants["equal"])}
    rows = []

    def add(name: str, way: str, test: list[float], val: list[float], rate: str, cost: float, cpu_s: float) -> None:
        rows.append(
            {
                "cell": cell_name(cell.data),
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
    for name, variant in variants_of(cell).items():
        if variant.method not in ("offline", "online"):
            continue
        rate = cell.rate(name, FUSED)
        for seed in cell.seeds:
            where = place(cell, name, rate, seed)
            for record in read_lines(str(where / "weights.jsonl")):
                weights = " ".join(f"{weight:.2f}" for weight in record["weights"])
                lines.append([name, seed, record["epoch"], weights, record["weights_moved"]])
    titles = ["variant", "seed", "epoch", "w rgb, logmel, fused", "moved"]
    return f"{cell_name(cell.data)}: weights\n\n{table(titles, lines)}"


def run_all(jobs: Iterable[Job], processes: int) -> None:
    """Jobs in worker processes; an error ends the study."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(work, job) for job in jobs]:
            future.result()


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="data set directories: one cell each")
    parser.add_argument("--out", required=True)
    parser.add_argument("--optimizer", choices=tuple(RATES), default="adamw")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--grid-seeds", type=int, default=2)
    parser.add_argument("--without", nargs="*", default=[], help="variants to leave out")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tables", action="store_true", help="train nothing")
    given = parser.parse_args()
    seeds = tuple(range(given.seeds))
    cells = [
        Cell(
            data=data,
            out=given.out,
            optimizer=given.optimizer,
            epochs=given.epochs,
            seeds=seeds,
            grid_seeds=seeds[: given.grid_seeds],
            without=tuple(given.without),
        )
        for data in given.data
    ]
    for cell in [] if given.tables else cells:
        for seeds_now, later in ((cell.grid_seeds, False), (cell.seeds[given.grid_seeds :], True)):
            wanted = wanted_later(cell) if later else wanted_first(cell)
            jobs = [
                Job(
                    data=cell.data,
                    out=cell.out,
                    optimizer=cell.optimizer,
                    epochs=given.epochs,
                    seed=seed,
                    wanted=tuple(item for item in wanted if item[1] == rate),
                    without=cell.without,
                )
                for seed in seeds_now
                for rate in RATES[cell.optimizer]
            ]
            run_all(jobs, given.processes)
    rows = [row for cell in cells for row in rows_of(cell)]
    (Path(given.out) / f"{given.optimizer}-{given.epochs}.json").write_text(json.dumps(rows, indent=1))
    print("\n\n".join(estimates(cell) for cell in cells))
    print()
    print(to_text(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
