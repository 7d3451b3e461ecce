"""From probes to weights (Algorithm 1): train each branch alone from the checkpoint, compare its losses at both ends.

`estimate` takes the probing as a callable, so it needs neither a network nor a cluster: full-length single-modality and
naive runs (offline) and short probes from a checkpoint (online) go through the same arithmetic.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import fsspec
import numpy as np
from jaxtyping import Float

from gblend.config import BlendConfig
from gblend.measure import HeadLosses
from gblend.ogr import LossPair, blend_weights
from gblend.records import EstimateRecord


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

    def save(self, path: str) -> None:
        """Write as a NumPy archive of plain arrays."""
        arrays = {
            f"{end}.{part}": getattr(getattr(self, end), part)
            for end in self.__dataclass_fields__
            for part in HeadLosses.__dataclass_fields__
        }
        fs, place = fsspec.core.url_to_fs(path)
        with fs.open(place, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str) -> "ProbeLosses":
        """The inverse of `save`; unpickles nothing."""
        fs, place = fsspec.core.url_to_fs(path)
        with fs.open(place, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return cls(
                **{
                    end: HeadLosses(**{part: arrays[f"{end}.{part}"] for part in HeadLosses.__dataclass_fields__})
                    for end in cls.__dataclass_fields__
                }
            )


def estimate(
    probes: Mapping[str, ProbeLosses], config: BlendConfig, *, epoch: int, probe_epochs: int
) -> EstimateRecord:
    """Weights of all heads from their probes.

    Args:
        probes: Per head, the fused head last.
        config: Whether O has a floor.
        epoch: Finished epochs of the run when the probes started.
        probe_epochs: Their length.
    """
    heads = tuple(probes)
    ends = {
        end: tuple(getattr(probe, end).score().loss_nats for probe in probes.values())
        for end in ProbeLosses.__dataclass_fields__
    }
    valid_change = [_change(probe.start_valid, probe.end_valid) for probe in probes.values()]
    train_change = [_change(probe.start_train, probe.end_train) for probe in probes.values()]
    generalization_se = [_squared_se(v) ** 0.5 for v in valid_change]
    overfitting_se = [(_squared_se(v) + _squared_se(t)) ** 0.5 for v, t in zip(valid_change, train_change, strict=True)]
    found = blend_weights(
        LossPair(train=ends["start_train"], valid=ends["start_valid"]),
        LossPair(train=ends["end_train"], valid=ends["end_valid"]),
        heads=heads,
        overfitting_se=overfitting_se if config.overfitting_floor == "standard-error" else None,
    )
    return EstimateRecord(
        epoch=epoch,
        probe_epochs=probe_epochs,
        heads=heads,
        **ends,
        generalization=tuple(found.generalization.tolist()),
        overfitting=tuple(found.overfitting.tolist()),
        ogr=tuple(found.ogr.tolist()),
        generalization_se=tuple(generalization_se),
        overfitting_se=tuple(overfitting_se),
        raw_weights=tuple(found.raw.tolist()),
        weights=tuple(found.weights.tolist()),
        reason=found.reason,
    )


def _change(start: HeadLosses, end: HeadLosses) -> Float[np.ndarray, " counted"]:
    """Per clip, how much the loss changed."""
    with np.errstate(invalid="ignore"):  # a diverged probe: inf or NaN, which `blend_weights` gives weight 0
        return (end.loss_nats - start.loss_nats)[start.counted]


def _squared_se(changes: Float[np.ndarray, " counted"]) -> float:
    """Squared standard error of the mean change.

    >>> _squared_se(np.array([1.0, 2.0, 3.0]))  # variance 1 over 3 clips
    0.3333333333333333
    """
    if changes.size < 2:
        return float("nan")
    with np.errstate(invalid="ignore"):
        return float(changes.var(ddof=1)) / changes.size
