"""The advice of a comparison in sentences, for the terminal and the report's verdict."""

import math

from gblend.advice import Advice, Candidate, WeightsGain
from gblend.heads import FUSED
from gblend.records import MEAN, REFIT
from gblend.table import ComparisonTable
from gblend.table_text import decimal, with_sd
from gblend.verdict import distance, method_name, noise_mark

WAYS = {
    FUSED: "by its fused head",
    REFIT: "by a fused head trained anew on its trunks",
    "best-head": "by the head that is best on V",
    MEAN: "by the mean of all heads",
    "stack": "by the stack of all heads",
}
"""How a way of predicting is called in a sentence."""


def advice_words(advice: Advice, table: ComparisonTable) -> tuple[str, ...]:
    """One sentence about what to choose, and one about the weights of each estimating method."""
    needs = (
        ("from one training run", advice.one_run),
        ("as one network, whatever is trained for it", advice.one_network),
        ("at any cost", advice.any_cost),
    )
    chosen = [(need, candidate) for need, candidate in needs if candidate is not None]
    if not chosen:
        return ()
    # Two needs may have one answer.
    answers = dict.fromkeys((each.method, each.way) for _, each in chosen)
    parts = []
    for answer in answers:
        same = [(need, each) for need, each in chosen if (each.method, each.way) == answer]
        parts.append(f"{' and '.join(need for need, _ in same)}, {_candidate_words(same[0][1], table)}")
    return (
        f"By validation {table.measure}, choose {'; '.join(parts)}.",
        *(_gain_words(gain, table) for gain in advice.gains),
    )


def _candidate_words(each: Candidate, table: ComparisonTable) -> str:
    read = f" read {WAYS[each.way]}" if each.way in WAYS and not each.method.startswith("uni:") else ""
    score = each.score
    text = f"{method_name(each.method)}{read} ({table.split} {with_sd(score.mean, score.sd)}"
    best = table.row(table.best_single) if table.best_single else None
    if best is not None and best.method != each.method:
        alone = dict(zip(best.seeds, table.scores(best)[best.primary].values, strict=True))
        shared = [each.by_seed[seed] - alone[seed] for seed in each.by_seed if seed in alone]
        if shared:
            gain = math.fsum(shared) / len(shared)
            text += f", {distance(gain)} {method_name(best.method)}{noise_mark(table, gain)}"
    return f"{text}, {each.branch_epochs:g} branch epochs)"


def _gain_words(found: WeightsGain, table: ComparisonTable) -> str:
    mean = found.gain.mean
    text = (
        f"{method_name(found.method)[0].upper()}{method_name(found.method)[1:]} is {distance(mean)} equal weights when "
        f"both are read {WAYS[found.way]}{noise_mark(table, mean)}, at {decimal(found.times, 1)} times the training: "
    )
    if table.noise is None:
        return f"{text}one seed cannot say whether its weights add anything."
    if mean >= table.noise:
        return f"{text}here its weights pay."
    return f"{text}here its weights add nothing that these runs could show; equal weights are the cheaper choice."
