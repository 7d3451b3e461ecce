"""OGR of every estimate, and the plane of what it is made of: G to the right, O upwards, with their standard errors.

In the plane a line through the origin is an OGR: the steeper the line on which a head lies, the more overfitting it
pays for what it wins.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gblend.aggregate import HeadEstimate, Step, estimate_steps, groups
from gblend.figures import PAIR_PX, Figure, all_heads
from gblend.runs import Run
from gblend.svg import INK, MUTED, PAPER, head_ink, panel
from gblend.table import head_order
from gblend.words import ogr_text

ISO_OGR = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Of which lines may be drawn in the plane."""

Limits = tuple[tuple[float, float], tuple[float, float]]
"""Of G and of O."""


def ogr_figure(runs: Sequence[Run]) -> Figure:
    """Per method with estimates: OGR, over epochs where there are several, and beside it the plane of G and O."""
    heads = all_heads(runs)
    panels, cut = [], False
    for index, group in enumerate(groups(runs)):
        steps = estimate_steps(group.runs, group.task)
        if len(steps) == 1:
            panels.append(_ogr_bars(f"ogr{index}", group.title, steps[0], heads))
        elif steps:
            panels.append(_ogr_lines(f"ogr{index}", group.title, steps, heads))
        if steps:
            panels.append(_plane(f"og{index}", group.title, steps, heads))
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
    width, height = PAIR_PX
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


def _ogr_lines(name: str, method: str, steps: Sequence[Step], heads: tuple[str, ...]) -> str:
    width, height = PAIR_PX
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


def _plane(name: str, method: str, steps: Sequence[Step], heads: tuple[str, ...]) -> str:
    width, height = PAIR_PX
    every = [found for step in steps for found in step.heads]
    label = f"{method}: overfitting O against generalisation G with standard errors of {', '.join(heads)}"
    with panel(name, label, heads=heads, width_px=width, height_px=height) as drawn:
        axes, limits = drawn.axes, plane_limits(every)
        _iso_lines(axes, limits)
        for head in head_order(found.head for found in every):
            path, color = [found for found in every if found.head == head], head_ink(head, heads)
            gains, losses = (
                [found.mean_generalization for found in path],
                [found.mean_overfitting for found in path],
            )
            axes.plot(gains, losses, color=color, linewidth=1, alpha=0.6)
            for at, found in enumerate(path):
                axes.errorbar(
                    gains[at],
                    losses[at],
                    xerr=found.generalization_error,
                    yerr=found.overfitting_error,
                    fmt="o",
                    color=color,
                    markersize=5.5,
                    mfc=PAPER if at == 0 and len(path) > 1 else color,
                    mew=1.4,
                    elinewidth=1.2,
                    zorder=3,
                )
                if len(found.generalization) > 1:
                    axes.plot(
                        found.generalization, found.overfitting, "o", color=color, alpha=0.35, markersize=3, mec="none"
                    )
        axes.set_xlim(*limits[0])
        axes.set_ylim(*limits[1])
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(visible=False)
        axes.set_xlabel(f"G ({steps[0].unit})")
        axes.set_ylabel(f"O ({steps[0].unit})")
        axes.set_title(f"{method}: O against G", pad=20)  # above the names of the lines
    return drawn.svg[0]


def plane_limits(found: Sequence[HeadEstimate]) -> Limits:
    """Of G and O: the origin, every mean with its error, and every seed; what is not finite takes no part."""
    sides = []
    for values, means, errors in (
        (
            [v for f in found for v in f.generalization],
            [f.mean_generalization for f in found],
            [f.generalization_error for f in found],
        ),
        (
            [v for f in found for v in f.overfitting],
            [f.mean_overfitting for f in found],
            [f.overfitting_error for f in found],
        ),
    ):
        mean, error = np.array(means), np.nan_to_num(np.array(errors))
        ends = np.concatenate([[0.0], values, mean - error, mean + error])
        ends = ends[np.isfinite(ends)]
        pad = 0.06 * max(float(ends.max() - ends.min()), 1e-3)
        sides.append((float(ends.min()) - pad, float(ends.max()) + pad))
    return sides[0], sides[1]


def iso_lines(limits: Limits, *, most: int = 4) -> list[float]:
    """OGRs whose lines are to be told apart in a plane: those around the one of its upper right corner.

    >>> iso_lines(((0.0, 2.0), (0.0, 1.0)))
    [0.2, 0.5, 1.0, 2.0]
    """
    corner = limits[1][1] / limits[0][1]
    inside = [value for value in ISO_OGR if 0.12 * corner <= value <= 8 * corner]
    nearest = sorted(inside, key=lambda value: abs(math.log(value / corner)))
    return sorted(nearest[:most])


def _iso_lines(axes: Axes, limits: Limits) -> None:
    (_, right), (_, top) = limits
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    for value in iso_lines(limits):
        x = min(right, top / value)
        axes.plot([0, x], [0, x * value], color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)), zorder=0.9)
        beside = x >= right  # else it leaves the panel at the top
        axes.annotate(
            f"OGR {value:g}" if value == 1 or not beside else f"{value:g}",
            (x, x * value),
            (3, 0) if beside else (0, 2),
            textcoords="offset points",
            ha="left" if beside else "center",
            va="center" if beside else "bottom",
            color=MUTED,
            fontsize=9,
            annotation_clip=False,
        )
