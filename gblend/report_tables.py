"""The methods table of the report: which numbers stand in which cell, and how each is to be read.

What decides stands first, so that it is seen on a phone and on paper: what predicts, its distance to the baselines, the
cost. Every head and other metrics follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gblend.scores import metric_words
from gblend.table import BASELINES, ComparisonTable, MethodRow, Spread
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
class RowView:
    """A method's numbers."""

    row: MethodRow
    """What they are of."""
    name: str
    """The method in words."""
    score: Cell
    """Of what predicts."""
    differences: Sequence[Cell]
    """To each baseline."""
    heads: Sequence[Cell]
    """One per head."""
    others: Sequence[Cell]
    """One per other metric of what predicts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableView:
    """A methods table, ready for the page."""

    table: ComparisonTable
    """What it shows."""
    rows: Sequence[RowView]
    """One per method."""
    baselines: Sequence[str]
    """What methods are compared with."""
    heads: Sequence[str]
    """Those with a column of their own: of some run they are not what predicts."""
    others: Sequence[str]
    """Titles of the columns of other metrics."""
    uneven: bool
    """Methods have different seeds."""


def table_view(table: ComparisonTable) -> TableView:
    """The table, row by row."""
    baselines = [name for name in BASELINES if any(name in row.differences for row in table.rows)]
    heads = [
        head for head in table.heads if any(head != row.primary and head in table.scores(row) for row in table.rows)
    ]
    return TableView(
        table=table,
        rows=[
            RowView(
                row=row,
                name=method_name(row.method),
                score=_cell(table.scores(row).get(row.primary), style="primary"),
                differences=[_difference(table, row, name) for name in baselines],
                heads=[_cell(table.scores(row).get(head)) for head in heads],
                others=[_cell(row.others.get(name)) for name in other_metrics(table)],
            )
            for row in table.rows
        ],
        baselines=baselines,
        heads=heads,
        others=[metric_words(name) for name in other_metrics(table)],
        uneven=len({row.seeds for row in table.rows}) > 1,
    )


def _cell(found: Spread | None, *, style: str = "") -> Cell:
    if found is None:
        return Cell(mean="")
    return Cell(mean=decimal(found.mean), sd="" if found.sd is None else decimal(found.sd), style=style)


def _difference(table: ComparisonTable, row: MethodRow, baseline: str) -> Cell:
    found = row.differences.get(baseline)
    if found is None:
        return Cell(mean="")
    noise = table.noise is not None and abs(found.mean) < table.noise
    sd = "" if found.sd is None else decimal(found.sd)
    return Cell(mean=decimal(found.mean, signed=True), sd=sd, style="noise" if noise else "")
