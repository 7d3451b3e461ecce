"""One self-contained HTML page about finished runs: what they show, then everything it was concluded from.

The page needs no network, script or font of its own: figures are inline SVG, clips are data URIs, and colours follow
the reader's light or dark scheme. Every sentence about the runs is computed (`gblend.verdict`) from what it shows.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from typing import Any

import fsspec
import jinja2
from markupsafe import Markup

from gblend.aggregate import by_method, estimate_steps
from gblend.class_figure import class_caption, class_figure
from gblend.epoch_ogr import epoch_caption, epoch_figure
from gblend.figures import Figure, accuracy_figure, all_heads, loss_figure, ogr_figure, ogr_text, weights_figure
from gblend.per_class import ClassGains, load_gains
from gblend.runs import Run
from gblend.samples import SampleClip, animation, flow_colors, flow_scale_px, flow_wheel, logmel_svg
from gblend.summary import DatasetSummary
from gblend.svg import palette_css
from gblend.table import BASELINES, COST, ComparisonTable, comparison_table, decimal
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
    """CSS class: ``primary`` for the head that predicts, ``noise`` for a difference within noise."""


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
    table: ComparisonTable | None = None,
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
        table: Their comparison, computed when not given.
        samples: Clips to show; none leaves the section out.
        dataset_summary: What the data set holds; None leaves the section out.
        command: The line that made the runs or the page, shown at the end.
        notes: What else a reader must know, for example which runs did not finish; shown under the verdict.
    """
    table = table or comparison_table([run.result for run in runs])
    tasks = () if dataset_summary is None else dataset_summary.tasks
    page = render_report(
        runs,
        title=title,
        table=table,
        gains=load_gains(runs, table, tasks[0].classes if len(tasks) == 1 else None),
        samples=samples,
        dataset_summary=dataset_summary,
        command=command,
        notes=notes,
    )
    fs, place = fsspec.core.url_to_fs(out)
    fs.makedirs(place.rsplit("/", 1)[0], exist_ok=True)
    with fs.open(place, "w", encoding="utf-8") as file:
        file.write(page)
    return out


def render_report(
    runs: Sequence[Run],
    *,
    title: str,
    table: ComparisonTable,
    gains: ClassGains | None,
    samples: Sequence[SampleClip],
    dataset_summary: DatasetSummary | None,
    command: str,
    notes: Sequence[str],
) -> str:
    """The page as text."""
    heads = all_heads(runs)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(resources.files("gblend").joinpath("report.html.jinja").read_text("utf-8"))
    return template.render(
        title=title,
        subtitle=_subtitle(runs, table, dataset_summary),
        notes=notes,
        verdict=verdict(table),
        table=table,
        cost=COST,
        rows=[(row, method_name(row.method), _cells(table, row.method)) for row in table.rows],
        baselines=_baselines(table),
        ways=way_cells(way_rows([run.result for run in runs], table)),
        uneven=len({row.seeds for row in table.rows}) > 1,
        figures=_figures(runs, table, gains),
        estimates=_estimates(runs),
        heads=list(zip(heads, range(len(heads)), strict=True)),
        palettes=(Markup(palette_css(heads, dark=False)), Markup(palette_css(heads, dark=True))),
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
        parts.append(f"{table.clips} {table.split} clips")
    if summary is not None and len(summary.tasks) == 1 and summary.tasks[0].kind == "single":
        classes = len(summary.tasks[0].classes)
        parts.append(f"{classes} classes, chance {decimal(1 / classes)}")
    return " · ".join(parts)


def _baselines(table: ComparisonTable) -> list[str]:
    return [name for name in BASELINES if any(name in row.differences for row in table.rows)]


def _cells(table: ComparisonTable, method: str) -> list[Cell]:
    """One cell per head, then one per baseline."""
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
    for baseline in _baselines(table):
        difference = row.differences.get(baseline)
        if difference is None:
            cells.append(Cell(mean=""))
            continue
        sd = "" if difference.sd is None else decimal(difference.sd)
        noise = table.noise is not None and abs(difference.mean) < table.noise
        cells.append(Cell(mean=decimal(difference.mean, signed=True), sd=sd, style="noise" if noise else ""))
    return cells


def _figures(runs: Sequence[Run], table: ComparisonTable, gains: ClassGains | None) -> dict[str, FigureView]:
    heads = all_heads(runs)
    legend = list(zip(heads, range(len(heads)), strict=True))

    def view(key: str, title: str, figure: Figure, caption: str, *, wide: bool = False) -> FigureView:
        return FigureView(
            key=key,
            title=title,
            panels=tuple(Markup(svg) for svg in figure.panels),
            caption=f"{caption} {figure.note}".strip() if figure.panels else figure.missing,
            legend=legend if figure.panels else [],
            wide=wide,
        )

    return {
        found.key: found
        for found in (
            view("accuracy", "Accuracy", accuracy_figure(table), accuracy_caption(table), wide=True),
            view("losses", "How each head overfits", loss_figure(runs), overfitting_caption(runs)),
            view("epochs", "Overfitting epoch by epoch", epoch_figure(runs), epoch_caption(runs), wide=True),
            view("ogr", "Overfitting against generalisation", ogr_figure(runs), ogr_caption(runs)),
            view("weights", "Weights over training", weights_figure(runs), weights_caption(runs)),
            view("classes", "Class by class", class_figure(gains), class_caption(gains), wide=True),
        )
    }


def _estimates(runs: Sequence[Run]) -> list[tuple[str, Any]]:
    return [(method, steps) for method, group in by_method(runs).items() if (steps := estimate_steps(group))]


def _sample_view(sample: SampleClip, index: int) -> dict[str, Any]:
    scale_px = None if sample.flow is None else flow_scale_px(sample.flow)
    return {
        "clip": sample,
        "rgb": None if sample.rgb is None else animation(sample.rgb, fps=sample.fps),
        "flow": None
        if sample.flow is None or scale_px is None
        else animation(flow_colors(sample.flow, scale_px=scale_px), fps=sample.fps),
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
