"""From probes to weights (Algorithm 1): train each branch alone from the checkpoint, compare its losses at both ends.

`estimate` takes the losses of finished probes, so it needs neither a network nor a cluster: full-length single-modality
and naive runs (offline) and short probes from a checkpoint (online) go through the same arithmetic. The weights follow
from means alone; standard errors come from the clips behind them, paired between the two ends of a probe, those of O
and G in closed form and those of the weights by the bootstrap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from gblend.bootstrap import RESAMPLES, resample_means
from gblend.config import BlendConfig
from gblend.measure import HeadLosses
from gblend.ogr import LossPair, blend_weights, measured, weights_of, without_rounding
from gblend.records import EstimateRecord
from gblend.rules import apply_rules, noise_share

ENDS = ("start_train", "start_valid", "end_train", "end_valid")
"""The four sets of losses of a probe."""

FEW_CLIPS = 20
"""With fewer clips in V even the error of an estimate cannot be estimated."""

MUCH_WEIGHT = 0.2
"""When chance moves this share of the weight from head to head, the weights say little about the heads: replacing the
paper's published weights by equal ones moves .09 to .49 of them."""

BOOTSTRAP_STREAM = 0xB0075
"""Keeps the bootstrap's random numbers apart from those of other uses of the hold-out seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeLosses:
    """One branch before and after its probe, clip by clip."""

    start_train: HeadLosses
    """On T', before."""
    start_valid: HeadLosses
    """On V, before."""
    end_train: HeadLosses
    """On T', after."""
    end_valid: HeadLosses
    """On V, after."""
    end_epoch: int | None = None
    """Epoch of the probe after which the end was measured, from 1; None: the last one."""


def probe_losses(moments: Sequence[tuple[HeadLosses, HeadLosses]], config: BlendConfig) -> ProbeLosses:
    """Both ends of a probe from all its measurements.

    Args:
        moments: The branch's losses on T' and on V: before the probe, and after its epochs. For ``probe_end`` "last"
            those between the first and the last may be missing.
        config: Which of them is the end.
    """
    end = chosen_end([valid for _, valid in moments], config)
    (start_train, start_valid), (end_train, end_valid) = moments[0], moments[end]
    return ProbeLosses(
        start_train=start_train,
        start_valid=start_valid,
        end_train=end_train,
        end_valid=end_valid,
        end_epoch=None if end == len(moments) - 1 else end,
    )


def chosen_end(valid: Sequence[HeadLosses], config: BlendConfig) -> int:
    """Position of the end of a probe among its measurements on V, the first of which is the start.

    ``best-v`` takes the lowest mean, the earliest of equal ones, never the start; where no mean is finite, the last.

    >>> def on_v(loss):
    ...     return HeadLosses(loss_nats=np.array([loss]), correct=np.array([False]), counted=np.array([True]))
    >>> probe = [on_v(loss) for loss in (0.3, 0.9, 0.7, 1.2)]  # memorised after the second epoch
    >>> chosen_end(probe, BlendConfig()), chosen_end(probe, BlendConfig(probe_end="best-v"))
    (3, 2)
    """
    if len(valid) < 2:
        raise ValueError(f"a probe needs losses before and after it, got {len(valid)} measurements")
    means = np.array([losses.mean(config.measure) for losses in valid[1:]])
    if config.probe_end == "last" or not np.isfinite(means).any():
        return len(valid) - 1
    return 1 + int(np.argmin(np.where(np.isfinite(means), means, np.inf)))


def estimate(
    probes: Mapping[str, ProbeLosses],
    config: BlendConfig,
    *,
    epoch: int,
    probe_epochs: int,
    stale_epochs: int = 0,
    previous: Sequence[float] = (),
) -> EstimateRecord:
    """Weights of all heads from their probes.

    Args:
        probes: Per head, the fused head last.
        config: What is measured, and which rules beyond the paper's apply.
        epoch: Finished epochs of the run when the weights begin to hold: probes start there or, where they are stale,
            earlier; the last super-epoch of ``tracked`` ends there.
        probe_epochs: Their length.
        stale_epochs: How much earlier.
        previous: Final weights of the run's previous estimate, for ``smoothing``; empty when there is none.

    Raises:
        ValueError: The heads were not measured on the same clips, or ``config.weight_cap`` is too low for so many.
    """
    heads = tuple(probes)
    config.check_heads(len(heads))
    _require_same_clips(probes)
    ends = {end: tuple(getattr(probe, end).mean(config.measure) for probe in probes.values()) for end in ENDS}
    changes = {part: _Changes.of(probes, part, config) for part in ("valid", "train")}
    generalization_se = np.sqrt(changes["valid"].squared_se())
    overfitting_se = np.sqrt(changes["valid"].squared_se() + changes["train"].squared_se())
    found = blend_weights(
        LossPair(train=ends["start_train"], valid=ends["start_valid"]),
        LossPair(train=ends["end_train"], valid=ends["end_valid"]),
        heads=heads,
        generalization_se=generalization_se if config.generalization_discount == "standard-error" else None,
        overfitting_se=overfitting_se if config.overfitting_floor == "standard-error" else None,
    )
    alive = measured(found.generalization, found.overfitting)
    resamples = _resampled_weights(changes, config, rounding=found.rounding, epoch=epoch)
    rules = config
    if config.shrinkage == "noise":
        rules = replace(config, shrinkage=noise_share(found.weights, resamples.weights, alive))
    ruled = apply_rules(found.weights, rules, alive=alive, previous=previous)
    resampled = apply_rules(resamples.weights, rules, alive=resamples.alive, previous=previous).weights
    moved = float(0.5 * np.abs(resampled - ruled.weights).sum(axis=1).mean())
    # Shrunk weights hardly move, because most of them is not estimated: what is must be judged before.
    estimate_moved = float(0.5 * np.abs(resamples.weights - found.weights).sum(axis=1).mean())
    low, high = np.percentile(resampled, (2.5, 97.5), axis=0)
    clips = [int(probe.start_valid.counted.sum()) for probe in probes.values()]
    return EstimateRecord(
        epoch=epoch,
        probe_epochs=probe_epochs,
        measure=config.measure,
        heads=heads,
        end_epochs=tuple(probe.end_epoch or probe_epochs for probe in probes.values()),
        valid_clips=tuple(clips),
        train_clips=tuple(int(probe.start_train.counted.sum()) for probe in probes.values()),
        **ends,
        generalization=tuple(found.generalization.tolist()),
        overfitting=tuple(found.overfitting.tolist()),
        ogr=tuple(found.ogr.tolist()),
        generalization_se=tuple(generalization_se.tolist()),
        overfitting_se=tuple(overfitting_se.tolist()),
        raw_weights=tuple(found.raw.tolist()),
        previous_weights=tuple(previous) if config.smoothing > 0 else (),
        weights=tuple(ruled.weights.tolist()),
        weights_se=tuple(resampled.std(axis=0, ddof=1).tolist()),
        weights_low=tuple(low.tolist()),
        weights_high=tuple(high.tolist()),
        weights_moved=moved,
        shrinkage=float(rules.shrinkage),
        loss_total=config.total(len(heads)),
        stale_epochs=stale_epochs,
        reason="; ".join([*([found.reason] if found.reason else []), *ruled.reasons]),
        warnings=_warnings(heads, clips, moved, estimate_moved=estimate_moved, shrinkage=float(rules.shrinkage)),
    )


def _require_same_clips(probes: Mapping[str, ProbeLosses]) -> None:
    """Differences are paired, so every head must have been measured on the same clips at both ends."""
    for part in ("train", "valid"):
        sizes = {
            head: [getattr(probe, f"{end}_{part}").counted.size for end in ("start", "end")]
            for head, probe in probes.items()
        }
        if len({size for pair in sizes.values() for size in pair}) > 1:
            raise ValueError(
                f"probes must be measured on the same clips, got start and end counts on {part} of {sizes}; "
                "use probes of one data set and one blend.holdout_seed"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Changes:
    """End minus start on one set of clips."""

    values: Float[np.ndarray, "heads clips"]
    counted: np.ndarray  # bool (heads, clips)

    @classmethod
    def of(cls, probes: Mapping[str, ProbeLosses], part: str, config: BlendConfig) -> "_Changes":
        starts, ends = ([getattr(probe, f"{end}_{part}") for probe in probes.values()] for end in ("start", "end"))
        # A diverged probe: inf or NaN, which `blend_weights` gives weight 0.
        with np.errstate(invalid="ignore"):
            return cls(
                values=np.stack(
                    [e.per_clip(config.measure) - s.per_clip(config.measure) for s, e in zip(starts, ends, strict=True)]
                ),
                counted=np.stack([start.counted for start in starts]),
            )

    def squared_se(self) -> Float[np.ndarray, " heads"]:
        """Of the mean change, per head; NaN for fewer than two clips."""
        with np.errstate(invalid="ignore"):
            return np.array(
                [
                    values[counted].var(ddof=1) / counted.sum() if counted.sum() > 1 else np.nan
                    for values, counted in zip(self.values, self.counted, strict=True)
                ]
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Resamples:
    """What the formula gives for every resample, before any rule."""

    weights: Float[np.ndarray, "resamples heads"]
    alive: Bool[np.ndarray, "resamples heads"]


def _resampled_weights(
    changes: Mapping[str, _Changes],
    config: BlendConfig,
    *,
    rounding: np.ndarray,
    epoch: int,
) -> _Resamples:
    """Weights from every resample of V and T', by the same formula as from the clips as they are."""
    rng = np.random.default_rng((BOOTSTRAP_STREAM, config.holdout_seed, epoch))
    valid, train = (
        resample_means(changes[part].values, changes[part].counted, rng=rng, resamples=RESAMPLES)
        for part in ("valid", "train")
    )
    generalization = without_rounding(-valid.mean, rounding)
    overfitting = without_rounding(valid.mean - train.mean, rounding)
    discounted, floored = (
        way == "standard-error" for way in (config.generalization_discount, config.overfitting_floor)
    )
    weights = weights_of(
        generalization,
        overfitting,
        generalization_se=np.sqrt(valid.squared_se) if discounted else None,
        overfitting_se=np.sqrt(valid.squared_se + train.squared_se) if floored else None,
    )
    return _Resamples(weights=weights, alive=measured(generalization, overfitting))


def _warnings(
    heads: Sequence[str], clips: Sequence[int], moved: float, *, estimate_moved: float = 0.0, shrinkage: float = 0.0
) -> tuple[str, ...]:
    """What a reader must know before believing the weights.

    >>> _warnings(["rgb", "fused"], [400, 400], 0.05)
    ()
    >>> _warnings(["rgb", "fused"], [40, 40], 0.31)[0][:76]
    'another V of 40 clips would move 31% of the weight from head to head: these '
    >>> _warnings(["rgb", "fused"], [40, 40], 0.02, estimate_moved=0.31, shrinkage=0.9)[0][:76]
    'another V of 40 clips would move 31% of the weight that was estimated: 90% o'
    """
    few = [f"{head} ({count})" for head, count in zip(heads, clips, strict=True) if count < FEW_CLIPS]
    found = []
    if few:
        found.append(
            f"V has fewer than {FEW_CLIPS} clips for {', '.join(few)}: neither the weights nor their errors mean "
            "anything; hold out more clips (--blend.holdout-share)"
        )
    if moved > MUCH_WEIGHT:
        found.append(
            f"another V of {min(clips)} clips would move {moved:.0%} of the weight from head to head: these weights "
            "are mostly chance; hold out more clips (--blend.holdout-share) or use method equal"
        )
    elif estimate_moved > MUCH_WEIGHT and shrinkage > 0:
        found.append(
            f"another V of {min(clips)} clips would move {estimate_moved:.0%} of the weight that was estimated: "
            f"{shrinkage:.0%} of equal weights stand in its place; for more of the estimate hold out more clips "
            "(--blend.holdout-share)"
        )
    return tuple(found)
