"""One self-contained HTML page about finished runs: what they show, then everything it was concluded from.

The page needs no network, script or font of its own: figures are inline SVG, clips are data URIs, and colours follow
the reader's light or dark scheme. Every sentence about the runs is computed (`gblend.verdict`) from what it shows.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from markupsafe import Markup

from gblend.advice import advise
from gblend.advice_words import advice_words
from gblend.aggregate import estimate_steps, groups
from gblend.class_figure import class_caption, class_figure
from gblend.epoch_ogr import epoch_caption, epoch_figure
from gblend.figures import Figure, accuracy_figure, all_heads, loss_figure, ogr_figure, ogr_text, weights_figure
from gblend.heads import by_key
from gblend.page import render, write_page
from gblend.per_class import ClassGains, load_gains
from gblend.runs import Run
from gblend.samples import SampleClip, animation, flow_frames, flow_scale_px, flow_wheel, logmel_svg
from gblend.scores import ACCURACY, metric_words
from gblend.summary import DatasetSummary
from gblend.svg import palette_css
from gblend.table import BASELINES, ComparisonTable, MethodRow, comparison_tables
from gblend.table_text import COST, decimal, other_metrics
from gblend.verdict import (
    accuracy_caption,
    method_name,
    ogr_caption,
    overfitting_caption,
    verdict,
    weights_caption,
)
from gblend.ways import way_cells, way_rows


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
class FigureView:
    """A figure with its caption, ready for the page."""

    key: str
    """Id of the section."""
    title: str
    """Heading."""
    panels: tuple[Markup, ...]
    """SVG elements."""
    caption: str
    """What it means for these data; where there is no panel, why not."""
    legend: Sequence[tuple[str, int]]
    """Heads with the index of their colour."""
    wide: bool = False
    """Panels are wider than usual."""


def write_report(
    runs: Sequence[Run],
    *,
    out: str,
    title: str,
    tables: Sequence[ComparisonTable] = (),
    samples: Sequence[SampleClip] = (),
    dataset_summary: DatasetSummary | None = None,
    command: str = "",
    notes: Sequence[str] = (),
) -> str:
    """Write the page to ``out`` (a path or fsspec URL) and return that.

    Args:
        runs: One run or many.
        out: Where to write.
        title: Heading of the page.
        tables: Their comparison (`gblend.table.comparison_tables`), computed when not given.
        samples: Clips to show; none leaves the section out.
        dataset_summary: What the data set holds; None leaves the section out.
        command: The line that made the runs or the page, shown at the end.
        notes: What else a reader must know, for example which runs did not finish; shown under the verdict.
    """
    tables = tuple(tables) or comparison_tables([run.result for run in runs])
    tasks = by_key(() if dataset_summary is None else dataset_summary.tasks)
    of_one_task = tables[1:] or tables
    gains = [
        load_gains(runs, table, tasks[table.task].classes if table.task in tasks else None) for table in of_one_task
    ]
    page = render_report(
        runs,
        title=title,
        tables=tables,
        gains=gains,
        samples=samples,
        dataset_summary=dataset_summary,
        command=command,
        notes=notes,
    )
    return write_page(out, page)


def render_report(
    runs: Sequence[Run],
    *,
    title: str,
    tables: Sequence[ComparisonTable],
    gains: Sequence[ClassGains | None],
    samples: Sequence[SampleClip],
    dataset_summary: DatasetSummary | None,
    command: str,
    notes: Sequence[str],
) -> str:
    """The page as text."""
    heads, table = all_heads(runs), tables[0]
    results = [run.result for run in runs]
    return render(
        "report.html.jinja",
        title=title,
        subtitle=_subtitle(runs, table, dataset_summary),
        notes=notes,
        verdict=verdict(table, tables[1:]),
        advice=tuple(words for of_task in tables for words in advice_words(advise(results, of_task), of_task)),
        cost=COST,
        tables=[_table_view(of_task) for of_task in tables],
        ways=[(of_task, found) for of_task in tables if (found := way_cells(way_rows(results, of_task)))[1]],
        figures=_figures(runs, tables, gains),
        estimates=_estimates(runs),
        heads=list(zip(heads, range(len(heads)), strict=True)),
        palettes=tuple(Markup(palette_css(table.heads, dark=dark)) for dark in (False, True)),
        samples=[_sample_view(sample, index) for index, sample in enumerate(samples)],
        wheel=flow_wheel() if any(sample.flow is not None for sample in samples) else "",
        dataset=dataset_summary,
        features=_features(dataset_summary),
        runs=runs,
        settings=settings([run.config for run in runs]),
        versions={**_versions(), **(dataset_summary.versions if dataset_summary else {})},
        command=command,
        decimal=decimal,
        ogr_text=ogr_text,
    )


def settings(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Every setting of the runs by dotted name; where runs differ, each value once.

    >>> settings([{"optim": {"lr": 0.1}, "seed": 0}, {"optim": {"lr": 0.1}, "seed": 1}])
    [('optim.lr', '0.1'), ('seed', '0 · 1')]
    """
    found: dict[str, dict[str, None]] = {}
    for config in configs:
        for key, value in _flat(config):
            found.setdefault(key, {})[value] = None
    return [(key, " · ".join(values)) for key, values in found.items()]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    flat = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat += _flat(value, f"{prefix}{key}.")
        else:
            flat.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return flat


def _subtitle(runs: Sequence[Run], table: ComparisonTable, summary: DatasetSummary | None) -> str:
    methods, seeds = len(table.rows), sorted({run.result.seed for run in runs})
    epochs = sorted({run.result.epochs for run in runs})
    parts = [
        "1 method" if methods == 1 else f"{methods} methods",
        f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds",
        f"{epochs[0]} epochs" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]} epochs",
    ]
    if table.clips:
        parts.append(table.clips_words)
    for task in () if summary is None else summary.tasks:
        classes = len(task.classes)
        name = f"{task.name}: " if summary is not None and len(summary.tasks) > 1 else ""
        chance = f", chance {decimal(1 / classes)}" if task.kind == "single" else ", several a clip"
        parts.append(f"{name}{classes} classes{chance}")
    return " · ".join(parts)


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


def _table_view(table: ComparisonTable) -> TableView:
    return TableView(
        table=table,
        rows=[(row, method_name(row.method), _cells(table, row.method)) for row in table.rows],
        others=[metric_words(name) for name in other_metrics(table)],
        baselines=_baselines(table),
        uneven=len({row.seeds for row in table.rows}) > 1,
    )


def _joined(figures: Sequence[Figure]) -> Figure:
    """The panels of several tasks side by side; what is missing only where all is."""
    return Figure(
        panels=tuple(svg for figure in figures for svg in figure.panels),
        missing=figures[0].missing,
        note=" ".join(dict.fromkeys(figure.note for figure in figures if figure.note)),
    )


def _figures(
    runs: Sequence[Run], tables: Sequence[ComparisonTable], gains: Sequence[ClassGains | None]
) -> dict[str, FigureView]:
    main = tables[0]
    legends = {
        "accuracy": list(zip(main.heads, range(len(main.heads)), strict=True)),
        "others": list(zip(heads := all_heads(runs), range(len(heads)), strict=True)),
    }
    scores = "Accuracy" if main.metric == ACCURACY else "Scores" if len(tables) > 1 else metric_words(main.metric)
    said = " ".join(
        f"{found.task}: {text}" if found.task else text for found in tables for text in [accuracy_caption(found)]
    )
    by_class = [class_figure(found, name=f"classes{at or ''}") for at, found in enumerate(gains)]
    classes = " ".join(
        f"{found.task}: {class_caption(found)}" if found.task else class_caption(found) for found in gains if found
    )

    def view(key: str, title: str, figure: Figure, caption: str, *, wide: bool = False) -> FigureView:
        return FigureView(
            key=key,
            title=title,
            panels=tuple(Markup(svg) for svg in figure.panels),
            caption=f"{caption} {figure.note}".strip() if figure.panels else figure.missing,
            legend=legends.get(key, legends["others"]) if figure.panels else [],
            wide=wide,
        )

    return {
        found.key: found
        for found in (
            view("accuracy", scores, _joined([accuracy_figure(table) for table in tables]), said, wide=True),
            view("losses", "How each head overfits", loss_figure(runs), overfitting_caption(runs)),
            view("epochs", "Overfitting epoch by epoch", epoch_figure(runs), epoch_caption(runs), wide=True),
            view("ogr", "Overfitting against generalisation", ogr_figure(runs), ogr_caption(runs)),
            view("weights", "Weights over training", weights_figure(runs), weights_caption(runs)),
            view("classes", "Class by class", _joined(by_class), classes, wide=True),
        )
    }


def _estimates(runs: Sequence[Run]) -> list[tuple[str, Any]]:
    return [(group.title, steps) for group in groups(runs) if (steps := estimate_steps(group.runs, group.task))]


def _sample_view(sample: SampleClip, index: int) -> dict[str, Any]:
    scale_px = None if sample.flow is None else flow_scale_px(sample.flow)
    return {
        "clip": sample,
        "rgb": None if sample.rgb is None else animation(sample.rgb, fps=sample.fps),
        "flow": None
        if sample.flow is None or scale_px is None
        else animation(flow_frames(sample.flow, scale_px=scale_px), fps=sample.fps),
        "scale_px": scale_px,
        "logmel": None
        if sample.logmel is None
        else Markup(logmel_svg(sample.logmel, name=f"mel{index}", duration_s=sample.mel_s)),
    }


def _features(summary: DatasetSummary | None) -> list[tuple[str, str]]:
    if summary is None:
        return []
    return [
        (name, ", ".join(f"{key} {value}" for key, value in _flat(spec) if value != "null"))
        for name, spec in summary.features.items()
    ]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("gblend", "torch", "ray", "matplotlib"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
