"""The decision a comparison leads to, before all else: which method to use, by how much, how sure, what it costs.

Of all single networks the one that is best on the validation split is used; or the best of those that one training run
gives, which is cheaper, while the difference between the two there is within noise. Numbers are those of the table's
split, which chose nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gblend.advice import Advice, Candidate, advise, candidates
from gblend.records import RunResult
from gblend.table import ComparisonTable, Spread, spread
from gblend.table_text import decimal, with_sd
from gblend.words import WAYS, agree, capital, distance, listed, method_name


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Four answers, a sentence or two each."""

    use: str
    """Which method, and how its network is read."""
    why: str
    """What speaks for it."""
    by_how_much: str
    """Its score, and the distance to what it is to be compared with."""
    how_sure: str
    """Which of these distances are more than chance makes."""
    cost: str
    """Training of one run, beside naive training's."""


def decide(results: Sequence[RunResult], table: ComparisonTable, advice: Advice) -> Decision | None:
    """The decision; None where no two methods were compared.

    Args:
        results: Finished runs of one comparison.
        table: Of the same runs.
        advice: Of the same runs and table.
    """
    chosen = choose(advice, table)
    if chosen is None or len(table.rows) < 2:
        return None
    every = candidates(results, table)
    gains = {}
    for other in rivals(chosen, every, advice):
        shared = [seed for seed in chosen.by_seed if seed in other.by_seed]
        if shared:
            gains[name_of(other)] = spread(chosen.by_seed[seed] - other.by_seed[seed] for seed in shared)
    return Decision(
        use=f"Use {name_of(chosen)}{_read(chosen)}.",
        why=_why(chosen, advice, table),
        by_how_much=_by_how_much(chosen, gains, table),
        how_sure=_how_sure(gains, table),
        cost=_cost(chosen, table),
    )


def choose(advice: Advice, table: ComparisonTable) -> Candidate | None:
    """The best single network on val, or that of one run where it is not worse there by more than noise."""
    best, cheap = advice.one_network, advice.one_run
    if best is None or cheap is None or table.val_noise is None:
        return best
    return cheap if best.val - cheap.val < table.val_noise else best


def recommended(results: Sequence[RunResult], table: ComparisonTable) -> str | None:
    """The method that is chosen; None where nothing was scored on val."""
    chosen = choose(advise(results, table), table)
    return None if chosen is None else chosen.method


def rivals(chosen: Candidate, every: Sequence[Candidate], advice: Advice) -> list[Candidate]:
    """The best single modality, naive training and equal weights, as far as they ran; read as the chosen one if they
    can be, or else in the way that is best on val.
    """
    found = [] if advice.single is None else [advice.single]
    for method in ("naive", "equal"):
        own = [each for each in every if each.method == method]
        if own:
            found.append(max(own, key=lambda each: (each.way == chosen.way, each.val)))
    return [each for each in found if each.method != chosen.method]


def name_of(each: Candidate) -> str:
    """A method in a sentence."""
    return method_name(each.method)


def _read(chosen: Candidate) -> str:
    return f", read {WAYS[chosen.way]}" if chosen.way in WAYS and not chosen.method.startswith("uni:") else ""


def _why(chosen: Candidate, advice: Advice, table: ComparisonTable) -> str:
    best = advice.one_network
    if best is None or (best.method, best.way) == (chosen.method, chosen.way):
        same = " of those scored on the same clips" if advice.left_out else ""
        return f"No other single network{same} has a higher validation {table.measure}."
    share = chosen.branch_epochs / best.branch_epochs
    cheaper = f", with {decimal(share, 2)} of the training" if share < 0.995 else ""
    is_at = f"{agree(best.method, 'is', 'are')} {distance(best.val - chosen.val)} it"
    read = f"{_read(best)}," if _read(best) else ""
    return (
        f"{capital(name_of(best))}{read} {is_at} in validation {table.measure}, within the noise of val (under "
        f"{decimal(table.val_noise)}). Of two so close this one is used: a single training run gives it{cheaper}."
    )


def _by_how_much(chosen: Candidate, gains: dict[str, Spread], table: ComparisonTable) -> str:
    score = chosen.score
    text = f"{with_sd(score.mean, score.sd)} {table.split} {table.measure}"
    parts = [f"{distance(gain.mean)} {name}" for name, gain in gains.items() if math.isfinite(gain.mean)]
    return f"{text}; {listed(parts)}." if parts else f"{text}."


def _how_sure(gains: dict[str, Spread], table: ComparisonTable) -> str:
    if table.noise is None:
        return "Not known: one seed does not tell what chance makes of such a difference. Train two or more."
    if not gains:
        return "There is nothing to compare it with: no single modality, naive or equal training ran with its seeds."
    beyond = [name for name, gain in gains.items() if abs(gain.mean) >= table.noise]
    within = [name for name, gain in gains.items() if abs(gain.mean) < table.noise]
    parts = []
    if beyond:
        parts.append(f"the distance to {listed(beyond)} is more than chance makes of it")
    if within:
        parts.append(f"that to {listed(within)} may be chance" if beyond else "any of these distances may be chance")
    return f"{capital('; '.join(parts))} ({_noise(table)})."


def _noise(table: ComparisonTable) -> str:
    of = "of seeds and clips" if table.clips_95 is not None else "of seeds; that of clips is not known"
    return f"under {decimal(table.noise)}, 95 %, {of}"


def _cost(chosen: Candidate, table: ComparisonTable) -> str:
    row, naive = table.row(chosen.method), table.row("naive")
    text = f"{chosen.branch_epochs:g} branch epochs"
    if row is not None:
        text += f", {row.seconds:.0f} s for its own part of a run here"
    if naive is not None and naive.branch_epochs > 0 and chosen.method != "naive":
        text += f"; {decimal(chosen.branch_epochs / naive.branch_epochs, 1)} times naive training"
    return f"{text}."
