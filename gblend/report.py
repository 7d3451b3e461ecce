"""One self-contained HTML page about finished runs: what they show, then everything it was concluded from.

The page needs no network and no font of its own: figures are inline SVG, clips are data URIs, and colours follow the
reader's light or dark scheme. A few lines of script sort its tables; without them it is the same page. Every sentence
about the runs is computed (`gblend.decision`, `gblend.verdict`, `gblend.captions`) from what it shows.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from markupsafe import Markup

from gblend.advice import advise
from gblend.advice_words import advice_words
from gblend.aggregate import estimate_steps, groups
from gblend.confusion import Confusion, load_confusion
from gblend.decision import decide, recommended
from gblend.figures import all_heads
from gblend.heads import by_key
from gblend.page import render, write_page
from gblend.per_class import ClassGains, load_gains, shown_joint
from gblend.report_figures import figure_views
from gblend.report_tables import table_view
from gblend.runs import Run
from gblend.sample_answers import SampleAnswers, right_words
from gblend.samples import SampleClip, animation, flow_frames, flow_scale_px, flow_wheel, logmel_svg
from gblend.summary import DatasetSummary
from gblend.svg import palette_css
from gblend.table import ComparisonTable, comparison_tables
from gblend.table_text import COST, decimal
from gblend.verdict import verdict
from gblend.ways import way_cells, way_rows
from gblend.words import ogr_text

NOT_SET = {"null", "[]", "{}", ""}
"""Values that say nothing."""


def write_report(
    runs: Sequence[Run],
    *,
    out: str,
    title: str,
    tables: Sequence[ComparisonTable] = (),
    samples: Sequence[SampleClip] = (),
    answers: SampleAnswers | None = None,
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
        answers: What the heads of one run say about them; None where no run kept that.
        dataset_summary: What the data set holds; None leaves the section out.
        command: The lines that make the runs and the page again, shown at the end.
        notes: What else a reader must know, for example which runs did not finish; shown under the verdict.
    """
    tables = tuple(tables) or comparison_tables([run.result for run in runs])
    tasks = by_key(() if dataset_summary is None else dataset_summary.tasks)
    of_one_task = tables[1:] or tables
    classes = [tasks[table.task].classes if table.task in tasks else None for table in of_one_task]
    both = list(zip(of_one_task, classes, strict=True))
    # One method for all tasks: the one that the page recommends.
    joint, method = shown_joint(runs, tables[0]), recommended([run.result for run in runs], tables[0])
    page = render_report(
        runs,
        title=title,
        tables=tables,
        gains=[load_gains(runs, table, names, joint=joint) for table, names in both],
        confusions=[load_confusion(runs, table, names, method=method) for table, names in both],
        samples=samples,
        answers=answers,
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
    confusions: Sequence[Confusion | None],
    samples: Sequence[SampleClip],
    answers: SampleAnswers | None,
    dataset_summary: DatasetSummary | None,
    command: str,
    notes: Sequence[str],
) -> str:
    """The page as text."""
    heads, table = all_heads(runs), tables[0]
    results = [run.result for run in runs]
    advices = [advise(results, of_task) for of_task in tables]
    return render(
        "report.html.jinja",
        title=title,
        subtitle=_subtitle(runs, table, dataset_summary),
        notes=notes,
        decision=decide(results, table, advices[0]),
        verdict=verdict(table, tables[1:]),
        advice=tuple(
            words for advice, of_task in zip(advices, tables, strict=True) for words in advice_words(advice, of_task)
        ),
        cost=COST,
        tables=[table_view(of_task) for of_task in tables],
        ways=[(of_task, found) for of_task in tables if (found := way_cells(way_rows(results, of_task)))[1]],
        figures=figure_views(runs, tables, gains=gains, confusions=confusions),
        estimates=_estimates(runs),
        heads=list(zip(heads, range(len(heads)), strict=True)),
        palettes=tuple(Markup(palette_css(table.heads, dark=dark)) for dark in (False, True)),
        samples=[_sample_view(sample, index, answers) for index, sample in enumerate(samples)],
        shown=[name for name in ("rgb", "flow", "logmel") if any(getattr(s, name) is not None for s in samples)],
        answers=answers,
        answers_right="" if answers is None else right_words(answers.clips),
        wheel=flow_wheel() if any(sample.flow is not None for sample in samples) else "",
        dataset=dataset_summary,
        features=_features(dataset_summary),
        runs=runs,
        settings=settings([run.config for run in runs]),
        versions={**versions(), **(dataset_summary.versions if dataset_summary else {})},
        command=command,
        decimal=decimal,
        ogr_text=ogr_text,
    )


def settings(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Every setting of the runs by dotted name; where runs differ, each value once. Those that are not set in any run
    are left out.

    >>> settings([{"optim": {"lr": 0.1}, "seed": 0, "cap": None}, {"optim": {"lr": 0.1}, "seed": 1, "cap": None}])
    [('optim.lr', '0.1'), ('seed', '0 · 1')]
    """
    found: dict[str, dict[str, None]] = {}
    for config in configs:
        for key, value in _flat(config):
            found.setdefault(key, {})[value] = None
    return [(key, " · ".join(values)) for key, values in found.items() if not set(values) <= NOT_SET]


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


def _sample_view(sample: SampleClip, index: int, answers: SampleAnswers | None) -> dict[str, Any]:
    scale_px = None if sample.flow is None else flow_scale_px(sample.flow)
    return {
        "clip": sample,
        "rgb": None if sample.rgb is None else animation(sample.rgb, fps=sample.fps),
        "flow": None
        if sample.flow is None or scale_px is None
        else animation(flow_frames(sample.flow, scale_px=scale_px), fps=sample.fps),
        "scale_px": scale_px,
        "answers": () if answers is None else answers.clips.get(sample.clip_id, ()),
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


def versions() -> dict[str, str]:
    """Of what makes a page and trains."""
    found = {"python": platform.python_version()}
    for name in ("gblend", "torch", "ray", "matplotlib"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _estimates(runs: Sequence[Run]) -> list[tuple[str, Any]]:
    return [(group.title, steps) for group in groups(runs) if (steps := estimate_steps(group.runs, group.task))]
