"""The report's figures as inline SVG panels: accuracy, the overfitting picture, weights over training.

A figure is a few small panels of one size, which the page arranges beside or below one another, so that none has to be
shrunk on a phone. Means over seeds are drawn strongly, single seeds faintly. A figure with nothing to show has no panel
and says why in ``missing``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from gblend.aggregate import LossCurve, estimate_steps, groups, loss_curves
from gblend.heads import branches_of
from gblend.methods import ENSEMBLES
from gblend.runs import Run
from gblend.svg import INK, MUTED, PAPER, head_ink, panel
from gblend.table import ComparisonTable, MethodRow, head_order
from gblend.table_text import decimal

PANEL_PX = (300, 220)

PAIR_PX = (400, 230)
"""Of each of a method's two panels, which stand side by side on a wide page."""


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
        low, high = axes.get_xlim()  # room for numbers, beyond 1, where no metric can be
        axes.set_xticks([tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= min(high, 1.0)])
        axes.set_xlim(low, high)
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
