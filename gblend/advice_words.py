"""The advice of a comparison in sentences, for the terminal and the report's verdict."""

import math

from gblend.advice import Advice, Candidate, WeightsGain
from gblend.table import ComparisonTable
from gblend.table_text import decimal, with_sd
from gblend.verdict import noise_mark
from gblend.words import WAYS, distance, method_name


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
        parts.append(f"{' and '.join(need for need, _ in same)}, {_candidate_words(same[0][1], advice, table)}")
    fewer = f" Scored on fewer clips and not compared: {', '.join(map(method_name, advice.left_out))}."
    return (
        f"By validation {table.measure}, choose {'; '.join(parts)}.{fewer if advice.left_out else ''}",
        *(_gain_words(gain, table) for gain in advice.gains),
    )


def _candidate_words(each: Candidate, advice: Advice, table: ComparisonTable) -> str:
    read = f" read {WAYS[each.way]}" if each.way in WAYS and not each.method.startswith("uni:") else ""
    score = each.score
    text = f"{method_name(each.method)}{read} ({table.split} {with_sd(score.mean, score.sd)}"
    single = advice.single
    if single is not None and single.method != each.method:
        gains = [each.by_seed[seed] - single.by_seed[seed] for seed in each.by_seed if seed in single.by_seed]
        if gains:
            gain = math.fsum(gains) / len(gains)
            text += f", {distance(gain)} {method_name(single.method)}{noise_mark(table, gain)}"
    return f"{text}, {each.branch_epochs:g} branch epochs)"


def _gain_words(found: WeightsGain, table: ComparisonTable) -> str:
    mean = found.gain.mean
    name = method_name(found.method)
    text = (
        f"By {table.measure}, {name} is {distance(mean)} equal weights when both are read {WAYS[found.way]}"
        f"{noise_mark(table, mean)}, at {decimal(found.times, 1)} times the training: "
    )
    if table.noise is None:
        return f"{text}one seed cannot say whether its weights add anything."
    cheaper = "; equal weights are the cheaper choice" if found.times > 1.0 else ""
    if mean <= -table.noise and table.clips_95 is None:
        return f"{text}less by more than the seeds explain, but what the choice of clips adds is not known{cheaper}."
    if mean <= -table.noise:
        return f"{text}here its weights cost {table.measure}{cheaper}."
    if mean < table.noise:
        return f"{text}here its weights add nothing that these runs could show{cheaper}."
    if table.clips_95 is None:
        return f"{text}more than the seeds explain, but what the choice of clips adds is not known."
    return f"{text}here its weights pay."
