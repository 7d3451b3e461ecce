r"""Methods x seeds on one data set: a table and a report.

ray job submit --working-dir . -- \
    python -m jobs.compare small-cpu --data s3://b/data --out s3://b/comparison --seeds 0 1 2 --workers 8
"""

import sys

from gblend.advice import advise
from gblend.advice_words import advice_words
from gblend.candidate import read_schedule
from gblend.clips import read_dataset_info, resolve_modalities
from gblend.config import ComputeConfig, TrainConfig
from gblend.decision import choose
from gblend.methods import ENSEMBLES, RunSpec
from gblend.records import write_json
from gblend.runs import load_run
from gblend.table import comparison_tables
from gblend.table_text import aligned, fits, to_text, without, wrapped
from gblend.ways import tables_json, way_cells, way_rows
from gblend.worker import make_plan
from jobs.cache import with_cache
from jobs.cli import Flat, run
from jobs.commands import command_line
from jobs.places import absolute
from jobs.recipes import RECIPES
from jobs.report import write_page
from jobs.terminal import Result, say, terminal_columns
from jobs.train import carry_out

COMPUTE = ComputeConfig()


def compare(
    *,
    config: Flat[TrainConfig],
    data: str,
    out: str,
    methods: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (0, 1, 2),
    schedule: str = "",
    compute: Flat[ComputeConfig] = COMPUTE,
) -> Result:
    """Train every method with every seed and compare them: OUT/table.json, OUT/report.html, OUT/runs/.

    One worker group carries out all runs; finished ones are kept when the job is run again.

    Args:
        config: The recipe; every field is a flag.
        data: Data set directory, as `gblend preprocess` writes it.
        out: Comparison directory. On several nodes, storage they share.
        methods: uni:<modality>, naive, dropout, early-stop, pretrain, ogm-ge, equal, fixed, uncertainty, tracked,
            offline, online, ensemble, ensemble+naive. None means each single modality, naive, dropout, equal, offline
            and online, that of the schedule, and both ensembles of these runs, which train nothing. Runs a method
            builds on are added.
        seeds: Each method is trained once with each.
        schedule: `best.json` of a search: its settings take the place of the recipe's, and flags that of both.
        compute: Workers and what each of them holds.
    """
    data, out = absolute(data), absolute(out)
    compute = with_cache(compute, data)
    found = (read_schedule(schedule).method,) if schedule else ()
    chosen = methods or tuple(dict.fromkeys((*default_methods(data, config), *found)))
    plan = make_plan(data, config, chosen, seeds, compute=compute, place=lambda run: f"{out}/runs/{run.name}")
    say(
        f"comparing {', '.join(chosen)} with seeds {', '.join(map(str, seeds))}: {len(plan.places)} runs, "
        f"{len(plan.places) - plan.pending} of them finished"
    )
    carry_out(plan, compute, storage=out)
    runs = [load_run(directory, config.predict_by) for directory in plan.places.values()]
    results = [run.result for run in runs]
    tables = comparison_tables(results)
    ways = [way_rows(results, table) for table in tables]
    document, advice, advised = tables_json(tables, ways), [], ""
    columns = terminal_columns()
    write_json(f"{out}/table.json", document)
    for table, rows in zip(tables, ways, strict=True):
        shown = to_text(table, columns=columns)
        say(f"\n{table.measure}\n\n{shown}" if len(tables) > 1 else shown)
        if rows:
            say(f"\nThe same networks, every way of predicting ({table.split} {table.measure})\n")
            titles, lines = way_cells(rows)
            whole = aligned(titles, lines)
            fitting = fits(whole, columns)
            say(whole if fitting else f"{aligned(*without(titles, lines, ' vs '))}\nDistances are in the report.")
        found = advise(results, table)
        chosen = choose(found, table)
        if chosen is not None and not advised:
            advised = f"{out}/runs/{RunSpec(method=chosen.method, seed=min(chosen.by_seed)).name}"
        for sentence in advice_words(found, table):
            advice.append(sentence)
            say(f"\n{wrapped(sentence, columns)}")
    page = write_page(runs, out=f"{out}/report.html", data=data, command=command_line())
    return Result(place=page, numbers={"advice": advice, "advised_run": advised or None, **document})


def default_methods(data: str, config: TrainConfig) -> tuple[str, ...]:
    """The controls every blend should be compared with, and both forms of Gradient-Blending."""
    modalities = resolve_modalities(read_dataset_info(data), config.modalities)
    single = (f"uni:{name}" for name in modalities)
    return (*single, "naive", "dropout", "equal", "offline", "online", *ENSEMBLES)


if __name__ == "__main__":
    sys.exit(run(compare, prog="python -m jobs.compare", recipes=RECIPES))
