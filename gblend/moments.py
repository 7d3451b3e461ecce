"""A network measured at several moments of its training, clip by clip: before the first epoch and after each.

O and G are differences between two of them. ``losses.npz`` keeps them all, not two, so that a finished run serves as a
full-length probe whatever is measured and wherever the probe is to end. Plain arrays only:

    heads                                    names
    train.loss_nats, .correct, .counted      (moments, heads, clips of T'), the heads of all tasks
    heldout.loss_nats, .correct, .counted    (moments, heads, clips of V)
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gblend.config import LossConfig
from gblend.data import RunData
from gblend.measure import HeadLosses, measure
from gblend.model import BlendModel
from gblend.storage import read_bytes, write_bytes

SETS = ("train", "heldout")
PARTS = ("loss_nats", "correct", "counted")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A network at one moment; per head, clip by clip."""

    train: dict[str, HeadLosses]
    """On T'."""
    heldout: dict[str, HeadLosses]
    """On V."""


def measure_both(model: BlendModel, data: RunData, loss: LossConfig) -> Measured:
    """Every head on T' and on V, by cross-entropy or the user's own loss."""
    return Measured(
        train=measure(model, data.train, data.train_slice, spec=data.spec, own_loss=loss.callable),
        heldout=measure(model, data.heldout, spec=data.spec, own_loss=loss.callable),
    )


def to_arrays(moments: Sequence[Measured]) -> dict[str, np.ndarray]:
    """All moments of one network, at least one, as the arrays above; it has the same heads at each."""
    heads = tuple(moments[0].train)
    return {"heads": np.array(heads)} | {
        f"{name}.{part}": np.stack(
            [np.stack([getattr(getattr(moment, name)[head], part) for head in heads]) for moment in moments]
        )
        for name in SETS
        for part in PARTS
    }


def from_arrays(arrays: Mapping[str, np.ndarray]) -> list[Measured]:
    """The inverse of `to_arrays`, but for metrics."""
    heads = arrays["heads"].tolist()
    return [
        Measured(
            **{
                name: {
                    head: HeadLosses(**{part: arrays[f"{name}.{part}"][moment, at] for part in PARTS})
                    for at, head in enumerate(heads)
                }
                for name in SETS
            }
        )
        for moment in range(len(arrays["train.counted"]))
    ]


def save_moments(path: str, moments: Sequence[Measured]) -> None:
    """Write all moments of one network."""
    arrays: dict[str, Any] = {**to_arrays(moments)}  # NumPy's stubs take keywords for other parameters of savez
    stored = io.BytesIO()
    np.savez(stored, **arrays)
    write_bytes(path, stored.getvalue())


def load_moments(path: str) -> list[Measured]:
    """The inverse of `save_moments`; unpickles nothing."""
    with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as stored:
        return from_arrays({name: stored[name] for name in stored.files})
