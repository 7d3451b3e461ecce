"""From the results of runs to the comparison table: means, spreads, differences paired by seed, cost.

With several tasks there is a table for all of them together and one for each: a table is of one metric. Methods are
compared by what their runs are judged by, here called the primary head: the only one, or of several the fused one (in
the paper only it predicts) or another way of predicting (``predict_by``). The best single modality is chosen on the
validation split and compared on the test split, so that the choice does not flatter it. Every spread is a sample
standard deviation over seeds (ddof = 1); one seed has none.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gblend import records
from gblend.heads import FUSED, branches_of, for_task, of_each_task
from gblend.methods import BLENDS, ENSEMBLES, FUSED_ONLY
from gblend.records import BEST_HEAD, MEAN, STACK, HeadScore, RunResult
from gblend.scores import ACCURACY, MEAN_OF_TASKS, metric_words
from schemas import MODALITIES

Baseline = Literal["naive", "equal", "best single"]
BASELINES: tuple[Baseline, ...] = ("naive", "equal", "best single")
"""What every method is compared with; ``best single`` stands for the best single modality."""

METHOD_ORDER = ("uni", *FUSED_ONLY, *BLENDS, *ENSEMBLES)

# Student's t, two-sided 95 %, for 1, 2, ... degrees of freedom: scipy is no dependency, and tables have few seeds.
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_T_95 += (2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """One number measured once per seed."""

    values: tuple[float, ...]
    """In the order of the row's seeds that have it."""
    mean: float
    """Arithmetic mean."""
    sd: float | None
    """Sample standard deviation (ddof = 1); None for a single value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """What a method is judged by minus what a baseline is, paired by seed."""

    against: str
    """Method that served as the baseline, for example ``uni:rgb``."""
    seeds: tuple[int, ...]
    """Seeds both have."""
    values: tuple[float, ...]
    """One difference in the table's metric per seed."""
    mean: float
    """Mean of ``values``."""
    sd: float | None
    """Sample standard deviation of ``values``; None for a single seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodRow:
    """One method over its seeds."""

    method: str
    """For example ``uni:rgb``, ``naive``, ``equal``, ``offline``, ``online``."""
    seeds: tuple[int, ...]
    """Ascending."""
    primary: str
    """What predicts: the only head, the fused one, or a way of predicting with all heads."""
    test: dict[str, Spread]
    """The table's metric per branch on the test split."""
    val: dict[str, Spread]
    """The same on the validation split."""
    others: dict[str, Spread]
    """Other metrics of the primary head, on the table's split."""
    differences: dict[str, Difference]
    """Per entry of `BASELINES` that ran on a common seed and is not this method itself."""
    branch_epochs: float
    """Mean over seeds: training epochs of all networks, probes and borrowed ones included, refitted heads not."""
    borrowed_epochs: float
    """Those of ``branch_epochs`` other runs of the comparison had already paid for."""
    seconds: float
    """Mean wall time of a run itself, without what it borrowed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonTable:
    """``table.json``."""

    task: str
    """Name of the task; empty for the only one, or for all together."""
    tasks: tuple[str, ...]
    """Names of all tasks where there are several."""
    metric: str
    """What methods are compared by (`gblend.scores`): the first metric of the task's kind."""
    split: Literal["test", "val"]
    """Split of the differences and of the noise: val only where no run has a score on test."""
    heads: tuple[str, ...]
    """Every branch of every run, the fused one last, then ways of predicting that runs are judged by."""
    best_single: str | None
    """The ``uni:`` method with the highest mean on the validation split."""
    noise_95: float | None
    """Two means of ``min_seeds`` seeds that differ by less may do so by chance (95 %, pooled sd); None for one seed."""
    clips_95: float | None
    """The same for the choice of clips: 1.96 standard errors of the difference of two accuracies near the mean on so
    many clips. That the methods share the clips is not used, which errs towards calling a difference noise. None for a
    metric that is no share of the clips."""
    val_noise: float | None
    """As `noise`, of the validation split, on which methods are chosen."""
    clips: int
    """Clips of the split that runs were judged on, the fewest of any run; 0 without scores. Of the mean of
    several tasks' metrics, the tasks' clips added up."""
    min_seeds: int
    """Fewest seeds of any method."""
    rows: tuple[MethodRow, ...]
    """One per method, in the order of `METHOD_ORDER`."""

    @property
    def noise(self) -> float | None:
        """Differences below this are noise, of seeds and clips together; None where one seed tells nothing.

        Of a metric whose noise by the choice of clips is not known it is that of the seeds alone.
        """
        return noise_of(self.noise_95, self.clips_95)

    @property
    def clips_words(self) -> str:
        """`clips` in a sentence."""
        return f"{self.clips} {self.split} clips{' (added up over the tasks)' if self.metric == MEAN_OF_TASKS else ''}"

    @property
    def way_words(self) -> str:
        """What networks of several heads are judged by, in a sentence; those of one head are judged by that."""
        way = next((row.primary for row in self.rows if len(self.scores(row)) > 1), FUSED)
        return {MEAN: "the mean", STACK: "the stack", BEST_HEAD: "the best on V"}.get(way, "the fused one")

    @property
    def measure(self) -> str:
        """The metric in words, with what it is of."""
        words = metric_words(self.metric)
        if self.task:
            return f"{self.task} {words}"
        return f"{words} of {' and '.join(self.tasks)} together" if self.tasks else words

    def row(self, method: str) -> MethodRow | None:
        """The method's row, or None."""
        return next((row for row in self.rows if row.method == method), None)

    def scores(self, row: MethodRow) -> dict[str, Spread]:
        """The row's accuracies on the table's split."""
        return row.test if self.split == "test" else row.val

    def to_json(self) -> dict[str, Any]:
        """JSON values for ``table.json``; not-finite numbers become null."""
        return records.to_json(self)


def head_order(heads: Iterable[str]) -> tuple[str, ...]:
    """Known modalities first, then others by name, the fused head, ways of predicting last.

    >>> head_order({"stack", "fused", "touch", "logmel", "rgb"})
    ('rgb', 'logmel', 'touch', 'fused', 'stack')
    """
    rank = {name: index for index, name in enumerate(MODALITIES)}
    last = (FUSED, BEST_HEAD, MEAN, STACK)
    place = {name: index for index, name in enumerate(last, start=1)}
    return tuple(sorted(set(heads), key=lambda head: (place.get(head, 0), rank.get(head, len(rank)), head)))


def method_order(methods: Iterable[str]) -> tuple[str, ...]:
    """Single modalities first, then from the plainest method to the most involved.

    >>> method_order({"online", "uni:logmel", "naive", "uni:rgb", "other"})
    ('uni:rgb', 'uni:logmel', 'naive', 'online', 'other')
    """
    kinds = {name: index for index, name in enumerate(METHOD_ORDER)}
    modalities: dict[str, int] = {name: index for index, name in enumerate(MODALITIES)}

    def rank(method: str) -> tuple[int, int, str]:
        kind, _, modality = method.partition(":")
        return kinds.get(kind, len(kinds)), modalities.get(modality, len(modalities)), method

    return tuple(sorted(set(methods), key=rank))


def spread(values: Iterable[float]) -> Spread:
    """Mean and sample standard deviation.

    >>> spread([0.25, 0.75])
    Spread(values=(0.25, 0.75), mean=0.5, sd=0.353...)
    >>> spread([0.5]).sd is None
    True
    """
    found = tuple(float(value) for value in values)
    mean = math.fsum(found) / len(found)
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in found) / (len(found) - 1)) if len(found) > 1 else None
    return Spread(values=found, mean=mean, sd=sd)


def student_t_95(degrees_of_freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t.

    >>> student_t_95(1), student_t_95(10_000)
    (12.706, 1.96...)
    """
    if degrees_of_freedom <= len(_T_95):
        return _T_95[degrees_of_freedom - 1]
    return (
        1.95996 + 2.372 / degrees_of_freedom + 2.82 / degrees_of_freedom**2
    )  # the expansion about the normal quantile


def comparison_tables(results: Sequence[RunResult]) -> tuple[ComparisonTable, ...]:
    """The table that methods are compared by, and with several tasks one for each."""
    tasks = [key for key in of_each_task(head for result in results for head in result.heads) if key]
    return tuple(comparison_table(results, task) for task in ("", *tasks))


def comparison_table(results: Sequence[RunResult], task: str = "") -> ComparisonTable:
    """The table of these runs for one task, or for the only one, or all together: one row per method."""
    if not results:
        raise ValueError("no run to compare; give at least one finished run")
    found = sorted({result.predict_by for result in results if len(branches_of(result.heads)) > 1})
    if len(found) > 1:
        raise ValueError(
            f"networks of several heads are judged by {' and by '.join(found)}; choose one for all with --predict-by"
        )
    tasks = tuple(key for key in of_each_task(head for result in results for head in result.heads) if key)
    results = [_of_task(result, task) for result in results]
    runs: dict[str, dict[int, RunResult]] = defaultdict(dict)
    for result in results:
        if result.seed in runs[result.method]:
            raise ValueError(
                f"two runs of {result.method!r} have seed {result.seed}; a method and seed may appear once"
            )
        runs[result.method][result.seed] = result
    split = "test" if any("test" in result.scores for result in results) else "val"
    best_single = _best_single(runs)
    against = {"naive": "naive", "equal": "equal", "best single": best_single}
    rows = []
    for method in method_order(runs):
        own = [run for _, run in sorted(runs[method].items())]
        differences = {
            name: _difference(runs[method], other, runs[other], split)
            for name, other in against.items()
            if other in runs and other != method and _comparable(runs[method], runs[other], split)
        }
        rows.append(
            MethodRow(
                method=method,
                seeds=tuple(run.seed for run in own),
                primary=own[0].primary,
                test=_accuracies(own, "test"),
                val=_accuracies(own, "val"),
                others=_others(own, split),
                differences=differences,
                branch_epochs=spread(run.branch_epochs for run in own).mean,
                borrowed_epochs=spread(run.borrowed_epochs for run in own).mean,
                seconds=spread(run.seconds for run in own).mean,
            )
        )
    scored = _scored(results, split)
    return ComparisonTable(
        task=task,
        tasks=tasks,
        metric=next((score.metric for r in results for of in r.scores.values() for score in of.values()), ACCURACY),
        split=split,
        heads=head_order({*branches_of(h for r in results for h in r.heads), *(r.primary for r in results)}),
        best_single=best_single,
        noise_95=_noise_95(_primaries(rows, split)),
        clips_95=_clips_95(scored),
        val_noise=noise_of(_noise_95(_primaries(rows, "val")), _clips_95(_scored(results, "val"))),
        clips=min((score.count for score in scored), default=0),
        min_seeds=min(len(row.seeds) for row in rows),
        rows=tuple(rows),
    )


def _of_task(result: RunResult, task: str) -> RunResult:
    """With the scores of one task alone, by branch and by what it is judged by."""
    scores = {split: for_task(heads, task) for split, heads in result.scores.items()}
    for split, found in scores.items():
        if (judged := result.judged(split, task)) is not None:
            found[result.primary] = judged
    return dataclasses.replace(result, scores=scores)


def _others(runs: Sequence[RunResult], split: str) -> dict[str, Spread]:
    found: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        score = run.scores.get(split, {}).get(run.primary)
        for name, value in [] if score is None else list(score.metrics.items())[1:]:
            found[name].append(value)
    return {name: spread(values) for name, values in found.items()}


def _clips(run: RunResult, split: str) -> int:
    score = run.scores.get(split, {}).get(run.primary)
    return 0 if score is None else score.count


def _comparable(own: dict[int, RunResult], other: dict[int, RunResult], split: str) -> list[int]:
    """Seeds both have, scored on the same clips: a head that only clips with sound can ask is on easier ground."""
    return [seed for seed in sorted(set(own) & set(other)) if _clips(own[seed], split) == _clips(other[seed], split)]


def _accuracy(run: RunResult, split: str) -> float:
    score = run.scores.get(split, {}).get(run.primary)
    return math.nan if score is None else score.value


def _accuracies(runs: Sequence[RunResult], split: str) -> dict[str, Spread]:
    found: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for head, score in run.scores.get(split, {}).items():
            found[head].append(score.value)
    return {head: spread(found[head]) for head in head_order(found)}


def _best_single(runs: dict[str, dict[int, RunResult]]) -> str | None:
    means = {m: spread(_accuracy(r, "val") for r in by_seed.values()).mean for m, by_seed in runs.items()}
    single = sorted(m for m in runs if m.startswith("uni:") and math.isfinite(means[m]))
    return max(single, key=lambda method: means[method], default=None)


def _difference(own: dict[int, RunResult], against: str, other: dict[int, RunResult], split: str) -> Difference:
    seeds = tuple(_comparable(own, other, split))
    paired = spread(_accuracy(own[seed], split) - _accuracy(other[seed], split) for seed in seeds)
    return Difference(against=against, seeds=seeds, values=paired.values, mean=paired.mean, sd=paired.sd)


def noise_of(seeds_95: float | None, clips_95: float | None) -> float | None:
    """Of seeds and clips together; None where one seed tells nothing.

    >>> noise_of(0.03, 0.04), noise_of(0.03, None), noise_of(None, 0.04)
    (0.05, 0.03, None)
    """
    return None if seeds_95 is None else math.hypot(seeds_95, clips_95 or 0.0)


def _scored(results: Sequence[RunResult], split: str) -> list[HeadScore]:
    """Finite scores on a split of what runs are judged by."""
    found = [score for run in results if (score := run.scores.get(split, {}).get(run.primary)) is not None]
    return [score for score in found if score.count > 0 and math.isfinite(score.value)]


def _primaries(rows: Sequence[MethodRow], split: str) -> list[Spread]:
    """The same over the seeds of each method."""
    found = [(row.test if split == "test" else row.val).get(row.primary) for row in rows]
    return [each for each in found if each is not None and math.isfinite(each.mean)]


def _noise_95(scores: Sequence[Spread]) -> float | None:
    """Least significant difference of two means: t * pooled sd * sqrt(2 / n). Pooling makes two seeds say something."""
    freedom = sum(len(score.values) - 1 for score in scores)
    squares = math.fsum((len(s.values) - 1) * s.sd**2 for s in scores if s.sd is not None)
    seeds = min((len(score.values) for score in scores), default=0)
    if freedom == 0 or seeds == 0:
        return None
    return student_t_95(freedom) * math.sqrt(squares / freedom) * math.sqrt(2 / seeds)


def _clips_95(scores: Sequence[HeadScore]) -> float | None:
    """Two binomials: 1.96 * sqrt(2 p (1 - p) / clips), p the mean accuracy of what runs are judged by."""
    if not scores or scores[0].metric != ACCURACY:
        return None
    p = spread(score.value for score in scores).mean
    return 1.96 * math.sqrt(2 * p * (1 - p) / min(score.count for score in scores))
