"""The report's figures as inline SVG panels: accuracy, the overfitting picture, OGR, weights over training.

A figure is a few small panels of one size, which the page arranges beside or below one another, so that none has to be
shrunk on a phone. Means over seeds are drawn strongly, single seeds faintly. A figure with nothing to show has no panel
and says why in ``missing``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gblend.aggregate import HeadEstimate, LossCurve, Step, estimate_steps, groups, loss_curves
from gblend.heads import branches_of
from gblend.methods import ENSEMBLES
from gblend.runs import Run
from gblend.svg import INK, MUTED, PAPER, head_ink, panel
from gblend.table import ComparisonTable, MethodRow, head_order
from gblend.table_text import decimal
from gblend.words import ogr_text

PANEL_PX = (300, 220)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """Panels to show side by side."""

    panels: tuple[str, ...] = ()
    """SVG elements; none where there is nothing to show."""
    missing: str = ""
    """Why there is no panel."""
    note: str = ""
    """What a reader must know to read the panels right, for example that an axis is cut."""


def all_heads(runs: Sequence[Run]) -> tuple[str, ...]:
    """Every branch that some run trained. Where a branch stands decides its colour, also in the tables' figures, whose
    heads are these and, after them, ways of predicting.
    """
    trained = (run.result.heads for run in runs if run.result.method not in ENSEMBLES)
    return head_order(branches_of(head for heads in trained for head in heads))


def accuracy_figure(table: ComparisonTable) -> Figure:
    """The table's metric by method: one panel of what predicts, one of every head inside the joint runs beside it."""
    joint = [row for row in table.rows if len(table.scores(row)) > 1]
    rows = [row for row in table.rows if math.isfinite(_mean(table, row, row.primary))]
    if not rows:
        return Figure(missing=f"No run has a score on the {table.split} split.")
    place = "" if not table.task else str(table.tasks.index(table.task))
    panels = [_accuracy_panel(table, rows, f"accuracy{place}", "What predicts", primary_only=True)]
    if joint:
        panels.append(_accuracy_panel(table, joint, f"heads{place}", "Inside the joint runs", primary_only=False))
    return Figure(panels=tuple(panels))


def _mean(table: ComparisonTable, row: MethodRow, head: str) -> float:
    found = table.scores(row).get(head)
    return math.nan if found is None else found.mean


def _accuracy_panel(
    table: ComparisonTable, rows: Sequence[MethodRow], name: str, title: str, *, primary_only: bool
) -> str:
    label = f"{title}: {table.split} {table.measure}, {', '.join(row.method for row in rows)}"
    with panel(name, label, heads=table.heads, width_px=440, height_px=86 + 30 * len(rows)) as drawn:
        axes = drawn.axes
        for y, row in enumerate(rows):
            for head, score in table.scores(row).items():
                if primary_only and head != row.primary:
                    continue
                color = head_ink(head, table.heads)
                axes.plot(score.values, [y] * len(score.values), "o", color=color, alpha=0.4, markersize=6, mec="none")
                axes.plot([score.mean] * 2, [y - 0.28, y + 0.28], color=color, linewidth=2.5, solid_capstyle="butt")
                if primary_only:
                    axes.annotate(
                        decimal(score.mean), (max(score.values), y), (8, 0), textcoords="offset points", va="center"
                    )
        best = table.row(table.best_single) if table.best_single else None
        if best is not None and math.isfinite(_mean(table, best, best.primary)):
            x = _mean(table, best, best.primary)
            axes.axvline(x, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=0.9)
        axes.set_yticks(range(len(rows)), [row.method for row in rows], color=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.14)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: decimal(value, 2))
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{table.split} {table.measure}")
        axes.set_title(title)
    return drawn.svg[0]


def loss_figure(runs: Sequence[Run]) -> Figure:
    """Training (dashed) and held-out (solid) loss of every head, one panel a method; those of a task on one scale."""
    heads = all_heads(runs)
    curves = [(group, found) for group in groups(runs) if (found := loss_curves(group.runs, group.task))]
    if not curves:
        return Figure(missing="No run has a history of losses.")
    limits = {
        task: _loss_limits([curve for group, found in curves if group.task == task for curve in found.values()])
        for task in {group.task for group, _ in curves}
    }
    panels = []
    for index, (group, found) in enumerate(curves):
        width, height = PANEL_PX
        low, high, _ = limits[group.task]
        label = f"{group.title}: training and held-out loss of {', '.join(found)}"
        with panel(f"loss{index}", label, heads=heads, width_px=width, height_px=height) as drawn:
            for head, curve in found.items():
                color = head_ink(head, heads)
                for values, dashes in ((curve.train, (0, (3, 2))), (curve.heldout, "-")):
                    if len(values) > 1:
                        drawn.axes.plot(curve.epochs, values.T, color=color, alpha=0.3, linewidth=0.8, linestyle=dashes)
                    drawn.axes.plot(curve.epochs, values.mean(axis=0), color=color, linewidth=1.8, linestyle=dashes)
                lowest = curve.best_epoch
                mean = float(curve.heldout.mean(axis=0)[curve.epochs.index(lowest)])
                drawn.axes.plot(lowest, mean, "o", color=color, markersize=5.5, mec=PAPER, mew=1, zorder=3)
            drawn.axes.set_ylim(low, high)
            drawn.axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            drawn.axes.set_xlabel("epoch")
            drawn.axes.set_ylabel(f"loss ({group.unit})")
            drawn.axes.set_title(group.title)
        panels.append(drawn.svg[0])
    cut = any(found[2] for found in limits.values())
    note = "Curves that leave the panels at the top were cut there." if cut else ""
    return Figure(panels=tuple(panels), note=note)


def _loss_limits(curves: Sequence[LossCurve]) -> tuple[float, float, bool]:
    """Common limits: up to 2.5 times the losses at the start, so one diverging head does not flatten the others."""
    values = np.concatenate([part.ravel() for curve in curves for part in (curve.train, curve.heldout)])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0, False
    start = np.concatenate([curve.heldout[:, 0] for curve in curves])
    ceiling = 2.5 * float(np.nanmax(start)) if np.isfinite(start).any() else math.inf
    high = min(float(values.max()), ceiling)
    return 0.0, 1.05 * max(high, 1e-3), float(values.max()) > ceiling


def ogr_figure(runs: Sequence[Run]) -> Figure:
    """Per method with estimates: OGR, and the O and G it is made of; over epochs where there are several estimates."""
    heads = all_heads(runs)
    panels, cut = [], False
    for index, group in enumerate(groups(runs)):
        steps = estimate_steps(group.runs, group.task)
        if len(steps) == 1:
            panels.append(_ogr_bars(f"ogr{index}", group.title, steps[0], heads))
            panels.append(_parts_bars(f"parts{index}", group.title, steps[0], heads))
        elif steps:
            panels.append(_ogr_lines(f"ogr{index}", group.title, steps, heads))
        values = [found.ogr for step in steps for found in step.heads]
        cut = cut or any(value > _ogr_top(values) for value in values)
    if not panels:
        return Figure(
            missing="No run estimated weights, so OGR was not measured; the methods tracked, offline and online do."
        )
    note = "An open bar or dot at the top is an OGR beyond the axis." if cut else ""
    return Figure(panels=tuple(panels), note=note)


def _ogr_top(values: Sequence[float]) -> float:
    """End of an OGR axis: the largest value, but no more than six times the median."""
    finite = sorted(value for value in values if math.isfinite(value))
    return 1.25 * max(min(finite[-1], 6 * finite[len(finite) // 2]), 1e-3) if finite else 1.0


def _ogr_bars(name: str, method: str, step: Step, heads: tuple[str, ...]) -> str:
    width, height = PANEL_PX
    label = f"{method}: OGR of {', '.join(found.head for found in step.heads)}"
    with panel(name, label, heads=heads, width_px=width, height_px=height) as drawn:
        top = _ogr_top([found.ogr for found in step.heads])
        for x, found in enumerate(step.heads):
            color = head_ink(found.head, heads)
            inside = found.ogr <= top
            if not math.isnan(found.ogr):
                drawn.axes.bar(
                    x,
                    min(found.ogr, top),
                    width=0.6,
                    facecolor=color if inside else "none",
                    edgecolor=color,
                    alpha=0.85,
                )
            seeds = [value for value in found.seed_ogr if value <= top]
            if len(found.seed_ogr) > 1:
                drawn.axes.plot([x] * len(seeds), seeds, "o", color=color, markersize=5, mec=PAPER, mew=1, zorder=3)
            height_y = 0.0 if math.isnan(found.ogr) else max([min(found.ogr, top), *seeds])
            drawn.axes.annotate(
                ogr_text(found.ogr),
                (x, height_y),
                (0, 6),
                textcoords="offset points",
                ha="center",
                annotation_clip=False,
            )
        drawn.axes.set_ylim(0, 1.1 * top)  # room for a number above the highest dot
        drawn.axes.set_ylabel("OGR")
        drawn.axes.set_title(f"{method}: OGR = |O / G|", pad=14)
        _head_ticks(drawn.axes, step.heads)
    return drawn.svg[0]


def _parts_bars(name: str, method: str, step: Step, heads: tuple[str, ...]) -> str:
    width, height = PANEL_PX
    label = f"{method}: overfitting O and generalisation G of {', '.join(found.head for found in step.heads)}"
    with panel(name, label, heads=heads, width_px=width, height_px=height) as drawn:
        for x, found in enumerate(step.heads):
            color = head_ink(found.head, heads)
            for side, mean, values in (
                (-0.19, found.mean_overfitting, found.overfitting),
                (0.19, found.mean_generalization, found.generalization),
            ):
                if not math.isfinite(mean):
                    continue
                face = color if side < 0 else "none"
                drawn.axes.bar(x + side, mean, width=0.34, facecolor=face, edgecolor=color, linewidth=1.4, alpha=0.85)
                if len(values) > 1:
                    at = [x + side] * len(values)
                    drawn.axes.plot(at, values, "o", color=color, markersize=5, mec=PAPER, mew=1, zorder=3)
        drawn.axes.axhline(0, color=MUTED, linewidth=0.8)
        drawn.axes.set_ylabel(step.unit)
        drawn.axes.set_title(f"{method}: O filled, G open", pad=14)
        _head_ticks(drawn.axes, step.heads)
    return drawn.svg[0]


def _ogr_lines(name: str, method: str, steps: Sequence[Step], heads: tuple[str, ...]) -> str:
    width, height = PANEL_PX
    with panel(name, f"{method}: OGR at every estimate", heads=heads, width_px=width, height_px=height) as drawn:
        top = _ogr_top([found.ogr for step in steps for found in step.heads])
        for head in head_order(found.head for step in steps for found in step.heads):
            points = [(step.epoch, found.ogr) for step in steps for found in step.heads if found.head == head]
            color = head_ink(head, heads)
            epochs, values = zip(*points, strict=True)
            drawn.axes.plot(epochs, [min(value, top) for value in values], color=color, linewidth=1.8)
            for epoch, value in points:
                face = color if value <= top else "none"
                drawn.axes.plot(
                    epoch, min(value, top), "o", color=color, markersize=5.5, mfc=face, mew=1.4, clip_on=False
                )
        drawn.axes.set_ylim(0, top)
        drawn.axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        drawn.axes.set_xlabel("epoch of the estimate")
        drawn.axes.set_ylabel("OGR")
        drawn.axes.set_title(f"{method}: OGR = |O / G|", pad=14)
    return drawn.svg[0]


def _head_ticks(axes: Axes, found: Sequence[HeadEstimate]) -> None:
    axes.set_xticks(range(len(found)), [one.head for one in found], color=INK)
    axes.set_xlim(-0.6, len(found) - 0.4)
    axes.grid(visible=False, axis="x")


def weights_figure(runs: Sequence[Run]) -> Figure:
    """Loss weights over training, stacked to 1: a bar per super-epoch, as wide as it is long, mean over seeds."""
    heads = all_heads(runs)
    panels = []
    for index, group in enumerate(groups(runs)):
        steps = estimate_steps(group.runs, group.task)
        if not steps:
            continue
        end = max(step.end_epoch for step in steps)
        width, height = PANEL_PX
        label = f"{group.title}: loss weight of every head over training"
        with panel(f"weights{index}", label, heads=heads, width_px=width, height_px=height) as drawn:
            for step in steps:
                length = max(step.end_epoch - step.epoch, 1)
                bottom = 0.0
                for found in step.heads:
                    share = found.mean_weight
                    if not share > 0:
                        continue
                    color = head_ink(found.head, heads)
                    drawn.axes.bar(
                        step.epoch, share, length, bottom, align="edge", facecolor=color, edgecolor=PAPER, linewidth=1.2
                    )
                    if share >= 0.08 and length >= 0.1 * end:
                        at = (step.epoch + length / 2, bottom + share / 2)
                        drawn.axes.annotate(decimal(share, 2), at, color=PAPER, ha="center", va="center")
                    bottom += share
            drawn.axes.set_ylim(0, 1)
            drawn.axes.set_xlim(0, max(end, 1))
            drawn.axes.grid(visible=False)
            drawn.axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            drawn.axes.set_xlabel("epoch")
            drawn.axes.set_ylabel("loss weight")
            drawn.axes.set_title(group.title)
        panels.append(drawn.svg[0])
    if not panels:
        return Figure(missing="No run estimated weights; the methods tracked, offline and online do.")
    return Figure(panels=tuple(panels))
