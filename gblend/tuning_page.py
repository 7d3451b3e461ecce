"""One self-contained HTML page about a search: the winner and what it is worth, then every trial."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from gblend.contest import EQUAL, FOUND, PAPER_SCHEDULE
from gblend.figures import Figure, all_heads, weights_figure
from gblend.page import render, write_page
from gblend.report import settings, versions
from gblend.runs import Run
from gblend.scores import metric_words
from gblend.svg import palette_css
from gblend.table import ComparisonTable, MethodRow, spread
from gblend.table_text import cells, decimal, with_sd
from gblend.trial_figures import cost_figure, curves_figure, importance_figure, methods_of, parallel_figure, text_of
from gblend.trials import Trial, best_trial, worth_their_cost

CURVES = "Objective on the validation split after every epoch; a dot: finished, a cross: stopped early or failed."
PARALLEL = "A line is a trial, from what it drew to what came of it; the strong one is the best, paler ones are worse."
IMPORTANCE = (
    "Share of the objective's variance over the space that goes with a setting alone, by functional ANOVA of the "
    "finished trials; of one that only some trials drew, among those."
)
COST = "Finished trials. Numbers: trials that no other one beats in objective at the same or a lower cost."
WEIGHTS = "Loss weights of the best trial's training, estimate by estimate."


def write_tuning_page(
    trials: Sequence[Trial],
    *,
    out: str,
    title: str,
    tables: Sequence[ComparisonTable],
    best_run: Run | None,
    shares: Mapping[str, float],
    why_no_shares: str,
    config: Mapping[str, Any],
    command: str,
) -> str:
    """Write the page to a path or fsspec URL and return that.

    Args:
        trials: All of the search.
        out: Where to write.
        title: Heading.
        tables: Of the winner and its controls, that of all tasks first; none where they were not trained.
        best_run: The training of the best trial.
        shares: Importance of settings (`gblend.importance`).
        why_no_shares: Why there is none.
        config: What decides the search.
        command: The line that made it.
    """
    best, metric = best_trial(trials), metric_words(next((t.metric for t in trials if t.metric), "objective"))
    methods, heads = methods_of(trials), () if best_run is None else all_heads([best_run])
    names = (*heads, *methods)
    figures: dict[str, tuple[str, Figure, str, Sequence[str]]] = {
        "curves": ("Learning curves", curves_figure(trials, metric, names), CURVES, methods),
        "parallel": ("What was tried", parallel_figure(trials, names), PARALLEL, methods),
        "importance": ("What mattered", importance_figure(shares, why_no_shares), IMPORTANCE, ()),
        "cost": ("What a cheaper schedule loses", cost_figure(trials, metric, names), COST, methods),
        "weights": ("Weights of the best trial", _weights(best_run), WEIGHTS, heads),
    }
    page = render(
        "tuning.html.jinja",
        title=title,
        subtitle=_subtitle(trials, metric),
        headline=headline(best, tables, metric),
        facts=facts(tables),
        best=None if best is None else [(name, text_of(value)) for name, value in best.candidate.settings.items()],
        best_method="" if best is None else best.candidate.method,
        figures={
            key: _view(title, figure, caption, legend, names)
            for key, (title, figure, caption, legend) in figures.items()
        },
        front=[_row(trial, best) for trial in worth_their_cost(trials)],
        final=None if not tables else cells(tables[0]),
        final_words="" if not tables else f"{tables[0].split} {tables[0].measure}",
        metric=metric,
        trials=[_row(trial, best) for trial in sorted(trials, key=lambda t: t.number)],
        settings=settings([config]),
        versions=versions(),
        command=command,
        palettes=tuple(Markup(palette_css(names, dark=dark)) for dark in (False, True)),
    )
    return write_page(out, page)


def headline(best: Trial | None, tables: Sequence[ComparisonTable], metric: str) -> str:
    """The winner in a sentence; of how good it is, what fresh seeds say on test."""
    if best is None:
        return "No trial was finished."
    said = f"Trial {best.number} is best: {best.candidate.method}, {decimal(best.objective)} {metric} on val"
    row = tables[0].row(FOUND) if tables else None
    score = None if row is None else tables[0].scores(row).get(row.primary)
    if score is None:
        return f"{said}."
    seeds = f"{len(score.values)} fresh seed{'s' if len(score.values) > 1 else ''}"
    return f"{said}; with {seeds} it reaches {with_sd(score.mean, score.sd)} on {tables[0].split}."


def facts(tables: Sequence[ComparisonTable]) -> list[str]:
    """The winner against its controls, paired by seed, with what chance alone may make of such a difference."""
    if not tables or (found := tables[0].row(FOUND)) is None:
        return []
    table, lines = tables[0], []
    for name, words in ((PAPER_SCHEDULE, "the paper's schedule (10, 5)"), (EQUAL, "equal weights")):
        other = table.row(name)
        pairs = [] if other is None else _paired(table, found, other)
        if not pairs:
            continue
        difference, noise = spread(pairs), table.noise
        sure = "one seed does not tell what chance makes of it"
        if noise is not None:
            larger = "more" if abs(difference.mean) > noise else "not more"
            sure = f"{larger} than chance may make of it ({decimal(noise)})"
        lines.append(f"Against {words}: {with_sd(difference.mean, difference.sd, signed=True)}, {sure}.")
    return lines


def _paired(table: ComparisonTable, one: MethodRow, other: MethodRow) -> list[float]:
    """Differences by seed."""
    first, second = (dict(zip(row.seeds, table.scores(row)[row.primary].values, strict=True)) for row in (one, other))
    return [first[seed] - second[seed] for seed in sorted(set(first) & set(second))]


def _weights(run: Run | None) -> Figure:
    return Figure(missing="No trial was finished.") if run is None else weights_figure([run])


def _view(title: str, figure: Figure, caption: str, legend: Sequence[str], names: tuple[str, ...]) -> dict[str, Any]:
    shown = bool(figure.panels)
    return {
        "title": title,
        "panels": [Markup(svg) for svg in figure.panels],
        "caption": f"{caption} {figure.note}".strip() if shown else figure.missing,
        "legend": [(names.index(name), name) for name in legend] if shown and len(legend) > 1 else [],
    }


def _row(trial: Trial, best: Trial | None) -> dict[str, Any]:
    last, is_best = trial.last, best is not None and trial.number == best.number
    return {
        "number": trial.number,
        "best": is_best,
        "state": trial.state,
        "method": trial.candidate.method,
        "objective": decimal(trial.objective),
        "to_best": "" if best is None or is_best else decimal(trial.objective - best.objective, signed=True),
        "epochs": 0 if last is None else last.epoch,
        "branch_epochs": f"{trial.branch_epochs:g}",
        "estimation_epochs": "0" if last is None else f"{last.estimation_epochs:g}",
        "seconds": "" if last is None else f"{last.seconds:.0f}",
        "point": ", ".join(
            f"{name.removeprefix('blend.').removeprefix('optim.')} {text_of(value)}"
            for name, value in trial.point.items()
            if name != "method"
        ),
        "reason": trial.reason,
    }


def _subtitle(trials: Sequence[Trial], metric: str) -> str:
    counts = {state: sum(trial.state == state for trial in trials) for state in ("finished", "stopped", "failed")}
    said = [f"{len(trials)} trials", *(f"{count} {state}" for state, count in counts.items() if count)]
    total = sum(trial.branch_epochs for trial in trials)
    return " · ".join([*said, f"chosen by val {metric}", f"{total:g} branch-epochs in all"])
