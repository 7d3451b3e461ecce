"""One matplotlib axes -> one inline SVG that belongs to its page: it takes the page's font and its colours.

Matplotlib rather than Plotly or Vega-Altair: a report is kept, printed and put into papers, and SVG is a static part of
the page (10 to 30 KB a panel) that stays sharp and needs no script, where theirs would be megabytes in every page.

Colours are written as CSS variables with a fallback, so one drawing serves a light and a dark page and a head keeps
its colour in all figures (Okabe and Ito's colour-blind safe set, made lighter for dark pages). One viewBox unit is one
CSS pixel, so a panel that is shown at its own width has text of the size set here.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gblend.heads import FUSED

INK, MUTED, RULE, PAPER, WRONG = "#010101", "#010102", "#010103", "#010104", "#010105"
"""Colours to draw with: text, secondary text and axes, grid, the page's background, and mistakes."""

_VARIABLES = {
    INK: "--ink, #1c1e21",
    MUTED: "--muted, #63676e",
    RULE: "--rule, #dfe1e4",
    PAPER: "--paper, #ffffff",
    WRONG: "--wrong, #b3261e",
}

HEAD_COLORS: dict[str, tuple[str, str]] = {
    "rgb": ("#0072b2", "#56b4e9"),
    "flow": ("#c95400", "#f08a3c"),
    "logmel": ("#00855f", "#2fc296"),
    FUSED: ("#1c1e21", "#eceef0"),
}
"""Per head: on a light page, on a dark page. The fused head has the colour of the text."""

_OTHER_COLORS = (("#a3548a", "#d79ac0"), ("#8a6d00", "#e3c53b"), ("#5b5fc7", "#a3a6f5"))
"""For heads named after modalities of one's own, by position."""

_SIZE = 11.0


@dataclass(kw_only=True, slots=True)
class Panel:
    """An axes to draw on and, once the `panel` block is left, its SVG."""

    axes: Axes
    """Where to draw."""
    svg: list[str] = field(default_factory=list)
    """Filled with the one string when the block ends."""


def head_colors(heads: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Light and dark colour of every head; heads without a colour of their own take the spare ones in turn."""
    others = [head for head in heads if head not in HEAD_COLORS]
    spare = {head: _OTHER_COLORS[i % len(_OTHER_COLORS)] for i, head in enumerate(others)}
    return {head: HEAD_COLORS.get(head) or spare[head] for head in heads}


def head_ink(head: str, heads: tuple[str, ...]) -> str:
    """The colour to hand to matplotlib for a head; becomes ``var(--head-<i>)`` in the SVG.

    >>> head_ink("flow", ("rgb", "flow", "fused"))
    '#010201'
    """
    return f"#0102{heads.index(head):02x}"


def palette_css(heads: tuple[str, ...], *, dark: bool) -> str:
    """CSS declarations of the head colours for one colour scheme.

    >>> palette_css(("rgb", "fused"), dark=False)
    '--head-0: #0072b2; --head-1: #1c1e21;'
    """
    pairs = head_colors(heads).values()
    return " ".join(f"--head-{index}: {pair[1] if dark else pair[0]};" for index, pair in enumerate(pairs))


@contextmanager
def panel(name: str, label: str, *, heads: tuple[str, ...], width_px: int, height_px: int) -> Iterator[Panel]:
    """Draw in the block, read ``svg`` after it. ``name`` keeps ids apart on a page; screen readers say ``label``."""
    style: dict[Any, Any] = {
        "font.family": ["DejaVu Sans"],  # for measuring; wider than system fonts, so nothing overlaps in those
        "font.size": _SIZE,
        "text.color": INK,
        "axes.titlesize": _SIZE + 1,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.titlepad": 8.0,
        "axes.labelsize": _SIZE - 0.5,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": MUTED,
        "axes.linewidth": 0.8,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "grid.color": RULE,
        "grid.linewidth": 0.8,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelsize": _SIZE - 0.5,
        "ytick.labelsize": _SIZE - 0.5,
        "xtick.major.size": 0.0,
        "ytick.major.size": 0.0,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width_px / 72, height_px / 72), layout="constrained")
        drawn = Panel(axes=figure.subplots())
        yield drawn
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawn.svg.append(_inline(buffer.getvalue(), name=name, label=label, heads=heads, width_px=width_px))


def _inline(text: str, *, name: str, label: str, heads: tuple[str, ...], width_px: int) -> str:
    """Matplotlib's file as a part of an HTML page: no header, no metadata, ids of its own, colours as variables."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    label = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    opening = f'<svg {box.group()} role="img" aria-label="{label}" style="max-width: {width_px}px">'
    text = opening + text[text.index(">") + 1 :]
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', text).replace("xlink:href=", "href=")
    text = text.replace("url(#", f"url(#{name}-")
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r"font: ([^;\"]*?px) [^;\"]*", r"font-size: \1; font-family: inherit", text)
    fallback = head_colors(heads)
    names = {head_ink(head, heads): f"--head-{heads.index(head)}, {fallback[head][0]}" for head in heads}
    for sentinel, variable in {**_VARIABLES, **names}.items():
        text = text.replace(sentinel, f"var({variable})")
    return text.strip()
