"""What the numbers say, in words: the report's verdict, computed and nothing more.

A difference is named with its size, and called noise while it is below what seeds and the number of test clips allow
(`ComparisonTable.noise`). "Highest" is a statement about these runs, never about methods.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gblend.heads import FUSED
from gblend.table import ComparisonTable, MethodRow
from gblend.table_text import decimal, with_sd
from gblend.words import agree, capital, distance, listed, method_name, seeds_words


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The report's first paragraph."""

    headline: str
    """One sentence."""
    facts: tuple[str, ...]
    """The differences a reader asks for, each marked as noise or not."""
    caution: str
    """How sure this is."""


def verdict(table: ComparisonTable, by_task: Sequence[ComparisonTable] = ()) -> Verdict:
    """The verdict on these runs.

    Args:
        table: What methods are compared by.
        by_task: With several tasks, the tables of each: a line about every one is added.
    """
    scored = [(row, table.scores(row)[row.primary]) for row in table.rows if row.primary in table.scores(row)]
    scored = [(row, score) for row, score in scored if math.isfinite(score.mean)]
    if not scored:
        return Verdict(headline=f"No run has a score on the {table.split} split.", facts=(), caution="")
    top, best = max(scored, key=lambda item: item[1].mean)
    result = f"{with_sd(best.mean, best.sd)} {table.split} {table.measure}"
    if len(scored) == 1:
        reaches = agree(top.method, "reaches", "reach")
        headline = f"{capital(method_name(top.method))} {reaches} {result} ({seeds_words(len(top.seeds))})."
        return Verdict(headline=headline, facts=_headlines(by_task), caution=_caution(table))
    next_row, following = max((item for item in scored if item[0] is not top), key=lambda item: item[1].mean)
    lead = best.mean - following.mean
    lag = "level with it" if decimal(lead) == ".000" else f"{decimal(lead)} behind"
    behind = f"{agree(next_row.method, 'is', 'are')} {lag}"
    headline = (
        f"{capital(method_name(top.method))} {agree(top.method, 'scores', 'score')} highest: {result} "
        f"({seeds_words(len(top.seeds))}). The next, {method_name(next_row.method)}, {behind}{noise_mark(table, lead)}."
    )
    facts = (*_facts(table, top), *_headlines(by_task))
    return Verdict(headline=headline, facts=facts, caution=_caution(table))


def _headlines(tables: Sequence[ComparisonTable]) -> tuple[str, ...]:
    return tuple(f"{table.task}: {verdict(table).headline}" for table in tables)


def _facts(table: ComparisonTable, top: MethodRow) -> list[str]:
    """Does joint training hurt; does each remedy help; how far is everything else from the top."""
    pairs = [("naive", "best single"), ("equal", "naive")]
    for method in ("offline", "online"):
        pairs += [(method, "naive"), (method, "equal"), (method, "best single")]
    if top.method not in ("naive", "equal", "offline", "online"):
        pairs += [(top.method, "naive"), (top.method, "equal"), (top.method, "best single")]
    facts: dict[str, list[str]] = {}
    for method, baseline in pairs:
        row = table.row(method)
        found = row.differences.get(baseline) if row else None
        if found is not None and math.isfinite(found.mean):
            facts.setdefault(method, []).append(
                f"{distance(found.mean)} {method_name(found.against)}{noise_mark(table, found.mean)}"
            )
    sentences = [f"{capital(_is(method))} {listed(parts)}." for method, parts in facts.items()]
    naive = table.row("naive")
    if naive is not None and (inside := _fused_against(table, naive)):
        sentences.append(
            f"Networks of several heads are judged by {table.way_words} of their heads, naive ones by the fused head, "
            f"their only one. Fused head against fused head, {listed(inside)} {method_name('naive')}."
        )
    costs = [
        f"{method_name(row.method)} {row.branch_epochs:g}" for row in table.rows if not row.method.startswith("uni:")
    ]
    if naive is not None and len(costs) > 1:
        sentences.append(f"Cost in branch epochs, probes included: {listed(costs)}.")
    return sentences


def _fused_against(table: ComparisonTable, naive: MethodRow) -> list[str]:
    """How far the fused heads of methods that are judged by something else are from naive training's."""
    baseline = table.scores(naive).get(FUSED)
    found = []
    for row in table.rows:
        own = table.scores(row).get(FUSED)
        if own is not None and baseline is not None and row.primary != FUSED and row.seeds == naive.seeds:
            found.append(f"{_is(row.method)} {distance(own.mean - baseline.mean)}")
    return found


def _is(method: str) -> str:
    return f"{method_name(method)} {agree(method, 'is', 'are')}"


def noise_mark(table: ComparisonTable, value: float) -> str:
    """Whether a difference may be chance; nothing where one seed cannot tell."""
    if table.noise is None or decimal(abs(value)) == ".000":
        return ""
    if abs(value) < table.noise:
        return " (within noise)"
    return " (beyond noise)" if table.clips_95 is not None else " (beyond the noise of the seeds)"


def _caution(table: ComparisonTable) -> str:
    if table.clips == 0:
        return ""
    if table.clips_95 is None:
        unknown = f"what the choice of {table.clips_words} adds is not known for {table.measure}"
        if table.noise_95 is None:
            return f"One seed says nothing about the noise between trainings, and {unknown}."
        return (
            f"With {seeds_words(table.min_seeds)}, differences under {decimal(table.noise_95)} may be the luck of the "
            f"seeds (95 %); {unknown}."
        )
    clips = f"by {decimal(table.clips_95)} by the choice of {table.clips_words}"
    if table.noise_95 is None:
        return f"One seed says nothing about the noise between trainings; two methods may differ {clips} alone (95 %)."
    text = (
        f"With {seeds_words(table.min_seeds)}, differences under {decimal(table.noise)} are within noise: two methods "
        f"may differ by {decimal(table.noise_95)} by the luck of their seeds and {clips} (95 % each)."
    )
    chosen = len(table.rows)
    return text if chosen < 3 else f"{text} The highest of {chosen} is also the luckiest: expect less on new data."
