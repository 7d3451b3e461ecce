"""Run directories as training would leave them, with numbers chosen by hand."""

import math
from collections.abc import Sequence
from pathlib import Path

from gblend.heads import FUSED
from gblend.records import (
    EpochRecord,
    EstimateRecord,
    HeadScore,
    RunResult,
    to_json,
    write_json,
    write_lines,
)

MODALITIES = ("rgb", "flow", "logmel")

# Per head: floor of the training loss, of the held-out loss, and how fast the held-out loss turns up again.
CURVES = {
    "rgb": (0.75, 1.05, 0.010),
    "flow": (0.35, 1.00, 0.045),
    "logmel": (0.95, 1.20, 0.004),
    FUSED: (0.25, 0.85, 0.040),
}


def score(accuracy: float, loss_nats: float = 1.0, count: int = 200) -> HeadScore:
    return HeadScore(loss_nats=loss_nats, metrics={"accuracy": accuracy}, count=count)


def result(
    method: str,
    seed: int,
    test: dict[str, float],
    *,
    val: dict[str, float] | None = None,
    branch_epochs: float = 12.0,
    borrowed_epochs: float = 0.0,
    seconds: float = 30.0,
) -> RunResult:
    scores = {"val": val if val is not None else test, "test": test}
    return RunResult(
        method=method,
        seed=seed,
        heads=tuple(test),
        epochs=12,
        scores={split: {head: score(value) for head, value in heads.items()} for split, heads in scores.items()},
        train_clips=500,
        heldout_clips=60,
        excluded_clips={},
        branch_epochs=branch_epochs,
        borrowed_epochs=borrowed_epochs,
        train_samples=6000,
        seconds=seconds,
        workers=2,
    )


def history(
    heads: Sequence[str], weights: dict[str, float], *, seed: int = 0, epochs: int = 12
) -> tuple[EpochRecord, ...]:
    def losses(head: str, epoch: int) -> tuple[float, float]:
        low, valid, turn = CURVES[head]
        decay = math.exp(-epoch / 3.5)
        wobble = 0.02 * math.sin(1.7 * epoch + 2.1 * seed + len(head))
        late = turn * max(0, epoch - 4)
        return low + (1.79 - low) * decay, valid + (1.79 - valid) * decay + late + (wobble if epoch else 0.0)

    return tuple(
        EpochRecord(
            epoch=epoch,
            train={h: score(1 - losses(h, epoch)[0] / 1.9, losses(h, epoch)[0]) for h in heads},
            heldout={h: score(1 - losses(h, epoch)[1] / 1.9, losses(h, epoch)[1]) for h in heads},
            weights=weights if epoch else {},
            learning_rate=0.01,
        )
        for epoch in range(epochs + 1)
    )


def estimate(
    heads: Sequence[str],
    overfitting: Sequence[float],
    generalization: Sequence[float],
    weights: Sequence[float],
    *,
    epoch: int = 0,
    probe_epochs: int = 12,
    reason: str = "",
) -> EstimateRecord:
    def ratio(o: float, g: float) -> float:
        return abs(o / g) if g else (math.nan if o == 0 else math.inf)

    k = len(heads)
    return EstimateRecord(
        epoch=epoch,
        probe_epochs=probe_epochs,
        measure="loss",
        heads=tuple(heads),
        end_epochs=(probe_epochs,) * k,
        valid_clips=(100,) * k,
        train_clips=(100,) * k,
        start_train=(1.79,) * k,
        start_valid=(1.79,) * k,
        end_train=tuple(1.79 - g - o for o, g in zip(overfitting, generalization, strict=True)),
        end_valid=tuple(1.79 - g for g in generalization),
        generalization=tuple(generalization),
        overfitting=tuple(overfitting),
        ogr=tuple(ratio(o, g) for o, g in zip(overfitting, generalization, strict=True)),
        generalization_se=(0.04,) * k,
        overfitting_se=(0.03,) * k,
        raw_weights=tuple(weights),
        previous_weights=(),
        weights=tuple(weights),
        weights_se=(0.05,) * k,
        weights_low=tuple(max(0.0, w - 0.1) for w in weights),
        weights_high=tuple(min(1.0, w + 0.1) for w in weights),
        weights_moved=0.04,
        loss_total=1.0,
        reason=reason,
        warnings=(),
    )


def write_run(
    directory: Path,
    run: RunResult,
    records: Sequence[EpochRecord] = (),
    estimates: Sequence[EstimateRecord] = (),
    config: dict | None = None,
) -> None:
    base = str(directory)
    write_json(f"{base}/config.json", config if config is not None else {"method": run.method, "seed": run.seed})
    write_json(f"{base}/result.json", to_json(run))
    write_lines(f"{base}/history.jsonl", records)
    if estimates:
        write_lines(f"{base}/weights.jsonl", estimates)
