"""Every way of predicting beside each other: the second table of a comparison.

The first table judges all methods by one way of predicting. One training of all heads leaves more: this one
shows what the same networks reach by the fused head, by it refitted on frozen trunks, by the head that is best on V, by
the mean of all heads and by their stack fitted on V, and how far each is from the best single modality, paired by seed.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gblend.heads import FUSED, for_task
from gblend.records import BEST_HEAD, MEAN, REFIT, STACK, RunResult, to_json
from gblend.table import ComparisonTable, Spread, method_order, spread
from gblend.table_text import with_sd

WAYS = (FUSED, REFIT, BEST_HEAD, MEAN, STACK)
"""In the order of the columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WayRow:
    """One method that leaves several heads, over its seeds."""

    method: str
    """For example ``equal`` or ``ensemble``."""
    seeds: tuple[int, ...]
    """Ascending."""
    scores: dict[str, Spread]
    """Per way, the table's metric on its split."""
    over_best_single: dict[str, Spread]
    """Per way, the metric minus that of the best single modality with the same seed, where it ran on the same clips."""


def way_rows(results: Sequence[RunResult], table: ComparisonTable) -> tuple[WayRow, ...]:
    """One row per method whose runs kept several heads; in the order of the first table."""
    split = table.split
    single = {r.seed: r for r in results if r.method == table.best_single}
    groups: dict[str, list[RunResult]] = defaultdict(list)
    for result in sorted(results, key=lambda result: result.seed):
        if result.predictions is not None and split in result.predictions.scores:
            groups[result.method].append(result)
    rows = []
    for method in method_order(groups):
        values: dict[str, list[float]] = defaultdict(list)
        over: dict[str, list[float]] = defaultdict(list)
        for run in groups[method]:
            other = single[run.seed].judged(split, table.task) if run.seed in single else None
            assert run.predictions is not None
            for way, score in for_task(run.predictions.scores[split], table.task).items():
                values[way].append(score.value)
                if other is not None and other.count == score.count:
                    over[way].append(score.value - other.value)
        rows.append(
            WayRow(
                method=method,
                seeds=tuple(run.seed for run in groups[method]),
                scores={way: spread(values[way]) for way in WAYS if way in values},
                over_best_single={way: spread(over[way]) for way in WAYS if way in over},
            )
        )
    return tuple(rows)


def tables_json(tables: Sequence[ComparisonTable], ways: Sequence[Sequence[WayRow]]) -> dict[str, Any]:
    """``table.json``: the first table with its ways of predicting, and under ``by_task`` those of several tasks."""
    main, *others = (
        {**table.to_json(), "ways": [to_json(row) for row in rows]} for table, rows in zip(tables, ways, strict=True)
    )
    return {**main, **({"by_task": {values["task"]: values for values in others}} if others else {})}


def way_cells(rows: Sequence[WayRow]) -> tuple[list[str], list[list[str]]]:
    """Column titles and rows of text: the metric by way, then the differences."""
    ways = [way for way in WAYS if any(way in row.scores for row in rows)]
    titles = ["method", *ways, *(f"{way} vs best single" for way in ways)]
    lines = [
        [
            row.method,
            *(_text(row.scores.get(way)) for way in ways),
            *(_text(row.over_best_single.get(way), signed=True) for way in ways),
        ]
        for row in rows
    ]
    keep = [i for i in range(len(titles)) if i == 0 or any(line[i] for line in lines)]
    return [titles[i] for i in keep], [[line[i] for i in keep] for line in lines]


def _text(found: Spread | None, *, signed: bool = False) -> str:
    return "" if found is None else with_sd(found.mean, found.sd, signed=signed)
