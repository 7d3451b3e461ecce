"""Figures of a search as inline SVG: learning curves, parallel coordinates, cost against objective, importance.

A trial has the colour of its method. The best one is drawn strongly, the others faintly, so that what it has in common
with other good ones is seen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import MaxNLocator

from gblend.figures import Figure
from gblend.svg import INK, MUTED, RULE, head_ink, panel
from gblend.table_text import decimal
from gblend.trials import Trial, best_trial, worth_their_cost

NOT_DRAWN = -0.14
"""Where the line of a trial passes an axis of something that it did not draw: below it."""

MOST_AXES = 12
"""More parallel axes cannot be told apart; those that were drawn by the most trials are shown."""

FEW_VALUES = 5
"""So many different values have equal distances on an axis; more numbers stand where they are."""

ONE = ("all",)
"""Stands for the names of a page where all is of one colour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelAxis:
    """One of the parallel coordinates."""

    name: str
    """Of what was drawn."""
    ticks: tuple[tuple[float, str], ...]
    """Height, from 0 to 1, and text."""
    heights: dict[int, float]
    """Per number of a trial that drew it, from 0 to 1."""


def methods_of(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Methods that were tried. Figures have their colours from where they stand among the ``names`` of a page."""
    return tuple(sorted({trial.candidate.method for trial in trials}))


def parallel_axes(trials: Sequence[Trial]) -> list[ParallelAxis]:
    """Everything that took different values, in the order of drawing.

    A few values, or words, have equal distances; many numbers stand where they are, or their logarithms where the
    largest is more than ten times the smallest.
    """
    drawn: dict[str, dict[int, Any]] = {}
    for trial in trials:
        for name, value in trial.point.items():
            drawn.setdefault(name, {})[trial.number] = value
    shown = [name for name, values in drawn.items() if len(_different(values.values())) > 1]
    kept = sorted(shown, key=lambda name: -len(drawn[name]))[:MOST_AXES]
    return [_axis(name, drawn[name]) for name in shown if name in kept]


def _different(values: Any) -> list[Any]:
    """Numbers in order, then words."""
    return sorted(set(values), key=lambda value: (isinstance(value, str), value))


def _axis(name: str, values: Mapping[int, Any]) -> ParallelAxis:
    different = _different(values.values())
    low, high = different[0], different[-1]
    if isinstance(high, str) or len(different) <= FEW_VALUES:
        places = {value: at / (len(different) - 1) for at, value in enumerate(different)}
        ticks = tuple((place, text_of(value)) for value, place in places.items())
        return ParallelAxis(name=name, ticks=ticks, heights={at: places[value] for at, value in values.items()})
    log = low > 0 and high > 10 * low

    def height(value: Any) -> float:
        return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)

    ticks = ((0.0, text_of(low)), (1.0, text_of(high)))
    return ParallelAxis(name=name, ticks=ticks, heights={at: height(value) for at, value in values.items()})


def text_of(value: Any) -> str:
    """A value in few characters.

    >>> [text_of(v) for v in (0.0031622776, 12, "noise", 0.5, 1.0, (0.25, 0.75))]
    ['0.00316', '12', 'noise', '0.5', '1', '0.25 0.75']
    """
    if isinstance(value, tuple):
        return " ".join(map(text_of, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def curves_figure(trials: Sequence[Trial], metric: str, names: tuple[str, ...]) -> Figure:
    """Objective after every epoch; a cross where a trial was stopped, a dot where it was finished."""
    shown = [trial for trial in trials if trial.reached]
    if not shown:
        return Figure(missing="No trial has come to the end of an epoch.")
    best = best_trial(trials)
    with panel("trial-curves", "Objective by epoch", heads=names, width_px=440, height_px=300) as drawn:
        for trial in shown:
            color, strong = head_ink(trial.candidate.method, names), best is not None and trial.number == best.number
            epochs, values = [each.epoch for each in trial.reached], [each.value for each in trial.reached]
            drawn.axes.plot(epochs, values, color=color, alpha=1.0 if strong else 0.35, linewidth=2.4 if strong else 1)
            marker = {"finished": "o", "stopped": "x", "failed": "x", "running": ""}[trial.state]
            drawn.axes.plot(epochs[-1], values[-1], marker, color=color, alpha=1.0 if strong else 0.6, markersize=5)
        drawn.axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        drawn.axes.set_xlabel("epoch")
        drawn.axes.set_ylabel(f"val {metric}")
    return Figure(panels=(drawn.svg[0],))


def parallel_figure(trials: Sequence[Trial], names: tuple[str, ...]) -> Figure:
    """A line a trial through all that it drew, and its objective last."""
    shown = [trial for trial in trials if trial.state in ("finished", "stopped") and math.isfinite(trial.objective)]
    axes = parallel_axes(shown)
    if len(shown) < 2 or not axes:
        return Figure(missing="Parallel coordinates need two trials that differ.")
    best = best_trial(trials)
    judged = [trial.objective for trial in shown if trial.state == "finished"] or [each.objective for each in shown]
    low, high = min(judged), max(judged)
    shares = {trial.number: (trial.objective - low) / (high - low or 1.0) for trial in shown}
    titles = [axis.name.removeprefix("blend.").removeprefix("optim.").replace("_", "\n") for axis in axes]
    size = {"width_px": 120 + 78 * len(axes), "height_px": 330}
    with panel("parallel", "Settings of every trial", heads=names, **size) as drawn:
        for x, axis in enumerate(axes):
            drawn.axes.plot([x, x], [0, 1], color=RULE, linewidth=1.2, zorder=1)
            for height, text in axis.ticks:
                drawn.axes.annotate(text, (x, height), (4, 0), textcoords="offset points", va="center", color=MUTED)
        drawn.axes.plot([len(axes)] * 2, [0, 1], color=MUTED, linewidth=1.2, zorder=1)
        for height, value in ((0.0, low), (1.0, high)):
            at = (len(axes), height)
            drawn.axes.annotate(decimal(value), at, (4, 0), textcoords="offset points", va="center", color=INK)
        for trial in shown:
            heights = [axis.heights.get(trial.number, NOT_DRAWN) for axis in axes]
            if trial.state == "finished":
                heights.append(shares[trial.number])
            strong = best is not None and trial.number == best.number
            share = min(max(shares[trial.number], 0.0), 1.0)
            drawn.axes.plot(
                range(len(heights)),
                heights,
                color=head_ink(trial.candidate.method, names),
                alpha=1.0 if strong else 0.12 + 0.38 * share,
                linewidth=2.6 if strong else 1.1,
                zorder=3 if strong else 2,
            )
        drawn.axes.set_xticks(range(len(axes) + 1), [*titles, "objective"], fontsize=9)
        drawn.axes.set_yticks([])
        drawn.axes.set_ylim(NOT_DRAWN - 0.04, 1.04)
        drawn.axes.grid(visible=False)
        drawn.axes.spines["left"].set_visible(False)
        drawn.axes.spines["bottom"].set_visible(False)
    missing = any(trial.number not in axis.heights for axis in axes for trial in shown)
    note = "A line below an axis is of a trial that did not draw it." if missing else ""
    return Figure(panels=(drawn.svg[0],), note=note)


def cost_figure(trials: Sequence[Trial], metric: str, names: tuple[str, ...]) -> Figure:
    """Objective against branch-epochs of finished trials; a line along those that are worth their cost."""
    finished = [trial for trial in trials if trial.state == "finished" and math.isfinite(trial.objective)]
    if not finished:
        return Figure(missing="No trial was finished.")
    front = worth_their_cost(trials)
    with panel("cost", "Objective by cost", heads=names, width_px=440, height_px=300) as drawn:
        costs, values = [trial.branch_epochs for trial in front], [trial.objective for trial in front]
        drawn.axes.step(costs, values, where="post", color=MUTED, linewidth=1.2)
        for trial in finished:
            color, chosen = head_ink(trial.candidate.method, names), trial in front
            drawn.axes.plot(trial.branch_epochs, trial.objective, "o", color=color, alpha=1.0 if chosen else 0.4)
            if chosen:
                at = (trial.branch_epochs, trial.objective)
                drawn.axes.annotate(str(trial.number), at, (5, 5), textcoords="offset points")
        drawn.axes.set_xlabel("branch-epochs, estimates included")
        drawn.axes.set_ylabel(f"val {metric}")
        drawn.axes.margins(0.08)
    return Figure(panels=(drawn.svg[0],))


def importance_figure(shares: Mapping[str, float], missing: str) -> Figure:
    """How much of the objective's variance goes with each setting."""
    if not shares:
        return Figure(missing=missing)
    ordered = sorted(shares.items(), key=lambda item: item[1])
    size = {"width_px": 440, "height_px": 60 + 24 * len(ordered)}
    with panel("importance", "Importance of settings", heads=ONE, **size) as drawn:
        widths = [share for _, share in ordered]
        drawn.axes.barh(range(len(ordered)), widths, color=head_ink(ONE[0], ONE), alpha=0.8)
        drawn.axes.set_yticks(range(len(ordered)), [name for name, _ in ordered], color=INK)
        drawn.axes.grid(visible=False, axis="y")
        drawn.axes.set_xlabel("share of the variance")
    return Figure(panels=(drawn.svg[0],))
