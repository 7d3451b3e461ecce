"""The figure and the sentence about which classes are taken for which others."""

from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from gblend.confusion import Confusion, mistakes, shown_classes
from gblend.figures import Figure
from gblend.svg import INK, MUTED, PAPER, WRONG, panel
from gblend.table_text import decimal
from gblend.words import WAYS, capital, method_name

NAMED = 3
"""Confusions that the caption names."""

CELL_PX, FEW_CLASSES = 26, 12
"""Side of a cell; so many classes leave room for a number in each."""

LEAST_PX = 300
"""A smaller panel would have less room for its title than that needs."""

OTHERS = "others"
"""The column of all classes that are not shown."""


def confusion_figure(found: Confusion | None, *, name: str = "confusion") -> Figure:
    """A cell for each pair, as dark as the share of the row's clips: grey where they are right, red where wrong.

    ``name`` keeps the figures of several tasks apart on a page.
    """
    if found is None:
        return Figure(missing="No predictions were kept, or a clip may have several labels, which are not confused.")
    shown = shown_classes(found.counts)
    if not shown.classes:
        return Figure(missing=f"{found.method} is right about every clip, of more classes than can be shown.")
    rows, columns = shown.shares.shape
    names = [found.names[label] for label in shown.classes]
    longest = 7 * max(map(len, names))
    title = f"{found.method}, by {found.way}" + (f", {found.task}" if found.task else "")
    size = {
        "width_px": max(LEAST_PX, CELL_PX * columns + longest + 50),
        "height_px": CELL_PX * rows + longest + 70,
    }
    with panel(name, f"{title}: which {found.split} clips are called what", heads=(), **size) as drawn:
        axes = drawn.axes
        cells, colours = [], []
        for row, of_row in enumerate(shown.shares):
            for column, share in enumerate(of_row):
                if not share > 0:
                    continue
                cells.append(Rectangle((column - 0.5, row - 0.5), 1, 1))
                colours.append(to_rgba(INK if row == column else WRONG, 0.12 + 0.88 * share))
                if rows <= FEW_CLASSES and share >= 0.005:  # less would be .00
                    ink = PAPER if share > 0.45 else INK
                    axes.annotate(decimal(share, 2), (column, row), color=ink, ha="center", va="center", fontsize=9)
        axes.add_collection(PatchCollection(cells, facecolors=colours, edgecolors="none"))
        for at in range(rows + 1):
            axes.axhline(at - 0.5, color=PAPER, linewidth=1.5)
        for at in range(columns + 1):
            axes.axvline(at - 0.5, color=PAPER, linewidth=1.5)
        turned = 0 if longest < CELL_PX else 90
        more = [OTHERS] if columns > rows else []
        axes.set_xticks(range(columns), [*names, *more], color=INK, rotation=turned)
        axes.set_yticks(range(rows), names, color=INK)
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylim(rows - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.grid(visible=False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(MUTED)
        axes.set_xlabel("called")
        axes.set_ylabel("is")
        axes.set_title(title)
    classes = int((found.counts.sum(axis=1) > 0).sum())
    note = f"Of {classes} classes, the {rows} with the largest confusions are shown." if columns > rows else ""
    return Figure(panels=(drawn.svg[0],), note=note)


def confusion_caption(found: Confusion | None) -> str:
    """How often it is wrong, and what is taken for what most."""
    if found is None:
        return ""
    clips, right = int(found.counts.sum()), int(found.counts.trace())
    together = f" of all {len(found.seeds)} seeds together" if len(found.seeds) > 1 else ""
    read = f", read {WAYS[found.way]}," if found.way in WAYS else ""
    text = (
        "Each row: what the clips of a class are called, in shares of them; grey is right, red is wrong. "
        f"{capital(method_name(found.method))}{read} is wrong about {clips - right} of {clips} "
        f"{found.split} clips{together}"
    )
    every = mistakes(found.counts)
    if not every:
        return f"{text}."
    named = [
        f"{found.names[each.truth]} for {found.names[each.said]} ({each.clips} of {each.of}, "
        f"{decimal(each.clips / each.of, 2)})"
        for each in every[:NAMED]
    ]
    share = sum(each.clips for each in every[:NAMED]) / (clips - right)
    text += f". Taken for another most often: {', '.join(named)}"
    return f"{text}; that is {decimal(share, 2)} of all mistakes." if len(every) > NAMED else f"{text}."
