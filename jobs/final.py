"""The winner of a search, trained anew with seeds it has not seen, beside its controls; here the test split is read."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gblend.candidate import Candidate
from gblend.config import ComputeConfig, TrainConfig
from gblend.contest import contestants
from gblend.methods import RunSpec
from gblend.records import to_json, write_json
from gblend.runs import Run, load_run
from gblend.table import ComparisonTable, comparison_tables
from gblend.worker import Plan, make_plan
from jobs.train import carry_out

FINAL_DIRECTORY = "final"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """The winner or a control."""

    name: str
    """In the table."""
    method: str
    """It trains by."""
    plan: Plan
    """Its runs, and those that they build on."""


def plan_rows(
    found: Candidate, recipe: TrainConfig, seeds: Sequence[int], *, data: str, out: str, compute: ComputeConfig
) -> list[Row]:
    """What is to be trained.

    Raises:
        ValueError: Other runs are there.
    """
    rows = []
    for name, each in contestants(found).items():
        config = each.config(recipe)
        # A search that goes on may find another winner, which is trained beside the earlier one.
        trained = hashlib.sha256(f"{each.method} {json.dumps(config.to_json(), sort_keys=True)}".encode()).hexdigest()
        place = f"{out}/{FINAL_DIRECTORY}/{name.translate(str.maketrans(' ', '-', '(),'))}-{trained[:8]}"

        def of_run(run: RunSpec, place: str = place) -> str:
            return f"{place}/{run.name}"

        plan = make_plan(data, config, [each.method], seeds, compute=compute, place=of_run)
        rows.append(Row(name=name, method=each.method, plan=plan))
    return rows


def train_rows(rows: Sequence[Row], compute: ComputeConfig, *, out: str) -> None:
    """Train what is not finished."""
    first, *others = (row.plan for row in rows)
    carry_out(first, compute, storage=f"{out}/{FINAL_DIRECTORY}", more=others)


def compare_rows(
    rows: Sequence[Row], recipe: TrainConfig, *, out: str
) -> tuple[tuple[ComparisonTable, ...], list[Run]]:
    """The tables of finished rows, also written to ``final.json``, and their runs, called by the rows' names."""
    runs = []
    for row in rows:
        for run, place in row.plan.places.items():
            if run.method == row.method:
                loaded = load_run(place, recipe.predict_by)
                runs.append(replace(loaded, result=replace(loaded.result, method=row.name)))
    tables = comparison_tables([run.result for run in runs])
    write_json(f"{out}/final.json", [to_json(table) for table in tables])
    return tables, runs
