"""What to train and how to read it, by the runs of one comparison; and whether estimated weights were worth their cost.

The table compares methods by one way of predicting for all. A user has a wider choice: which training, and
which way of predicting with the heads it leaves. It is made on the validation split, separately for three needs: one
training run, one network to serve whatever its training cost, and anything, ensembles included. Numbers are those of
the table's split, so the choice does not flatter them.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gblend.heads import for_task
from gblend.methods import ENSEMBLES, ESTIMATORS
from gblend.records import REFIT, HeadScore, RunResult
from gblend.table import ComparisonTable, Spread, method_order, spread


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One method read in one way, over its seeds."""

    method: str
    """For example ``equal``."""
    way: str
    """For example ``stack`` (`gblend.predictions`); the name of the head where the network has only one."""
    by_seed: dict[int, float]
    """The table's metric on its split, per seed."""
    val: float
    """The same on the validation split, mean over seeds."""
    clips: tuple[int, int]
    """Clips it was scored on, on the validation split and on the table's; the fewest of any seed."""
    branch_epochs: float
    """What its training cost, with that of every run it builds on; mean over seeds."""
    single_run: bool
    """Nothing but one training of one network was needed."""

    @property
    def score(self) -> Spread:
        """Mean and spread of ``by_seed``."""
        return spread(self.by_seed.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsGain:
    """An estimating method against equal weights, both read in the same way."""

    method: str
    """``offline``, ``online`` or ``tracked``."""
    way: str
    """What methods are judged by or, where one of the two cannot be read so, the way in which equal weights are best on
    the validation split."""
    gain: Spread
    """Metric minus that of equal weights, paired by seed."""
    times: float
    """Its training cost over that of equal weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """The choices of one comparison; None where there is no run to choose from."""

    one_run: Candidate | None
    """Of a single training run."""
    one_network: Candidate | None
    """Of one network, whatever was trained for it."""
    any_cost: Candidate | None
    """Of everything, ensembles included."""
    single: Candidate | None
    """The best single modality, where it was scored on the same clips."""
    left_out: tuple[str, ...]
    """Methods that were scored on fewer clips in every way."""
    gains: tuple[WeightsGain, ...]
    """What the weights added, per estimating method that ran beside equal weights."""


def advise(results: Sequence[RunResult], table: ComparisonTable) -> Advice:
    """Choose on the validation split.

    Args:
        results: Finished runs of one comparison.
        table: Of the same runs; its task, metric and split are used.
    """
    every = candidates(results, table)
    most = max((each.clips for each in every), default=(0, 0))
    found = [each for each in every if each.clips == most]
    compared = {each.method for each in found}
    return Advice(
        one_run=_best(found, lambda each: each.single_run),
        one_network=_best(found, lambda each: each.method not in ENSEMBLES),
        any_cost=_best(found, lambda each: True),
        single=_best(found, lambda each: each.method == table.best_single),
        left_out=tuple(dict.fromkeys(each.method for each in every if each.method not in compared)),
        gains=_gains(found, table),
    )


def candidates(results: Sequence[RunResult], table: ComparisonTable) -> tuple[Candidate, ...]:
    """Every way of every method that all its runs have, scored on val and on the table's split."""
    runs: dict[str, list[RunResult]] = defaultdict(list)
    for result in sorted(results, key=lambda result: result.seed):
        runs[result.method].append(result)
    found = []
    for method in method_order(runs):
        said = [(_ways(run, "val", table), _ways(run, table.split, table)) for run in runs[method]]
        for way in said[0][1]:
            if not all(way in val and way in scored for val, scored in said):
                continue
            by_seed = {run.seed: scored[way].value for run, (_, scored) in zip(runs[method], said, strict=True)}
            val = spread(val[way].value for val, _ in said).mean
            if not (math.isfinite(val) and all(map(math.isfinite, by_seed.values()))):
                continue
            first = runs[method][0]
            found.append(
                Candidate(
                    method=method,
                    way=way,
                    by_seed=by_seed,
                    val=val,
                    clips=(min(val[way].count for val, _ in said), min(scored[way].count for _, scored in said)),
                    branch_epochs=spread(run.branch_epochs for run in runs[method]).mean,
                    single_run=method not in ENSEMBLES and way != REFIT and first.branch_epochs <= first.epochs,
                )
            )
    return tuple(found)


def _ways(run: RunResult, split: str, table: ComparisonTable) -> dict[str, HeadScore]:
    """Scores by way of predicting; of a network with one head that head's, under its name."""
    if run.predictions is not None:
        return for_task(run.predictions.scores.get(split, {}), table.task)
    score = run.judged(split, table.task)
    return {} if score is None else {run.primary: score}


def _best(found: Sequence[Candidate], allowed: Callable[[Candidate], bool]) -> Candidate | None:
    """The highest on val; of equals the cheapest."""
    return max(filter(allowed, found), key=lambda each: (each.val, -each.branch_epochs), default=None)


def _gains(found: Sequence[Candidate], table: ComparisonTable) -> tuple[WeightsGain, ...]:
    row = table.row("equal")
    equal = {each.way: each for each in found if each.method == "equal"}
    gains = []
    for method in ESTIMATORS:
        own = {each.way: each for each in found if each.method == method}
        both = [each for way, each in equal.items() if way in own and _shared(each, own[way])]
        judged = [each for each in both if row is not None and each.way == row.primary]
        base = _best(judged or both, lambda _: True)
        if base is None:
            continue
        other = own[base.way]
        gains.append(
            WeightsGain(
                method=method,
                way=base.way,
                gain=spread(other.by_seed[seed] - base.by_seed[seed] for seed in _shared(base, other)),
                times=other.branch_epochs / base.branch_epochs,
            )
        )
    return tuple(gains)


def _shared(one: Candidate, other: Candidate) -> list[int]:
    return [seed for seed in one.by_seed if seed in other.by_seed]
