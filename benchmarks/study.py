r"""Which training, and which way of predicting, wins on which data? The study behind the defaults.

    python -m benchmarks.study sets/games-600/data sets/both/data --out study [--seeds 5] [--processes 2]

Every data set is a cell. In each, every variant below is trained with every rate of `RATES` and the first seeds; per
variant and leading way of predicting the rate with the best mean accuracy on ``val`` is chosen, and the other seeds are
trained with it. ``test`` is read once, for the chosen rates. All with one recipe: `jobs.recipes.small_cpu` with four
frames a window. Stopped and started again, it goes on: finished runs are taken as they are, so after a change of code
or recipe choose another ``--out``. The tables come at the end, with ``--tables`` at once.
Cells of other lengths of training are asked for one by one (``--epochs``).

With Adam the sum of the loss weights does not matter: it divides a gradient by its own size. So sums are studied apart,
with ``--optimizer sgd``.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.study_runs import RATES, REQUIRED, SUMS, VARIANTS, Job, Setup, variants_of, work
from benchmarks.study_tables import Cell, estimates, rows_of, to_text

OPTIONAL = tuple(dict.fromkeys(name for name in (*VARIANTS, *SUMS) if name not in REQUIRED))
"""Variants that may be left out."""


def wanted_first(cell: Cell) -> tuple[tuple[str, float], ...]:
    """The grid, what others build on first."""
    return tuple((name, rate) for rate in RATES[cell.setup.optimizer] for name in variants_of(cell.setup))


def wanted_later(cell: Cell) -> tuple[tuple[str, float], ...]:
    """Chosen rates, and at each the runs that others build on."""
    variants = variants_of(cell.setup)
    chosen = {(name, rate) for name in variants for rate in cell.rates(name)}
    builders = {rate for name, rate in chosen if variants[name].method in ("offline", "pretrain")}
    chosen |= {(name, rate) for rate in builders for name in ("uni:rgb", "uni:logmel", "naive")}
    order = list(variants)
    return tuple(sorted(chosen, key=lambda item: (item[1], order.index(item[0]))))


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
    parser.add_argument("--without", nargs="*", default=[], choices=OPTIONAL, help="variants to leave out")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tables", action="store_true", help="train nothing")
    given = parser.parse_args()
    seeds = tuple(range(given.seeds))
    cells = [
        Cell(
            setup=Setup(
                data=data,
                out=given.out,
                optimizer=given.optimizer,
                epochs=given.epochs,
                without=tuple(given.without),
            ),
            seeds=seeds,
            grid_seeds=seeds[: given.grid_seeds],
        )
        for data in given.data
    ]
    for cell in [] if given.tables else cells:
        for seeds_now, later in ((cell.grid_seeds, False), (cell.seeds[given.grid_seeds :], True)):
            wanted = wanted_later(cell) if later else wanted_first(cell)
            jobs = [
                Job(setup=cell.setup, seed=seed, wanted=tuple(item for item in wanted if item[1] == rate))
                for seed in seeds_now
                for rate in RATES[cell.setup.optimizer]
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
