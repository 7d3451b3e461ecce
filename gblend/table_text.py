"""The comparison table as text: for a terminal, for Markdown, and the words and numbers that other renderings share."""

import math
import textwrap
from collections.abc import Callable, Sequence

from gblend.scores import ACCURACY, metric_words
from gblend.table import BASELINES, ComparisonTable

COST = (
    "A branch epoch is one network trained for one epoch, probes included; borrowed ones were trained by other runs of "
    "this comparison and are not in the seconds of this one. Refitting a fused head on frozen trunks is in the "
    "seconds, not in the epochs."
)
"""What the columns of cost count."""

NARROW = (
    "Score: of what predicts; vs single: against the best single modality; epochs: branch epochs. The other columns "
    "(every head, other metrics, what was borrowed, seconds) do not fit this terminal: the report has all, and "
    "table.json of a comparison."
)
"""Under a table that was cut to the columns that decide."""


def decimal(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """A share without the leading zero; a dash for nothing.

    >>> decimal(0.5237), decimal(-0.03, 2, signed=True), decimal(1.0, 2), decimal(float("nan"))
    ('.524', '−.03', '1.00', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{abs(value):.{digits}f}"
    zero = float(text) == 0
    sign = "−" if value < 0 and not zero else "+" if signed and not zero else ""
    return sign + text.removeprefix("0")


def with_sd(mean: float, sd: float | None, *, signed: bool = False) -> str:
    """Mean and spread; the mean alone where one seed gives no spread.

    >>> with_sd(0.5, 0.012), with_sd(0.02, None, signed=True)
    ('.500 ± .012', '+.020')
    """
    return decimal(mean, signed=signed) + ("" if sd is None else f" ± {decimal(sd)}")


def cells(table: ComparisonTable) -> tuple[list[str], list[list[str]]]:
    """Column titles and rows of text, shared by every rendering: a column a head, other metrics, the differences."""
    others = other_metrics(table)
    titles = [
        "method",
        *table.heads,
        *map(metric_words, others),
        *(f"vs {name}" for name in BASELINES),
        "branch epochs",
        "borrowed",
        "own s",
        "seeds",
    ]
    lines = []
    for row in table.rows:
        scores = table.scores(row)
        lines.append(
            [
                row.method,
                *(with_sd(scores[h].mean, scores[h].sd) if h in scores else "" for h in table.heads),
                *(with_sd(found.mean, found.sd) if (found := row.others.get(name)) else "" for name in others),
                *(with_sd(d.mean, d.sd, signed=True) if (d := row.differences.get(b)) else "" for b in BASELINES),
                f"{row.branch_epochs:g}",
                f"{row.borrowed_epochs:g}" if row.borrowed_epochs else "",
                f"{row.seconds:.0f}",
                f"{len(row.seeds)}",
            ]
        )
    keep = [i for i in range(len(titles)) if i == 0 or any(line[i] for line in lines)]
    return [titles[i] for i in keep], [[line[i] for i in keep] for line in lines]


def other_metrics(table: ComparisonTable) -> tuple[str, ...]:
    """Metrics beside the one that methods are compared by."""
    return tuple(dict.fromkeys(name for row in table.rows for name in row.others))


def to_text(table: ComparisonTable, *, columns: int | None = None) -> str:
    """Aligned columns for a terminal, and what they count under them.

    Args:
        table: What to show.
        columns: Width of the terminal: a wider table is cut to the columns that decide, text is wrapped. None: no
            terminal, and no limit.
    """
    whole, note = aligned(*cells(table)), _note(table)
    if not fits(whole, columns):
        whole, note = aligned(*deciding_cells(table)), f"{NARROW}\n{note}"
    return f"{whole}\n{wrapped(note, columns)}"


def deciding_cells(table: ComparisonTable) -> tuple[list[str], list[list[str]]]:
    """Column titles and rows of what methods are chosen by: for a narrow terminal, with short titles."""
    lines = []
    for row in table.rows:
        score = table.scores(row).get(row.primary)
        lines.append(
            [
                row.method,
                "" if score is None else with_sd(score.mean, score.sd),
                *(with_sd(d.mean, d.sd, signed=True) if (d := row.differences.get(b)) else "" for b in BASELINES),
                f"{row.branch_epochs:g}",
                str(len(row.seeds)),
            ]
        )
    titles = ["method", "score", "vs naive", "vs equal", "vs single", "epochs", "seeds"]
    even = len({row.seeds for row in table.rows}) == 1
    kept = [
        at for at, title in enumerate(titles) if any(line[at] for line in lines) and not (even and title == "seeds")
    ]
    return [titles[at] for at in kept], [[line[at] for at in kept] for line in lines]


def without(titles: Sequence[str], lines: Sequence[Sequence[str]], words: str) -> tuple[list[str], list[list[str]]]:
    """The columns whose title lacks these words.

    >>> without(["method", "stack", "stack vs equal"], [["naive", ".5", "-.1"]], " vs ")
    (['method', 'stack'], [['naive', '.5']])
    """
    kept = [at for at, title in enumerate(titles) if words not in title]
    return [titles[at] for at in kept], [[line[at] for at in kept] for line in lines]


def fits(text: str, columns: int | None) -> bool:
    r"""Whether no line is longer than the terminal is wide.

    >>> fits("four\nfiver", 5), fits("four\nfiver", 4), fits("four\nfiver", None)
    (True, False, True)
    """
    return columns is None or all(len(line) <= columns for line in text.splitlines())


def wrapped(text: str, columns: int | None) -> str:
    r"""The text with no line longer than the terminal is wide, but for words that are.

    >>> print(wrapped("By validation accuracy,\nchoose equal weights.", 14))
    By validation
    accuracy,
    choose equal
    weights.
    >>> wrapped("By validation accuracy", None)
    'By validation accuracy'
    """
    if columns is None:
        return text
    lines = (
        textwrap.wrap(line, columns, break_long_words=False, break_on_hyphens=False) or [""]
        for line in text.splitlines()
    )
    return "\n".join(line for each in lines for line in each)


def aligned(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, all but the first to the right.

    >>> print(aligned(["method", "fused"], [["equal", ".5"]]))
    method  fused
    ------  -----
    equal      .5
    """
    widths = [max(len(line[i]) for line in [titles, *lines]) for i in range(len(titles))]
    pads: list[Callable[..., str]] = [str.ljust, *[str.rjust] * (len(titles) - 1)]

    def joined(line: Sequence[str]) -> str:
        return "  ".join(pad(text, width) for pad, text, width in zip(pads, line, widths, strict=True)).rstrip()

    return "\n".join([joined(titles), "  ".join("-" * width for width in widths), *map(joined, lines)])


def to_markdown(table: ComparisonTable) -> str:
    """A Markdown table, and what its columns count under it."""
    titles, lines = cells(table)
    rows = [titles, ["---", *["---:"] * (len(titles) - 1)], *lines]
    return "\n".join([*("| " + " | ".join(row) + " |" for row in rows), "", _note(table)])


def _note(table: ComparisonTable) -> str:
    best = f" Best single modality by validation {table.measure}: {table.best_single}." if table.best_single else ""
    spreads = "mean ± sample sd over seeds; " if table.min_seeds > 1 else ""
    measure = table.measure[:1].upper() + table.measure[1:] if table.metric == ACCURACY else table.measure
    judged = f"the only head or, of several, {table.way_words}"
    of = f"{measure} on {table.split}, {spreads}differences of {judged}, paired by seed."
    others = ", ".join(map(metric_words, other_metrics(table)))
    extra = f" Also of what predicts: {others}." if others else ""
    return f"{of}{extra}{best}\n{COST}"
