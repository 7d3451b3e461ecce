"""Words that sentences about runs share: how methods, ways of predicting, differences and counts are called."""

import math
from collections.abc import Sequence

from gblend.heads import FUSED
from gblend.records import BEST_HEAD, MEAN, REFIT, STACK
from gblend.table_text import decimal

NAMES = {
    "naive": "naive joint training",
    "dropout": "naive training with dropout",
    "early-stop": "early stopping on V",
    "pretrain": "fine-tuning single-modality networks",
    "ogm-ge": "OGM-GE",
    "equal": "equal weights",
    "fixed": "weights given by hand",
    "uncertainty": "learned weights",
    "tracked": "G-Blend from the run's own heads",
    "offline": "offline G-Blend",
    "online": "online G-Blend",
    "ensemble": "the ensemble of single modalities",
    "ensemble+naive": "the ensemble with the naive network",
}

WAYS = {
    FUSED: "by its fused head",
    REFIT: "by a fused head trained anew on frozen trunks",
    BEST_HEAD: "by the head that is best on V",
    MEAN: "by the mean of all heads",
    STACK: "by the stack of all heads",
}
"""How a way of predicting is called in a sentence."""


def method_name(method: str) -> str:
    """A method in a sentence.

    >>> method_name("equal"), method_name("uni:rgb")
    ('equal weights', 'rgb alone')
    """
    kind, _, modality = method.partition(":")
    return f"{modality} alone" if kind == "uni" else NAMES.get(method, method)


PLURAL = ("equal", "fixed", "uncertainty")
"""Methods whose names are plural."""


def agree(method: str, one: str, several: str) -> str:
    """The form of a verb that stands behind a method's name.

    >>> agree("equal", "is", "are"), agree("online", "is", "are")
    ('are', 'is')
    """
    return several if method in PLURAL else one


def distance(value: float) -> str:
    """A signed difference as words.

    >>> distance(0.03), distance(-0.0412), distance(0.0)
    ('.030 above', '.041 below', 'level with')
    """
    text = decimal(abs(value))
    return "level with" if text == ".000" else f"{text} {'above' if value > 0 else 'below'}"


def ogr_text(value: float) -> str:
    """A few digits, whatever the size.

    >>> [ogr_text(v) for v in (0.1234, 3.14159, 41.7, math.inf, math.nan)]
    ['0.12', '3.1', '42', '∞', 'n/a']
    """
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞"
    return f"{value:.2f}" if value < 0.995 else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def seeds_words(count: int) -> str:
    """So many seeds.

    >>> seeds_words(1), seeds_words(3)
    ('one seed', '3 seeds')
    """
    return "one seed" if count == 1 else f"{count} seeds"


def capital(text: str) -> str:
    """Modality names keep their spelling: only methods named in words get a capital."""
    return text if text.endswith(" alone") else text[:1].upper() + text[1:]


def listed(parts: Sequence[str]) -> str:
    """With commas and a last "and".

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
