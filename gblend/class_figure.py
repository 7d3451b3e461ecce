"""The figure and the sentence about gains class by class (the paper's Fig. 6)."""

from collections.abc import Sequence

from gblend.figures import Figure
from gblend.per_class import ClassGain, ClassGains
from gblend.svg import INK, MUTED, panel
from gblend.table_text import decimal
from gblend.words import WAYS, capital, method_name

MOST_CLASSES = 20
"""Of more classes, the half of this that gain most and the half that lose most are drawn."""

NAMED = 3
"""Classes the caption names on either side."""


def class_figure(gains: ClassGains | None, *, name: str = "classes") -> Figure:
    """The joint network minus the best single modality, one row a class, largest gain on top.

    ``name`` keeps the figures of several tasks apart on a page.
    """
    if gains is None:
        return Figure(
            missing="No joint method ran beside a single modality, their predictions were not kept, or there is no "
            "labelled clip that both answer for."
        )
    shown, left_out = drawn_classes(gains.classes)
    title = f"{gains.joint} minus {gains.single}" + (f", {gains.task}" if gains.task else "")
    label = f"{title}: {gains.split} {gains.metric}, class by class"
    with panel(name, label, heads=(), width_px=440, height_px=80 + 22 * len(shown)) as drawn:
        axes = drawn.axes
        for y, found in enumerate(shown):
            axes.plot([0, found.mean], [y, y], color=INK, linewidth=7, alpha=0.25, solid_capstyle="butt")
            axes.plot(found.gains, [y] * len(found.gains), "o", color=INK, alpha=0.4, markersize=5, mec="none")
            axes.plot([found.mean] * 2, [y - 0.32, y + 0.32], color=INK, linewidth=2.2, solid_capstyle="butt")
        axes.axvline(0.0, color=MUTED, linewidth=1)
        axes.set_yticks(range(len(shown)), [found.name for found in shown], color=INK)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.xaxis.set_major_formatter(lambda value, _: decimal(value, 2, signed=True))
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"difference in {gains.split} {gains.metric}")
        axes.set_title(title)
    note = f"The {left_out} classes between these are left out." if left_out else ""
    return Figure(panels=(drawn.svg[0],), note=note)


def drawn_classes(classes: Sequence[ClassGain]) -> tuple[Sequence[ClassGain], int]:
    """Those to draw, and how many of the middle are not."""
    if len(classes) <= MOST_CLASSES:
        return classes, 0
    half = MOST_CLASSES // 2
    return [*classes[:half], *classes[-half:]], len(classes) - 2 * half


def class_caption(gains: ClassGains | None) -> str:
    """Which classes gain and lose most."""
    if gains is None:
        return ""
    gained = [found for found in gains.classes if found.mean > 0][:NAMED]
    lost = [found for found in reversed(gains.classes) if found.mean < 0][:NAMED]
    fewest = min(found.clips for found in gains.classes)
    read = f", read {WAYS[gains.way]}," if gains.way in WAYS else ""
    text = (
        f"{capital(method_name(gains.joint))}{read} beside {method_name(gains.single)}, the best single modality by "
        f"validation {gains.chosen_by}. One dot a seed, the line their mean. "
        f"{len([c for c in gains.classes if c.mean > 0])} of {len(gains.classes)} classes gain, "
        f"{len([c for c in gains.classes if c.mean < 0])} lose."
    )
    if gained:
        text += f" Most gained: {_named(gained)}."
    if lost:
        text += f" Most lost: {_named(lost)}."
    few = f"{text} With as few as {fewest} clips in a class"
    return f"{few}, one clip is worth up to {decimal(1 / fewest)}." if gains.metric == "accuracy" else f"{few}."


def _named(classes: Sequence[ClassGain]) -> str:
    return ", ".join(f"{found.name} ({decimal(found.mean, 2, signed=True)})" for found in classes)
