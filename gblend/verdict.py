"""What the numbers say, in words: the report's verdict and the captions of its figures, computed and nothing more.

A difference is named with its size, and called noise while it is below what seeds and the number of test clips allow
(`ComparisonTable.noise`). "Highest" is a statement about these runs, never about methods.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gblend.aggregate import (
    Group,
    HeadEstimate,
    LossCurve,
    by_method,
    estimate_steps,
    groups,
    loss_curves,
    loss_unit,
    task_keys,
)
from gblend.figures import ogr_text
from gblend.heads import FUSED
from gblend.runs import Run
from gblend.table import ComparisonTable, MethodRow
from gblend.table_text import decimal, with_sd

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The report's first paragraph."""

    headline: str
    """One sentence."""
    facts: tuple[str, ...]
    """The differences a reader asks for, each marked as noise or not."""
    caution: str
    """How sure this is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedCurves:
    """The loss curves that tell most about how each head overfits by itself."""

    where: str
    """Start of a sentence about them."""
    curves: dict[str, LossCurve]
    """By head; empty where no run has a history."""


def method_name(method: str) -> str:
    """A method in a sentence.

    >>> method_name("equal"), method_name("uni:rgb")
    ('equal weights', 'rgb alone')
    """
    kind, _, modality = method.partition(":")
    return f"{modality} alone" if kind == "uni" else NAMES.get(method, method)


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
        headline = f"{_capital(method_name(top.method))} reaches {result} ({_seeds(len(top.seeds))})."
        return Verdict(headline=headline, facts=_headlines(by_task), caution=_caution(table))
    next_row, following = max((item for item in scored if item[0] is not top), key=lambda item: item[1].mean)
    lead = best.mean - following.mean
    behind = "is level with it" if decimal(lead) == ".000" else f"is {decimal(lead)} behind"
    headline = (
        f"{_capital(method_name(top.method))} scores highest: {result} ({_seeds(len(top.seeds))}). The next, "
        f"{method_name(next_row.method)}, {behind}{noise_mark(table, lead)}."
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
    sentences = [f"{_capital(method_name(method))} is {_join(parts)}." for method, parts in facts.items()]
    naive = table.row("naive")
    if naive is not None and (inside := _fused_against(table, naive)):
        sentences.append(
            f"Networks of several heads are judged by {table.way_words} of their heads, naive ones by the fused head, "
            f"their only one. Fused head against fused head, {_join(inside)} {method_name('naive')}."
        )
    costs = [
        f"{method_name(row.method)} {row.branch_epochs:g}" for row in table.rows if not row.method.startswith("uni:")
    ]
    if naive is not None and len(costs) > 1:
        sentences.append(f"Cost in branch epochs, probes included: {_join(costs)}.")
    return sentences


def _fused_against(table: ComparisonTable, naive: MethodRow) -> list[str]:
    """How far the fused heads of methods that are judged by something else are from naive training's."""
    baseline = table.scores(naive).get(FUSED)
    found = []
    for row in table.rows:
        own = table.scores(row).get(FUSED)
        if own is not None and baseline is not None and row.primary != FUSED and row.seeds == naive.seeds:
            found.append(f"{method_name(row.method)} is {distance(own.mean - baseline.mean)}")
    return found


def distance(value: float) -> str:
    """A signed difference as words.

    >>> distance(0.03), distance(-0.0412), distance(0.0)
    ('.030 above', '.041 below', 'level with')
    """
    text = decimal(abs(value))
    return "level with" if text == ".000" else f"{text} {'above' if value > 0 else 'below'}"


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
            f"With {_seeds(table.min_seeds)}, differences under {decimal(table.noise_95)} may be the luck of the seeds "
            f"(95 %); {unknown}."
        )
    clips = f"by {decimal(table.clips_95)} by the choice of {table.clips_words}"
    if table.noise_95 is None:
        return f"One seed says nothing about the noise between trainings; two methods may differ {clips} alone (95 %)."
    text = (
        f"With {_seeds(table.min_seeds)}, differences under {decimal(table.noise)} are within noise: two methods may "
        f"differ by {decimal(table.noise_95)} by the luck of their seeds and {clips} (95 % each)."
    )
    chosen = len(table.rows)
    return text if chosen < 3 else f"{text} The highest of {chosen} is also the luckiest: expect less on new data."


def accuracy_caption(table: ComparisonTable) -> str:
    """What the accuracy figure shows."""
    dots = (
        "One dot a seed, the bar their mean." if table.min_seeds > 1 else "The bar is the mean of the dots, one a seed."
    )
    best = table.row(table.best_single) if table.best_single else None
    if best is None:
        return dots
    text = f"{dots} Dashed: {method_name(best.method)}, the best single modality by validation {table.measure}."
    joint = [(row, table.scores(row).get(best.primary)) for row in table.rows if FUSED in table.scores(row)]
    inside = [(score.mean, row.method) for row, score in joint if score is not None and math.isfinite(score.mean)]
    alone = table.scores(best).get(best.primary)
    if inside and alone is not None:
        mean, method = max(inside)
        text += (
            f" The {best.primary} head of the joint networks reaches {decimal(mean)} at best ({method_name(method)}), "
            f"trained alone {decimal(alone.mean)}."
        )
    return text


def compared_curves(runs: Sequence[Run], task: str = "") -> ComparedCurves:
    """The networks trained alone, the fused head's naively; where there are none, all heads of the first method."""
    methods = by_method(runs)
    alone = {m.removeprefix("uni:"): loss_curves(group, task) for m, group in methods.items() if m.startswith("uni:")}
    curves = {head: found[head] for head, found in alone.items() if head in found}
    naive = loss_curves(methods.get("naive", []), task).get(FUSED)
    if curves and naive is not None:
        where, curves = "trained alone (the fused head: naively)", {**curves, FUSED: naive}
    elif curves:
        where = "trained alone"
    else:
        method, curves = next(((m, found) for m, g in methods.items() if (found := loss_curves(g, task))), ("", {}))
        where = f"in {method_name(method)}"
    where = f"For {task}, {where}" if task else where[0].upper() + where[1:]
    return ComparedCurves(where=where, curves=curves)


def overfitting_caption(runs: Sequence[Run]) -> str:
    """Which head overfits most and least, from the networks trained alone or else from a joint run."""
    key = "Dashed: training clips; solid: held-out clips; circle: lowest held-out loss."
    return " ".join([key, *filter(None, (_gap_words(runs, task) for task in task_keys(runs)))])


def _gap_words(runs: Sequence[Run], task: str) -> str:
    compared, unit = compared_curves(runs, task), loss_unit(runs, task)
    ranked = sorted(((c, h) for h, c in compared.curves.items() if math.isfinite(c.gap)), key=lambda item: item[0].gap)
    if not ranked:
        return ""
    (least, least_head), (most, most_head) = ranked[0], ranked[-1]
    if len(ranked) == 1:
        return f"{compared.where}, {_curve_words(most_head, most, unit)}."
    widest = _curve_words(most_head, most, unit)
    return f"{compared.where}, the gap is widest for {widest}, narrowest for {least_head} ({least.gap:.2f})."


def _curve_words(head: str, curve: LossCurve, unit: str) -> str:
    text = f"{head} ({curve.gap:.2f} {unit} after {curve.epochs[-1]} epochs"
    if curve.rise >= 0.005:
        text += f"; its held-out loss is lowest after epoch {curve.best_epoch} and ends {curve.rise:.2f} above that"
    return text + ")"


def ogr_caption(runs: Sequence[Run]) -> str:
    """How much faster one modality overfits than another, by OGR, at the first estimate of each method."""
    parts = ["OGR = |O / G| (Eq. 3): overfitting gained per unit of held-out loss won; lower is better."]
    for group in groups(runs):
        steps = estimate_steps(group.runs, group.task)
        if steps:
            at = "" if len(steps) == 1 else f" at epoch {steps[0].epoch}"
            parts.append(f"{_group_name(group)}{at}: {_ogr_words(steps[0].heads)}.")
    return " ".join(parts)


def _ogr_words(heads: Sequence[HeadEstimate]) -> str:
    useful = [found for found in heads if found.mean_generalization > 0 and math.isfinite(found.ogr)]
    ranked = sorted((found for found in useful if found.head != FUSED), key=lambda found: found.ogr)
    words = []
    if len(ranked) > 1 and ranked[0].ogr > 0:
        slow, fast = ranked[0], ranked[-1]
        words.append(
            f"{fast.head} overfits {ogr_text(fast.ogr / slow.ogr)} times faster than {slow.head} "
            f"(OGR {ogr_text(fast.ogr)} against {ogr_text(slow.ogr)})"
        )
    else:
        words += [f"the OGR of {found.head} is {ogr_text(found.ogr)}" for found in ranked]
    words += [f"the OGR of the fused head is {ogr_text(found.ogr)}" for found in useful if found.head == FUSED]
    lost = [found.head for found in heads if found.mean_generalization <= 0]
    if lost:
        words.append(f"on average over seeds, the held-out loss of {_join(lost)} did not fall (G ≤ 0 gives weight 0)")
    unmeasured = [found.head for found in heads if math.isnan(found.mean_generalization)]
    if unmeasured:
        words.append(f"{_join(unmeasured)} gave no finite loss")
    return "; ".join(words) or "no head has a finite OGR"


def weights_caption(runs: Sequence[Run]) -> str:
    """Who gets the weight, and how that moves."""
    parts = ["Weight = (G / O²) / Σ (G / O²) (Eq. 5-6, Proposition 1), so the weights sum to 1."]
    for group in groups(runs):
        steps = estimate_steps(group.runs, group.task)
        if not steps:
            continue
        first, last = (max(step.heads, key=lambda found: found.mean_weight) for step in (steps[0], steps[-1]))
        text = f"{_group_name(group)} gives most to {first.head} ({decimal(first.mean_weight, 2)})"
        if len(steps) > 1:
            kept = "still" if last.head == first.head else "then"
            text += f" in the first super-epoch and in the last {kept} to {last.head} ({decimal(last.mean_weight, 2)})"
        parts.append(f"{text}.")
        reasons = list(dict.fromkeys(reason for step in steps for reason in step.reasons))
        if reasons:
            parts.append(f"Beyond the plain formula: {'; '.join(reasons)}.")
        warnings = [warning for step in steps for warning in step.warnings]
        if warnings:
            more = f", and {len(warnings) - 1} more like it" if len(warnings) > 1 else ""
            parts.append(f"Caution: {warnings[0]}{more}.")
    return " ".join(parts)


def _group_name(group: Group) -> str:
    """Start of a sentence about one method and task."""
    return _capital(method_name(group.method)) + (f" for {group.task}" if group.task else "")


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _capital(text: str) -> str:
    """Modality names keep their spelling: only methods named in words get a capital."""
    return text if text.endswith(" alone") else text[:1].upper() + text[1:]


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
