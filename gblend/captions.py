"""What each figure of the report means for these runs, in sentences computed from what it shows."""

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
from gblend.heads import FUSED
from gblend.runs import Run
from gblend.table import ComparisonTable
from gblend.table_text import decimal
from gblend.words import capital, listed, method_name, ogr_text


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedCurves:
    """The loss curves that tell most about how each head overfits by itself."""

    where: str
    """Start of a sentence about them."""
    curves: dict[str, LossCurve]
    """By head; empty where no run has a history."""


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
    parts = [
        "OGR = |O / G| (Eq. 3): overfitting gained per unit of held-out loss won; lower is better. In the plane dashed "
        "lines are equal OGRs, bars one standard error by the choice of clips; of several estimates, which a line "
        "joins, the first is open; faint dots are seeds."
    ]
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
        times = ogr_text(fast.ogr / slow.ogr)
        faster = f"as fast as {slow.head}" if times == "1.0" else f"{times} times faster than {slow.head}"
        chance = ", which the choice of clips may account for" if told_apart(slow, fast) is False else ""
        words.append(f"{fast.head} overfits {faster} (OGR {ogr_text(fast.ogr)} against {ogr_text(slow.ogr)}{chance})")
    else:
        words += [f"the OGR of {found.head} is {ogr_text(found.ogr)}" for found in ranked]
    words += [f"the OGR of the fused head is {ogr_text(found.ogr)}" for found in useful if found.head == FUSED]
    lost = [found.head for found in heads if found.mean_generalization <= 0]
    if lost:
        words.append(f"on average over seeds, the held-out loss of {listed(lost)} did not fall (G ≤ 0 gives weight 0)")
    unmeasured = [found.head for found in heads if math.isnan(found.mean_generalization)]
    if unmeasured:
        words.append(f"{listed(unmeasured)} gave no finite loss")
    return "; ".join(words) or "no head has a finite OGR"


def told_apart(slow: HeadEstimate, fast: HeadEstimate) -> bool | None:
    """Whether two OGRs differ by more than 1.96 standard errors of the logarithm of their ratio; None: who knows.

    Errors of O and G of one head both come from the clips of V and are added up as if they went together, which is the
    most they can come to; those of two heads are taken as independent.
    """
    relative = [
        each.overfitting_error / abs(each.mean_overfitting) + each.generalization_error / abs(each.mean_generalization)
        for each in (slow, fast)
    ]
    if not all(map(math.isfinite, relative)):
        return None
    return math.log(fast.ogr / slow.ogr) > 1.96 * math.hypot(*relative)


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
        if len(reasons) == 1:
            parts.append(f"Beyond the plain formula: {reasons[0]}.")
        elif reasons:
            parts.append("What decided beyond the plain formula stands beside the numbers above.")
        warnings = [warning for step in steps for warning in step.warnings]
        if warnings:
            more = f", and {len(warnings) - 1} more like it" if len(warnings) > 1 else ""
            parts.append(f"Caution: {warnings[0]}{more}.")
    return " ".join(parts)


def _group_name(group: Group) -> str:
    """Start of a sentence about one method and task."""
    return capital(method_name(group.method)) + (f" for {group.task}" if group.task else "")
