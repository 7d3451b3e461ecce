"""From the results of runs to the comparison table: means, spreads, differences paired by seed, cost.

Methods are compared by their primary head: ``fused`` where there is one (in the paper only it predicts), else the only
head. The best single modality is chosen on the validation split and compared on the test split, so that the choice does
not flatter it. Every spread is a sample standard deviation over seeds (ddof = 1); one seed has none.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gblend import records
from gblend.methods import BLENDS, ENSEMBLES, FUSED_ONLY
from gblend.records import FUSED, HeadScore, RunResult
from schemas import MODALITIES

Baseline = Literal["naive", "equal", "best single"]
BASELINES: tuple[Baseline, ...] = ("naive", "equal", "best single")
"""What every method is compared with; ``best single`` stands for the best single modality."""

METHOD_ORDER = ("uni", *FUSED_ONLY, *BLENDS, *ENSEMBLES)

# Student's t, two-sided 95 %, for 1, 2, ... degrees of freedom: scipy is no dependency, and tables have few seeds.
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_T_95 += (2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


COST = (
    "A branch epoch is one network trained for one epoch, probes included; borrowed ones were trained by other runs of "
    "this comparison and are not in the seconds of this one. Refitting a fused head on frozen trunks is in the "
    "seconds, not in the epochs."
)
"""What the columns of cost count."""


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
    """A method's primary head minus a baseline's, paired by seed."""

    against: str
    """Method that served as the baseline, for example ``uni:rgb``."""
    seeds: tuple[int, ...]
    """Seeds both have."""
    values: tuple[float, ...]
    """One difference in accuracy per seed."""
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
    """The head that predicts: ``fused``, or the only one."""
    test: dict[str, Spread]
    """Accuracy per head on the test split."""
    val: dict[str, Spread]
    """Accuracy per head on the validation split."""
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

    split: Literal["test", "val"]
    """Split of the differences and of the noise: val only where no run has a score on test."""
    heads: tuple[str, ...]
    """Every head of every run, the fused one last."""
    best_single: str | None
    """The ``uni:`` method with the highest mean on the validation split."""
    noise_95: float | None
    """Two means of ``min_seeds`` seeds that differ by less may do so by chance (95 %, pooled sd); None for one seed."""
    clips_95: float | None
    """The same for the choice of clips: 1.96 standard errors of the difference of two accuracies near the mean on so
    many clips. That the methods share the clips is not used, which errs towards calling a difference noise."""
    clips: int
    """Clips of the split the primary heads were scored on, the fewest of any run; 0 without scores."""
    min_seeds: int
    """Fewest seeds of any method."""
    rows: tuple[MethodRow, ...]
    """One per method, in the order of `METHOD_ORDER`."""

    @property
    def noise(self) -> float | None:
        """Differences below this are noise, of seeds and clips together; None where one seed tells nothing."""
        if self.noise_95 is None or self.clips_95 is None:
            return None
        return math.hypot(self.noise_95, self.clips_95)

    def row(self, method: str) -> MethodRow | None:
        """The method's row, or None."""
        return next((row for row in self.rows if row.method == method), None)

    def scores(self, row: MethodRow) -> dict[str, Spread]:
        """The row's accuracies on the table's split."""
        return row.test if self.split == "test" else row.val

    def to_json(self) -> dict[str, Any]:
        """JSON values for ``table.json``; not-finite numbers become null."""
        return records.to_json(self)


def primary_head(heads: Sequence[str]) -> str:
    """The head a run is judged by.

    >>> primary_head(("rgb", "flow", "fused")), primary_head(("rgb",))
    ('fused', 'rgb')
    """
    if FUSED in heads:
        return FUSED
    if len(heads) != 1:
        raise ValueError(f"a run without a {FUSED!r} head must have exactly one head, got {list(heads)}")
    return heads[0]


def head_order(heads: Iterable[str]) -> tuple[str, ...]:
    """Known modalities first, then others by name, the fused head last.

    >>> head_order({"fused", "touch", "logmel", "rgb"})
    ('rgb', 'logmel', 'touch', 'fused')
    """
    rank = {name: index for index, name in enumerate(MODALITIES)}
    return tuple(sorted(set(heads), key=lambda head: (head == FUSED, rank.get(head, len(rank)), head)))


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


def comparison_table(results: Sequence[RunResult]) -> ComparisonTable:
    """The table of these runs: one row per method."""
    if not results:
        raise ValueError("no run to compare; give at least one finished run")
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
                primary=primary_head(own[0].heads),
                test=_accuracies(own, "test"),
                val=_accuracies(own, "val"),
                differences=differences,
                branch_epochs=spread(run.branch_epochs for run in own).mean,
                borrowed_epochs=spread(run.borrowed_epochs for run in own).mean,
                seconds=spread(run.seconds for run in own).mean,
            )
        )
    scored = [
        r.scores[split][primary_head(r.heads)] for r in results if primary_head(r.heads) in r.scores.get(split, {})
    ]
    scored = [score for score in scored if score.count > 0 and math.isfinite(score.accuracy)]
    primaries = [(row.test if split == "test" else row.val).get(row.primary) for row in rows]
    return ComparisonTable(
        split=split,
        heads=head_order(head for result in results for head in result.heads),
        best_single=best_single,
        noise_95=_noise_95([found for found in primaries if found is not None and math.isfinite(found.mean)]),
        clips_95=_clips_95(scored),
        clips=min((score.count for score in scored), default=0),
        min_seeds=min(len(row.seeds) for row in rows),
        rows=tuple(rows),
    )


def _clips(run: RunResult, split: str) -> int:
    score = run.scores.get(split, {}).get(primary_head(run.heads))
    return 0 if score is None else score.count


def _comparable(own: dict[int, RunResult], other: dict[int, RunResult], split: str) -> list[int]:
    """Seeds both have, scored on the same clips: a head that only clips with sound can ask is on easier ground."""
    return [seed for seed in sorted(set(own) & set(other)) if _clips(own[seed], split) == _clips(other[seed], split)]


def _accuracy(run: RunResult, split: str) -> float:
    score = run.scores.get(split, {}).get(primary_head(run.heads))
    return math.nan if score is None else score.accuracy


def _accuracies(runs: Sequence[RunResult], split: str) -> dict[str, Spread]:
    found: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for head, score in run.scores.get(split, {}).items():
            found[head].append(score.accuracy)
    return {head: spread(found[head]) for head in head_order(found)}


def _best_single(runs: dict[str, dict[int, RunResult]]) -> str | None:
    means = {m: spread(_accuracy(r, "val") for r in by_seed.values()).mean for m, by_seed in runs.items()}
    single = sorted(m for m in runs if m.startswith("uni:") and math.isfinite(means[m]))
    return max(single, key=lambda method: means[method], default=None)


def _difference(own: dict[int, RunResult], against: str, other: dict[int, RunResult], split: str) -> Difference:
    seeds = tuple(_comparable(own, other, split))
    paired = spread(_accuracy(own[seed], split) - _accuracy(other[seed], split) for seed in seeds)
    return Difference(against=against, seeds=seeds, values=paired.values, mean=paired.mean, sd=paired.sd)


def _noise_95(scores: Sequence[Spread]) -> float | None:
    """Least significant difference of two means: t * pooled sd * sqrt(2 / n). Pooling makes two seeds say something."""
    freedom = sum(len(score.values) - 1 for score in scores)
    squares = math.fsum((len(s.values) - 1) * s.sd**2 for s in scores if s.sd is not None)
    seeds = min((len(score.values) for score in scores), default=0)
    if freedom == 0 or seeds == 0:
        return None
    return student_t_95(freedom) * math.sqrt(squares / freedom) * math.sqrt(2 / seeds)


def _clips_95(scores: Sequence[HeadScore]) -> float | None:
    """Two binomials: 1.96 * sqrt(2 p (1 - p) / clips), p the mean accuracy of the primary heads."""
    if not scores:
        return None
    p = spread(score.accuracy for score in scores).mean
    return 1.96 * math.sqrt(2 * p * (1 - p) / min(score.count for score in scores))


def decimal(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """A share without the leading zero; a dash for nothing.

    >>> decimal(0.5237), decimal(-0.03, 2, signed=True), decimal(1.0, 2), decimal(float("nan"))
    ('.524', '−.03', '1.00', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{abs(value):.{digits}f}"
    zero = float(text) == 0
    sign = "−" if value < 0 and not zero else "+" if signed and not zero else ""
    return sign + text.removeprefix("0")


def with_sd(mean: float, sd: float | None, *, signed: bool = False) -> str:
    """Mean and spread; the mean alone where one seed gives no spread.

    >>> with_sd(0.5, 0.012), with_sd(0.02, None, signed=True)
    ('.500 ± .012', '+.020')
    """
    return decimal(mean, signed=signed) + ("" if sd is None else f" ± {decimal(sd)}")


def cells(table: ComparisonTable) -> tuple[list[str], list[list[str]]]:
    """Column titles and rows of text, shared by every rendering: one accuracy column a head, then the differences."""
    titles = [
        "method",
        *table.heads,
        *(f"vs {name}" for name in BASELINES),
        "branch epochs",
        "borrowed",
        "own s",
        "seeds",
    ]
    lines = []
    for row in table.rows:
        scores = table.scores(row)
        lines.append(
            [
                row.method,
                *(with_sd(scores[h].mean, scores[h].sd) if h in scores else "" for h in table.heads),
                *(with_sd(d.mean, d.sd, signed=True) if (d := row.differences.get(b)) else "" for b in BASELINES),
                f"{row.branch_epochs:g}",
                f"{row.borrowed_epochs:g}" if row.borrowed_epochs else "",
                f"{row.seconds:.0f}",
                f"{len(row.seeds)}",
            ]
        )
    keep = [i for i in range(len(titles)) if i == 0 or any(line[i] for line in lines)]
    return [titles[i] for i in keep], [[line[i] for i in keep] for line in lines]


def to_text(table: ComparisonTable) -> str:
    """Aligned columns for a terminal, and what they count under them."""
    return f"{aligned(*cells(table))}\n{_note(table)}"


def aligned(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, all but the first to the right.

    >>> print(aligned(["method", "fused"], [["equal", ".5"]]))
    method  fused
    ------  -----
    equal      .5
    """
    widths = [max(len(line[i]) for line in [titles, *lines]) for i in range(len(titles))]
    pads: list[Callable[..., str]] = [str.ljust, *[str.rjust] * (len(titles) - 1)]

    def joined(line: Sequence[str]) -> str:
        return "  ".join(pad(text, width) for pad, text, width in zip(pads, line, widths, strict=True)).rstrip()

    return "\n".join([joined(titles), "  ".join("-" * width for width in widths), *map(joined, lines)])


def to_markdown(table: ComparisonTable) -> str:
    """A Markdown table, and what its columns count under it."""
    titles, lines = cells(table)
    rows = [titles, ["---", *["---:"] * (len(titles) - 1)], *lines]
    return "\n".join([*("| " + " | ".join(row) + " |" for row in rows), "", _note(table)])


def _note(table: ComparisonTable) -> str:
    best = f" Best single modality by validation accuracy: {table.best_single}." if table.best_single else ""
    spreads = "mean ± sample sd over seeds; " if table.min_seeds > 1 else ""
    return f"Accuracy on {table.split}, {spreads}differences of the primary head, paired by seed.{best}\n{COST}"
