"""Which figures the report has: each with its heading, its legend and what it means for these runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from gblend.captions import accuracy_caption, ogr_caption, overfitting_caption, weights_caption
from gblend.class_figure import class_caption, class_figure
from gblend.confusion import Confusion
from gblend.confusion_figure import confusion_caption, confusion_figure
from gblend.epoch_ogr import epoch_caption, epoch_figure
from gblend.figures import Figure, accuracy_figure, all_heads, loss_figure, weights_figure
from gblend.ogr_figure import ogr_figure
from gblend.per_class import ClassGains
from gblend.runs import Run
from gblend.scores import ACCURACY, metric_words
from gblend.table import ComparisonTable


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


def _joined(figures: Sequence[Figure]) -> Figure:
    """The panels of several tasks side by side; what is missing only where all is."""
    return Figure(
        panels=tuple(svg for figure in figures for svg in figure.panels),
        missing=figures[0].missing,
        note=" ".join(dict.fromkeys(figure.note for figure in figures if figure.note)),
    )


def figure_views(
    runs: Sequence[Run],
    tables: Sequence[ComparisonTable],
    *,
    gains: Sequence[ClassGains | None],
    confusions: Sequence[Confusion | None],
) -> dict[str, FigureView]:
    """Every figure by its key; ``gains`` and ``confusions`` are those of each task."""
    main = tables[0]
    accuracy_heads, heads = _legend(main.heads), _legend(all_heads(runs))
    scores = "Accuracy" if main.metric == ACCURACY else "Scores" if len(tables) > 1 else metric_words(main.metric)
    said = _of_tasks([(found.task, accuracy_caption(found)) for found in tables])
    by_class = [class_figure(found, name=f"classes{at or ''}") for at, found in enumerate(gains)]
    classes = _of_tasks([(found.task, class_caption(found)) for found in gains if found])
    matrices = [confusion_figure(found, name=f"confusion{at or ''}") for at, found in enumerate(confusions)]
    confused = _of_tasks([(found.task, confusion_caption(found)) for found in confusions if found])

    def view(
        key: str,
        title: str,
        figure: Figure,
        caption: str,
        *,
        legend: Sequence[tuple[str, int]] = heads,
        wide: bool = False,
    ) -> FigureView:
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
            view(
                "accuracy",
                scores,
                _joined([accuracy_figure(table) for table in tables]),
                said,
                legend=accuracy_heads,
                wide=True,
            ),
            view("losses", "How each head overfits", loss_figure(runs), overfitting_caption(runs)),
            view("epochs", "Overfitting epoch by epoch", epoch_figure(runs), epoch_caption(runs), wide=True),
            view("ogr", "Overfitting against generalisation", ogr_figure(runs), ogr_caption(runs), wide=True),
            view("weights", "Weights over training", weights_figure(runs), weights_caption(runs)),
            view("classes", "Class by class", _joined(by_class), classes, legend=(), wide=True),
            view("confusion", "What is taken for what", _joined(matrices), confused, legend=(), wide=True),
        )
    }


def _legend(heads: Sequence[str]) -> Sequence[tuple[str, int]]:
    return [(head, index) for index, head in enumerate(heads)]


def _of_tasks(captions: Sequence[tuple[str, str]]) -> str:
    """Captions of several tasks one after another, each behind its task's name."""
    return " ".join(f"{task}: {text}" if task else text for task, text in captions)
