"""OGR epoch by epoch (Eq. 3), from the losses a run measures anyway: no probe, no weights.

N and N + n of the paper are here two measured epochs that follow each other. An estimate (`gblend.estimate`) answers
what a head would do if it were trained alone from a checkpoint; this answers what it did in the run it was part of, and
when an epoch began to cost more than it gave. O and G are averaged over seeds before they are divided, because a mean
of ratios would be ruled by the seed whose G is nearest to 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from gblend.aggregate import LossCurve, groups, loss_curves, task_keys
from gblend.captions import compared_curves
from gblend.figures import PAIR_PX, Figure, all_heads
from gblend.ogr import RELATIVE_TOLERANCE, overfitting_to_generalization_ratio, without_rounding
from gblend.runs import Run
from gblend.svg import MUTED, PAPER, head_ink, panel

DRAWN = (1e-2, 1e2)
"""OGRs beyond these say only that O or G was nearly 0; they are drawn at the edge."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRatios:
    """What every epoch cost and gave one head of one method, in means over its seeds."""

    epochs: tuple[int, ...]
    """Epochs at whose end it was measured; O and G are counted from the first, usually 0, the untrained network."""
    generalization: Float[np.ndarray, " epochs"]
    """G since the first epoch, in nats: how far the held-out loss has fallen."""
    overfitting: Float[np.ndarray, " epochs"]
    """O since the first epoch, in nats: how far the gap between held-out and training loss has grown."""
    step_generalization: Float[np.ndarray, " steps"]
    """G from one measured epoch to the next; up to rounding it is 0."""
    ogr: Float[np.ndarray, " steps"]
    """|O / G| from one measured epoch to the next: infinite where only G is 0, NaN where both are or a loss is not
    finite."""

    @property
    def costly_epoch(self) -> int | None:
        """The first epoch that added as much overfitting as it won on held-out clips, or won nothing; None: none did.

        Where O, too, is negative or 0, an epoch that won nothing has cost nothing either, but it is counted.
        """
        for epoch, ratio, gain in zip(self.epochs[1:], self.ogr, self.step_generalization, strict=True):
            if ratio >= 1 or gain <= 0:
                return epoch
        return None


def epoch_ratios(curve: LossCurve) -> EpochRatios:
    """O, G and OGR of one head between its measured epochs.

    >>> import numpy as np
    >>> curve = LossCurve(
    ...     epochs=(0, 1, 2, 3),
    ...     train=np.array([[1.8, 1.2, 0.9, 0.6]]),
    ...     heldout=np.array([[1.8, 1.4, 1.3, 1.3]]),
    ... )
    >>> found = epoch_ratios(curve)
    >>> found.ogr.round(2).tolist()  # .2/.4, .2/.1, .3/0
    [0.5, 2.0, inf]
    >>> found.overfitting.round(2).tolist(), found.costly_epoch
    ([0.0, 0.2, 0.4, 0.7], 2)
    """
    train, heldout = curve.train.mean(axis=0), curve.heldout.mean(axis=0)
    # Infinite losses give inf - inf = NaN: a value, not an accident, so NumPy need not warn.
    with np.errstate(invalid="ignore"):
        gap = heldout - train
        largest = np.nan_to_num(np.maximum(np.abs(train), np.abs(heldout)), posinf=0.0)
        rounding = RELATIVE_TOLERANCE * np.maximum(largest[1:], largest[:-1])
        gain = without_rounding(-np.diff(heldout), rounding)
        loss = without_rounding(np.diff(gap), rounding)
        return EpochRatios(
            epochs=curve.epochs,
            generalization=heldout[0] - heldout,
            overfitting=gap - gap[0],
            step_generalization=gain,
            ogr=overfitting_to_generalization_ratio(loss, gain),
        )


def epoch_figure(runs: Sequence[Run]) -> Figure:
    """Per method (and task) two panels on common scales: OGR of every epoch on a log axis, and the path of G and O."""
    heads = all_heads(runs)
    found = [
        (group, {head: epoch_ratios(curve) for head, curve in loss_curves(group.runs, group.task).items()})
        for group in groups(runs)
    ]
    found = [(group, ratios) for group, ratios in found if any(len(r.epochs) > 1 for r in ratios.values())]
    if not found:
        return Figure(missing="No run has a history of losses of two epochs or more.")
    everything = {
        task: [ratios for group, by_head in found if group.task == task for ratios in by_head.values()]
        for task in task_keys(runs)
    }
    limits = _ogr_limits([ratios for of_task in everything.values() for ratios in of_task])
    panels = []
    for index, (group, by_head) in enumerate(found):
        plane = _plane_limits(everything[group.task])
        panels.append(_ogr_panel(f"epochs{index}", group.title, by_head, heads, limits))
        panels.append(_plane_panel(f"plane{index}", group.title, by_head, heads, plane, group.unit))
    return Figure(panels=tuple(panels))


def epoch_caption(runs: Sequence[Run]) -> str:
    """How to read the panels, and from which epoch on the heads paid more than they got."""
    text = (
        "OGR per epoch: Eq. 3 between one measured epoch and the next, on a log axis. Open mark: the held-out loss did "
        "not fall; triangle: beyond the axis. O against G: how both add up from the first measured epoch to the last, "
        "the dot; the slope of a line from the origin is the OGR so far. Dashed in both: OGR = 1, as much overfitting "
        "gained as held-out loss won."
    )
    for task in task_keys(runs):
        compared = compared_curves(runs, task)
        ratios = {head: epoch_ratios(curve) for head, curve in compared.curves.items()}
        words = [_costly_words(head, found) for head, found in ratios.items() if len(found.epochs) > 1]
        text += f" {compared.where}, {'; '.join(words)}." if words else ""
    return text


def _costly_words(head: str, found: EpochRatios) -> str:
    epoch = found.costly_epoch
    if epoch is not None:
        return f"the OGR of {head} first reaches 1 in epoch {epoch}"
    if np.isnan(found.ogr).all():
        return f"{head} gave no OGR"
    return f"that of {head} stays below 1 in all {found.epochs[-1]} epochs"


def _ogr_limits(found: Sequence[EpochRatios]) -> tuple[float, float]:
    values = np.concatenate([ratios.ogr for ratios in found])
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (float(values.min()), float(values.max())) if values.size else (1.0, 1.0)
    return max(min(low, 0.5), DRAWN[0]), min(max(high, 2.0), DRAWN[1])


def _plane_limits(found: Sequence[EpochRatios]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of G and of O; a head that diverges leaves the panel instead of flattening the others."""
    gains = np.concatenate([ratios.generalization for ratios in found])
    losses = np.concatenate([ratios.overfitting for ratios in found])
    finite = np.isfinite(gains) & np.isfinite(losses)
    best = max(float(gains[finite].max(initial=0.0)), 1e-3)
    low, high = float(gains[finite].min(initial=0.0)), float(losses[finite].max(initial=0.0))
    bottom = float(losses[finite].min(initial=0.0))
    pad = 0.06 * best
    return (max(low, -best) - pad, best + pad), (max(bottom, -best) - pad, min(max(high, best / 2), 3 * best) + pad)


def _ogr_panel(
    name: str, method: str, found: Mapping[str, EpochRatios], heads: tuple[str, ...], limits: tuple[float, float]
) -> str:
    width, height = PAIR_PX
    label = f"{method}: OGR of every epoch of {', '.join(found)}"
    with panel(name, label, heads=heads, width_px=width, height_px=height) as drawn:
        low, high = limits
        drawn.axes.set_yscale("log")
        drawn.axes.axhline(1.0, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=0.9)
        for head, ratios in found.items():
            color, epochs = head_ink(head, heads), ratios.epochs[1:]
            inside = np.clip(ratios.ogr, low, high)  # NaN stays NaN, and breaks the line
            drawn.axes.plot(epochs, inside, color=color, linewidth=1.4)
            for epoch, y, value, gain in zip(epochs, inside, ratios.ogr, ratios.step_generalization, strict=True):
                marker = "^" if value > high else "v" if value < low else "o"
                face = color if gain > 0 else PAPER
                drawn.axes.plot(epoch, y, marker, color=color, markersize=5, mfc=face, mew=1.3, zorder=3, clip_on=False)
        drawn.axes.set_ylim(low / 1.15, high * 1.15)
        drawn.axes.yaxis.set_major_locator(LogLocator(subs=(1.0,)))
        drawn.axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        drawn.axes.yaxis.set_minor_locator(NullLocator())
        drawn.axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        drawn.axes.set_xlabel("epoch")
        drawn.axes.set_ylabel("OGR")
        drawn.axes.set_title(f"{method}: OGR per epoch")
    return drawn.svg[0]


def _plane_panel(
    name: str,
    method: str,
    found: Mapping[str, EpochRatios],
    heads: tuple[str, ...],
    limits: tuple[tuple[float, float], tuple[float, float]],
    unit: str,
) -> str:
    width, height = PAIR_PX
    label = f"{method}: overfitting O against generalisation G of {', '.join(found)}, since the first measured epoch"
    with panel(name, label, heads=heads, width_px=width, height_px=height) as drawn:
        _one_to_one(drawn.axes)
        for head, ratios in found.items():
            color = head_ink(head, heads)
            drawn.axes.plot(ratios.generalization, ratios.overfitting, color=color, linewidth=1.8)
            if math.isfinite(ratios.generalization[-1]) and math.isfinite(ratios.overfitting[-1]):
                drawn.axes.plot(
                    ratios.generalization[-1], ratios.overfitting[-1], "o", color=color, markersize=5.5, mec=PAPER
                )
        drawn.axes.set_xlim(*limits[0])
        drawn.axes.set_ylim(*limits[1])
        drawn.axes.set_xlabel(f"G ({unit})")
        drawn.axes.set_ylabel(f"O ({unit})")
        drawn.axes.set_title(f"{method}: O against G")
    return drawn.svg[0]


def _one_to_one(axes: Axes) -> None:
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.axline((0, 0), slope=1, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=0.9)
