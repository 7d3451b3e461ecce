"""What heads say about clips, kept: log-probabilities, from which any way of predicting can be computed later.

``predictions.npz`` of a run directory holds them for V and every scored split, so that the heads of one run, or of
several, can be joined without the networks. Plain arrays only:

    heads                 names
    <split>.log_probs     float32 (heads, clips, classes)
    <split>.counted       bool (heads, clips)
    <split>.labels        int64 (clips), or bool (clips, classes) of a task with several labels a clip
    <split>.positions     int64 (clips)

With several tasks ``tasks`` holds their names, and all but ``heads`` begins with ``<task>/``. Of several labels a class
has the log-probability that the clip has it (log-sigmoid), from which the logit follows with all its digits.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from gblend.heads import head_name
from gblend.storage import read_bytes, write_bytes

PARTS = ("log_probs", "counted", "labels", "positions")

HELDOUT = "heldout"
"""Name of V among the splits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadOutputs:
    """Every head of one task on one set of clips."""

    heads: tuple[str, ...]
    """Names of their branches, in the order of the first axis."""
    log_probs: Float[np.ndarray, "heads clips classes"]
    """Natural logarithm of the softmax, or of several labels of the sigmoid; 0 where not counted."""
    counted: Bool[np.ndarray, "heads clips"]
    """False where the clip lacks what the head needs, or a label."""
    labels: Int[np.ndarray, " clips"] | Bool[np.ndarray, "clips classes"]
    """Class of each clip, -1 where unlabelled; or which classes it has."""
    positions: Int[np.ndarray, " clips"]
    """Place of each clip in its split."""

    @property
    def several(self) -> bool:
        """Whether a clip may have several labels."""
        return self.labels.ndim == 2

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


def save_outputs(path: str, tasks: Mapping[str, Mapping[str, HeadOutputs]]) -> None:
    """Write what one network's heads say, per task key (`gblend.heads`) and split."""
    arrays = {
        f"{head_name(key, split)}.{part}": getattr(outputs, part)
        for key, splits in tasks.items()
        for split, outputs in splits.items()
        for part in PARTS
    }
    heads = np.array(next(iter(next(iter(tasks.values())).values())).heads)
    if len(tasks) > 1:
        arrays["tasks"] = np.array(list(tasks))
    stored = io.BytesIO()
    np.savez(stored, heads=heads, **arrays)
    write_bytes(path, stored.getvalue())


def load_outputs(path: str, task: str = "") -> dict[str, HeadOutputs]:
    """What `save_outputs` wrote of one task, per split; unpickles nothing.

    Args:
        path: ``predictions.npz``.
        task: Its name where there are several; empty for the only one.

    Raises:
        ValueError: There is no such file, or no such task in it.
    """
    try:
        stored = read_bytes(path)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; is the directory above it a finished run of this version?") from None
    with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
        tasks = arrays["tasks"].tolist() if "tasks" in arrays.files else [""]
        if task not in tasks:
            raise ValueError(f"{path} has no task {task!r}; it has {', '.join(tasks) or 'one, without a name'}")
        heads = tuple(arrays["heads"].tolist())
        start, end = head_name(task, ""), ".labels"
        names = [name for name in arrays.files if name.startswith(start) and name.endswith(end)]
        splits = [name.removeprefix(start).removesuffix(end) for name in names]
        return {
            split: HeadOutputs(heads=heads, **{part: arrays[f"{start}{split}.{part}"] for part in PARTS})
            for split in splits
        }
