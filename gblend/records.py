"""What a run writes down: the documents of a run directory and of a comparison, and how to read them back.

    run directory      config.json, history.jsonl, weights.jsonl, result.json, checkpoint.pt, predictions.npz
    comparison         table.json, report.html, runs/<run name>/ (one run directory each)

``history.jsonl`` holds one `EpochRecord` a line (epoch 0: the untrained network), ``weights.jsonl`` one
`EstimateRecord` a line, ``result.json`` one `RunResult`. JSON, so that any tool can read them; a number that is not
finite is null.
"""

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from gblend.heads import FUSED, branch_of, branches_of, head_name, of_each_task
from gblend.storage import read_bytes, write_bytes

BEST_HEAD, MEAN, STACK, REFIT = "best-head", "mean", "stack", "refit"
"""Names of ways of predicting (`gblend.predictions`); the last is by a fused head trained anew on the run's frozen
trunks."""

DAMAGED = "restore it, or delete the directory it lies in and give the command that wrote it again"
"""What to do about a document that cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadScore:
    """One head on one set of clips, in eval mode, every clip counted once."""

    loss_nats: float
    """Mean loss over the clips that have what the head needs: cross-entropy, or of a multi-label task binary
    cross-entropy per class."""
    metrics: dict[str, float]
    """By name (`gblend.scores`), the one that methods are compared by first."""
    count: int
    """How many clips they are; of the mean of several tasks' metrics, the tasks' clips added up."""

    @property
    def metric(self) -> str:
        """Name of the metric that methods are compared by."""
        return next(iter(self.metrics))

    @property
    def value(self) -> float:
        """Its value; more is better."""
        return self.metrics[self.metric]


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord:
    """A line of ``history.jsonl``: every head after ``epoch`` epochs."""

    epoch: int
    """Finished epochs; 0 before training."""
    train: dict[str, HeadScore]
    """Per head, on T', a fixed slice of the training clips as large as V."""
    heldout: dict[str, HeadScore]
    """Per head, on V, the part of the training split the run never trains on."""
    weights: dict[str, float]
    """Loss weight per head during the epoch; empty at epoch 0."""
    learning_rate: float
    """At the end of the epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateRecord:
    """A line of ``weights.jsonl``: one weight estimate and all that is needed to redo it by hand.

    Lists run over ``heads``, those of one task, the fused head last. What is called a loss is a mean in nats, or with
    ``measure`` "accuracy" an error rate.
    """

    epoch: int
    """Finished epochs of the run when the weights begin to hold."""
    probe_epochs: int
    """Length of the probes."""
    measure: Literal["loss", "accuracy"]
    """What O and G are changes of."""
    heads: tuple[str, ...]
    """Names, the fused head last."""
    end_epochs: tuple[int, ...]
    """Epoch of the probe whose losses are its end: ``probe_epochs``, or the best on V."""
    valid_clips: tuple[int, ...]
    """Clips of V that count for the head."""
    train_clips: tuple[int, ...]
    """Clips of T' that do."""
    start_train: tuple[float, ...]
    """L^T' before the probe."""
    start_valid: tuple[float, ...]
    """L^V before the probe."""
    end_train: tuple[float, ...]
    """L^T' after the probe."""
    end_valid: tuple[float, ...]
    """L^V after the probe."""
    generalization: tuple[float, ...]
    """G = L^V_N - L^V_{N+n}."""
    overfitting: tuple[float, ...]
    """O = (L^V - L^T') at the end minus the same at the start."""
    ogr: tuple[float, ...]
    """|O / G|; NaN where G and O are both 0."""
    generalization_se: tuple[float, ...]
    """Standard error of G, paired over the clips of V."""
    overfitting_se: tuple[float, ...]
    """Standard error of O, paired over the clips of V and of T'."""
    raw_weights: tuple[float, ...]
    """What the formula alone gives, before any rule for what the paper leaves open."""
    previous_weights: tuple[float, ...]
    """Final weights of the estimate before, where ``smoothing`` mixes them in; else empty."""
    weights: tuple[float, ...]
    """Sum 1."""
    shrinkage: float = 0.0
    """Share of equal weights that was mixed into them."""
    weights_se: tuple[float, ...]
    """Standard error of the weights: their standard deviation over resamples of V and T'. The ends of the probes and
    ``previous_weights`` are taken as given."""
    weights_low: tuple[float, ...]
    """2.5th percentile over the resamples."""
    weights_high: tuple[float, ...]
    """97.5th percentile."""
    weights_moved: float
    """Mean share of the weight that lies on other heads in a resample (half the sum of absolute differences): about as
    much as the choice of V has misplaced."""
    loss_total: float
    """The loss weights are ``weights`` times this: 1, or the number of heads."""
    stale_epochs: int = 0
    """Epochs of the run between the checkpoint that the probes started from and ``epoch`` (``blend.staleness``)."""
    reason: str
    """Empty, or which rules beyond the plain formula decided the weights, in the order in which they applied."""
    warnings: tuple[str, ...]
    """Why the weights should not be relied upon; empty when nothing speaks against it."""

    @property
    def loss_weights(self) -> dict[str, float]:
        """Per head, what its loss is multiplied by: ``weights`` times ``loss_total``."""
        return {head: weight * self.loss_total for head, weight in zip(self.heads, self.weights, strict=True)}


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionScores:
    """Ways of predicting with the same heads, side by side; whatever they choose, they choose on V."""

    scores: dict[str, dict[str, HeadScore]]
    """Per split, per way (`gblend.predictions`), and `REFIT` where a fused head was trained anew. With several tasks
    ``<task>/<way>`` for each, and each way alone for all tasks together."""
    ranking: tuple[str, ...]
    """Heads from best to worst on V, task by task; ``best-head`` is the first of each."""
    stack_weights: dict[str, float]
    """Per head, its share in ``stack``; sum 1 in every task."""
    stack_clips: int
    """Clips of V the shares were fitted on: those that every head can answer for. The fewest of any task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """``result.json``: what a finished run came to."""

    method: str
    """For example ``uni:rgb``, ``naive``, ``equal``, ``offline``, ``online``."""
    seed: int
    """Seed of the initialisation, the batches and the windows."""
    heads: tuple[str, ...]
    """Heads the run trained; of an ensemble, which trains none, the way of predicting that it is judged by."""
    epochs: int
    """Epochs of the main run."""
    scores: dict[str, dict[str, HeadScore]]
    """Per split (val, test), per head; with several tasks also per branch, of all tasks together."""
    train_clips: int
    """Clips in T."""
    heldout_clips: int
    """Clips in V."""
    excluded_clips: dict[str, int]
    """Clips the missing-modality policy left out, per split."""
    branch_epochs: float
    """Training epochs of all networks, probes included: a probe of one branch counts as one network."""
    borrowed_epochs: float
    """Those of ``branch_epochs`` that other runs of the comparison had already paid for."""
    train_samples: int
    """Clips passed forward and backward, per branch, by this run itself."""
    seconds: float
    """Wall time of this run itself, evaluation included."""
    workers: int
    """Training processes; BatchNorm sees the batch in so many parts."""
    earlier_workers: tuple[int, ...] = ()
    """Where their number changed on the way (``--min-workers``), those before ``workers``, in order."""
    predictions: PredictionScores | None = None
    """What predicting with all heads comes to on the same splits; None for a network of one head."""
    kept_epoch: int | None = None
    """Of ``early-stop``: the epoch whose parameters the run ends with. None: the last one."""
    unlabelled_clips: dict[str, int] = dataclasses.field(default_factory=dict)
    """Clips left out because no task has a label for them, per split."""
    untrained_classes: dict[str, int] = dataclasses.field(default_factory=dict)
    """Classes that no clip of T has, per task key (`gblend.heads`), where there are any: none is trained on."""
    refit_epochs: int = 0
    """Epochs a new fused head was trained on the frozen trunks, on top of ``branch_epochs``: one forward pass of the
    trunks per clip, and no backward pass through them. 0: none was."""
    predict_by: str = FUSED
    """The way of predicting that a network of several heads is judged by."""

    @property
    def primary(self) -> str:
        """What the run is judged by: its only branch, or of several a way of predicting with them."""
        branches = branches_of(self.heads)
        return branches[0] if len(branches) == 1 else self.predict_by

    def judged(self, split: str, task: str = "") -> HeadScore | None:
        """Its score by `primary`, of one task's key (`gblend.heads`) or all tasks together; None where it has none."""
        name = head_name(task, self.primary)
        ways = {} if self.predictions is None else self.predictions.scores.get(split, {})
        return self.scores.get(split, {}).get(name, ways.get(name))


def judged_by(result: RunResult, way: str) -> RunResult:
    """The same run judged by another way of predicting; a network of one head has one way, an ensemble no fused head,
    for which its mean stands in.
    """
    if result.predictions is None or len(branches_of(result.heads)) > 1:
        return dataclasses.replace(result, predict_by=way)
    own = MEAN if way == FUSED else way
    return dataclasses.replace(
        result,
        heads=tuple(head_name(key, own) for key in of_each_task(result.heads)),
        scores={
            split: {name: score for name, score in ways.items() if branch_of(name) == own}
            for split, ways in result.predictions.scores.items()
        },
        predict_by=way,
    )


def to_json(record: Any) -> Any:
    """A record as JSON values; not-finite numbers become null.

    >>> to_json(HeadScore(loss_nats=float("nan"), metrics={"accuracy": 0.5}, count=2))
    {'loss_nats': None, 'metrics': {'accuracy': 0.5}, 'count': 2}
    """
    return _finite(dataclasses.asdict(record))


def epoch_record(values: dict[str, Any]) -> EpochRecord:
    """`EpochRecord` from JSON values."""
    parts = {key: read_scores(values[key]) for key in ("train", "heldout")}
    return EpochRecord(**{**values, **parts})


def estimate_record(values: dict[str, Any]) -> EstimateRecord:
    """`EstimateRecord` from JSON values; null becomes NaN."""
    lists = {key: tuple(_nan(v) for v in value) for key, value in values.items() if isinstance(value, list)}
    return EstimateRecord(**{**values, **lists})


def run_result(values: dict[str, Any]) -> RunResult:
    """`RunResult` from JSON values."""
    scores = {split: read_scores(heads) for split, heads in values["scores"].items()}
    found = values.get("predictions")
    predictions = (
        PredictionScores(
            **{
                **found,
                "ranking": tuple(found["ranking"]),
                "scores": {split: read_scores(ways) for split, ways in found["scores"].items()},
            }
        )
        if found
        else None
    )
    return RunResult(
        **{
            **values,
            "heads": tuple(values["heads"]),
            "earlier_workers": tuple(values.get("earlier_workers", ())),
            "scores": scores,
            "predictions": predictions,
        }
    )


def write_json(path: str, values: Any) -> None:
    """Write one document, whole or not at all: a reader never sees half of it."""
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def write_text(path: str, text: str) -> None:
    """Write one file, whole or not at all."""
    write_bytes(path, text.encode())


def read_json(path: str) -> Any:
    """Read one document; a missing or damaged one is a readable error."""
    try:
        stored = read_bytes(path)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; is the directory above it the result of a finished job?") from None
    try:
        return json.loads(stored)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is no JSON document ({error}); {DAMAGED}") from None


def read_object(path: str) -> dict[str, Any]:
    """Read a document that must be a JSON object."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} is damaged: it holds {json.dumps(values)[:20]} instead of an object; {DAMAGED}")
    return values


def read_result(path: str) -> RunResult:
    """Read ``result.json``."""
    values = read_object(path)
    try:
        return run_result(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} was not written by this version of gblend ({error}); rerun its job") from error


def write_lines(path: str, records: Iterable[Any]) -> None:
    """Write a JSON-lines document from records, whole or not at all."""
    write_text(path, "".join(json.dumps(to_json(record), allow_nan=False) + "\n" for record in records))


def read_lines(path: str) -> list[dict[str, Any]]:
    """Read a JSON-lines document; one that was never written is empty."""
    try:
        return [json.loads(line) for line in read_bytes(path).splitlines()]
    except FileNotFoundError:
        return []


def read_scores(values: dict[str, Any]) -> dict[str, HeadScore]:
    """`HeadScore` by name from JSON values."""
    return {
        head: HeadScore(
            loss_nats=_nan(v["loss_nats"]),
            # Runs of before there were other metrics have accuracy alone.
            metrics={name: _nan(value) for name, value in v.get("metrics", {"accuracy": v.get("accuracy")}).items()},
            count=v["count"],
        )
        for head, v in values.items()
    }


def _nan(value: Any) -> Any:
    return math.nan if value is None else value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
