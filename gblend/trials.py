"""Trials of a search: what is known of each, ``trials.parquet``, which one is best and which are worth their cost.

A trial's objective is the task's metric on the validation split, by what networks of the recipe are judged by, after
every epoch. It is never the test split's: no trial is scored on that. Cost is counted as in a comparison, in epochs of
networks trained (``branch_epochs``), what an estimate cost and what other runs had paid for included.
"""

import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from gblend.candidate import Candidate, candidate
from gblend.pareto import pareto_front
from gblend.space import Point
from gblend.storage import read_bytes, write_bytes

TrialState = Literal["running", "finished", "stopped", "failed"]
"""``stopped``: by the scheduler, before its last epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """A trial after an epoch."""

    epoch: int
    """Finished epochs."""
    super_epoch: int
    """Super-epochs begun so far; of a method without super-epochs 1."""
    value: float
    """Objective; more is better."""
    branch_epochs: float
    """Epochs of all networks so far, those of estimates and of runs it builds on included."""
    seconds: float
    """Wall time so far, estimates and measuring included; without that of runs it builds on."""

    @property
    def estimation_epochs(self) -> float:
        """Those of ``branch_epochs`` that went into estimates."""
        return self.branch_epochs - self.epoch


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One candidate in training."""

    number: int
    """From 0, in the order in which they were begun."""
    point: Point
    """What was drawn."""
    candidate: Candidate
    """What it stands for."""
    seed: int
    """Of the training."""
    state: TrialState
    """How it stands."""
    reason: str = ""
    """Of a failed one, why, in a line."""
    metric: str = ""
    """Name of the objective, once there is a value."""
    reached: tuple[Reached, ...] = ()
    """By epoch."""
    directory: str = ""
    """Its directory; the run is in ``run`` below it."""
    checkpoint: str = ""
    """Parameters at the end of a finished one, or where one that runs would go on from."""

    @property
    def last(self) -> Reached | None:
        """After its last epoch so far."""
        return self.reached[-1] if self.reached else None

    @property
    def objective(self) -> float:
        """After its last epoch so far; NaN before the first."""
        return math.nan if self.last is None else self.last.value

    @property
    def branch_epochs(self) -> float:
        """What it has cost so far."""
        return 0.0 if self.last is None else self.last.branch_epochs


TRIALS_SCHEMA = pa.schema(
    [
        pa.field("trial", pa.int32(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("objective", pa.float64()),
        pa.field("epochs", pa.int32(), nullable=False),
        pa.field("branch_epochs", pa.float64(), nullable=False),
        pa.field("estimation_epochs", pa.float64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("settings", pa.string(), nullable=False),
        pa.field("point", pa.string(), nullable=False),
        pa.field(
            "reached",
            pa.list_(
                pa.struct(
                    [
                        pa.field("epoch", pa.int32(), nullable=False),
                        pa.field("super_epoch", pa.int32(), nullable=False),
                        pa.field("value", pa.float64()),
                        pa.field("branch_epochs", pa.float64(), nullable=False),
                        pa.field("seconds", pa.float64(), nullable=False),
                    ]
                )
            ),
            nullable=False,
        ),
        pa.field("directory", pa.string(), nullable=False),
        pa.field("checkpoint", pa.string(), nullable=False),
    ],
    metadata={"settings": "JSON: settings by dotted name", "point": "JSON: what was drawn, by name"},
)
"""A row a trial; numbers that are not finite are null."""


def to_table(trials: Sequence[Trial]) -> pa.Table:
    """Rows by number."""
    return pa.Table.from_pylist([_row(trial) for trial in sorted(trials, key=lambda t: t.number)], TRIALS_SCHEMA)


def from_table(table: pa.Table) -> list[Trial]:
    """The inverse of `to_table`."""
    return [_trial(row) for row in table.to_pylist()]


def write_trials(path: str, trials: Sequence[Trial]) -> None:
    """Write ``trials.parquet``, whole or not at all."""
    stored = io.BytesIO()
    pq.write_table(to_table(trials), stored)
    write_bytes(path, stored.getvalue())


def read_trials(path: str) -> list[Trial]:
    """Read ``trials.parquet``."""
    try:
        table = pq.read_table(pa.BufferReader(read_bytes(path)))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; `gblend tune` writes it") from None
    if table.schema.names != TRIALS_SCHEMA.names:
        raise ValueError(f"{path} was not written by this version of gblend; run `gblend tune` again with its --out")
    return from_table(table)


def best_trial(trials: Iterable[Trial]) -> Trial | None:
    """The finished trial of the highest objective; of equals the cheaper, then the earlier one. None: none finished."""
    finished = [trial for trial in trials if trial.state == "finished" and math.isfinite(trial.objective)]
    return min(finished, key=lambda t: (-t.objective, t.branch_epochs, t.number), default=None)


def worth_their_cost(trials: Sequence[Trial]) -> list[Trial]:
    """Finished trials that no finished one dominates in objective and cost, the cheapest first."""
    finished = [trial for trial in sorted(trials, key=lambda t: t.number) if trial.state == "finished"]
    front = pareto_front([trial.objective for trial in finished], [trial.branch_epochs for trial in finished])
    return [finished[at] for at in front]


def _row(trial: Trial) -> dict[str, Any]:
    stated, last = trial.candidate.to_json(), trial.last
    return {
        "trial": trial.number,
        "state": trial.state,
        "reason": trial.reason,
        "method": stated["method"],
        "seed": trial.seed,
        "metric": trial.metric,
        "objective": _finite(trial.objective),
        "epochs": 0 if last is None else last.epoch,
        "branch_epochs": trial.branch_epochs,
        "estimation_epochs": 0.0 if last is None else last.estimation_epochs,
        "seconds": 0.0 if last is None else last.seconds,
        "settings": json.dumps(stated["settings"]),
        "point": json.dumps(trial.point),
        "reached": [{**asdict(each), "value": _finite(each.value)} for each in trial.reached],
        "directory": trial.directory,
        "checkpoint": trial.checkpoint,
    }


def _trial(row: dict[str, Any]) -> Trial:
    return Trial(
        number=row["trial"],
        point=json.loads(row["point"]),
        candidate=candidate({"method": row["method"], "settings": json.loads(row["settings"])}),
        seed=row["seed"],
        state=row["state"],
        reason=row["reason"],
        metric=row["metric"],
        reached=tuple(reached(each) for each in row["reached"]),
        directory=row["directory"],
        checkpoint=row["checkpoint"],
    )


def reached(values: dict[str, Any]) -> Reached:
    """`Reached` from JSON values; null becomes NaN."""
    return Reached(**{**values, "value": math.nan if values["value"] is None else values["value"]})


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
