"""What heads say about clips, kept: log-probabilities, from which any way of predicting can be computed later.

``predictions.npz`` of a run directory holds them for V and every scored split, so that the heads of one run, or of
several, can be joined without the networks. Plain arrays only:

    heads                 names
    <split>.log_probs     float32 (heads, clips, classes)
    <split>.counted       bool (heads, clips)
    <split>.labels        int64 (clips)
    <split>.positions     int64 (clips)
"""

from collections.abc import Mapping
from dataclasses import dataclass

import fsspec
import numpy as np
from jaxtyping import Bool, Float, Int

HELDOUT = "heldout"
"""Name of V among the splits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadOutputs:
    """Every head on one set of clips."""

    heads: tuple[str, ...]
    """Names, in the order of the first axis."""
    log_probs: Float[np.ndarray, "heads clips classes"]
    """Natural logarithm of the softmax; 0 where not counted."""
    counted: Bool[np.ndarray, "heads clips"]
    """False where the clip lacks what the head needs."""
    labels: Int[np.ndarray, " clips"]
    """Class of each clip."""
    positions: Int[np.ndarray, " clips"]
    """Place of each clip in its split."""

    def usable(self) -> Bool[np.ndarray, "heads clips"]:
        """Where a head has an answer: counted, and finite (a diverged head has none)."""
        return self.counted & np.isfinite(self.log_probs).all(axis=2)


def join_outputs(outputs: Mapping[str, HeadOutputs]) -> HeadOutputs:
    """The heads of several networks side by side, named ``<network>/<head>``.

    Raises:
        ValueError: They answered for other clips, or know other classes.

    >>> one = HeadOutputs(
    ...     heads=("rgb",), log_probs=np.log([[[0.5, 0.5]]]), counted=np.array([[True]]), labels=np.array([1]),
    ...     positions=np.array([0]))
    >>> join_outputs({"a": one, "b": one}).heads
    ('a/rgb', 'b/rgb')
    """
    if not outputs:
        raise ValueError("there is no network to join; give at least one")
    (first_name, first), *others = outputs.items()
    for name, other in others:
        same = np.array_equal(first.labels, other.labels) and np.array_equal(first.positions, other.positions)
        if not same or first.log_probs.shape[2] != other.log_probs.shape[2]:
            raise ValueError(
                f"{first_name} and {name} answered for different clips or classes; join runs of one comparison, which "
                "share the data and the hold-out"
            )
    return HeadOutputs(
        heads=tuple(f"{name}/{head}" for name, part in outputs.items() for head in part.heads),
        log_probs=np.concatenate([part.log_probs for part in outputs.values()]),
        counted=np.concatenate([part.counted for part in outputs.values()]),
        labels=first.labels,
        positions=first.positions,
    )


def save_outputs(path: str, splits: Mapping[str, HeadOutputs]) -> None:
    """Write what one network's heads say, per split."""
    arrays = {
        f"{split}.{part}": getattr(outputs, part)
        for split, outputs in splits.items()
        for part in ("log_probs", "counted", "labels", "positions")
    }
    heads = np.array(next(iter(splits.values())).heads)
    fs, place = fsspec.core.url_to_fs(path)
    with fs.open(place, "wb") as file:
        np.savez(file, heads=heads, **arrays)


def load_outputs(path: str) -> dict[str, HeadOutputs]:
    """The inverse of `save_outputs`; unpickles nothing."""
    fs, place = fsspec.core.url_to_fs(path)
    if not fs.exists(place):
        raise ValueError(f"{path} does not exist; is the directory above it a finished run of this version?")
    with fs.open(place, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        heads = tuple(arrays["heads"].tolist())
        splits = [name.removesuffix(".labels") for name in arrays.files if name.endswith(".labels")]
        return {
            split: HeadOutputs(
                heads=heads,
                **{part: arrays[f"{split}.{part}"] for part in ("log_probs", "counted", "labels", "positions")},
            )
            for split in splits
        }
