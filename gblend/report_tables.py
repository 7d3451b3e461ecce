"""The methods table of the report: which numbers stand in which cell, and how each is to be read."""

from collections.abc import Sequence
from dataclasses import dataclass

from gblend.scores import metric_words
from gblend.table import BASELINES, ComparisonTable, MethodRow
from gblend.table_text import decimal, other_metrics
from gblend.words import method_name


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A number of the methods table."""

    mean: str
    """Formatted; empty for an empty cell."""
    sd: str = ""
    """Formatted; empty for one seed."""
    style: str = ""
    """CSS class: ``primary`` for what predicts, ``noise`` for a difference within noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableView:
    """A methods table, ready for the page."""

    table: ComparisonTable
    """What it shows."""
    rows: Sequence[tuple[MethodRow, str, Sequence[Cell]]]
    """Row, its method in words, its numbers."""
    others: Sequence[str]
    """Titles of the columns of other metrics."""
    baselines: Sequence[str]
    """What methods are compared with."""
    uneven: bool
    """Methods have different seeds."""


def table_view(table: ComparisonTable) -> TableView:
    """The table, row by row."""
    return TableView(
        table=table,
        rows=[(row, method_name(row.method), _cells(table, row.method)) for row in table.rows],
        others=[metric_words(name) for name in other_metrics(table)],
        baselines=_baselines(table),
        uneven=len({row.seeds for row in table.rows}) > 1,
    )


def _baselines(table: ComparisonTable) -> list[str]:
    return [name for name in BASELINES if any(name in row.differences for row in table.rows)]


def _cells(table: ComparisonTable, method: str) -> list[Cell]:
    """One cell per head, one per other metric of what predicts, then one per baseline."""
    row = table.row(method)
    assert row is not None
    scores = table.scores(row)
    cells = []
    for head in table.heads:
        found = scores.get(head)
        style = "primary" if head == row.primary else ""
        cells.append(
            Cell(mean=decimal(found.mean), sd="" if found.sd is None else decimal(found.sd), style=style)
            if found
            else Cell(mean="")
        )
    for name in other_metrics(table):
        other = row.others.get(name)
        sd = "" if other is None or other.sd is None else decimal(other.sd)
        cells.append(Cell(mean="" if other is None else decimal(other.mean), sd=sd))
    for baseline in _baselines(table):
        difference = row.differences.get(baseline)
        if difference is None:
            cells.append(Cell(mean=""))
            continue
        sd = "" if difference.sd is None else decimal(difference.sd)
        noise = table.noise is not None and abs(difference.mean) < table.noise
        cells.append(Cell(mean=decimal(difference.mean, signed=True), sd=sd, style="noise" if noise else ""))
    return cells
