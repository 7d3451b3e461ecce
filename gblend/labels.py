"""Labels of clips: as training takes them, how many there are, which clips lack one, and what to stratify by.

A label is a class, or a list of classes of a task with several labels a clip; null is an unlabelled clip. A clip takes
part in the tasks that it has a label for, and is left out when there is none.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from gblend.clips import ClipIndex
from gblend.holdout import Label
from schemas import Task


def label_value(label: int | list[int] | None, task: Task) -> int | Float[np.ndarray, " classes"]:
    """A clip's label as training takes it: its class, or 1 for the classes it has and 0 for the others; -1: unlabelled.

    >>> label_value([2, 0], Task(name="event", kind="multi", classes=("a", "b", "c"))).tolist()
    [1.0, 0.0, 1.0]
    """
    if task.kind == "single":
        assert not isinstance(label, list)
        return -1 if label is None else label
    assert not isinstance(label, int)
    values = np.full(len(task.classes), -1.0 if label is None else 0.0, dtype=np.float32)
    values[label or []] = 1.0
    return values


def count_classes(labels: pa.Array, classes: int) -> list[int]:
    """Clips of every class; a clip counts for each of its classes.

    >>> count_classes(pa.array([0, 1, None, 1]), 3), count_classes(pa.array([[0, 1], None, [], [1, 1]]), 3)
    ([1, 2, 0], [1, 2, 0])
    """
    if not pa.types.is_list(labels.type):
        return np.bincount(labels.drop_null().to_numpy(), minlength=classes).tolist()
    each = [label for clip in labels.to_pylist() for label in set(clip or ())]
    return np.bincount(np.array(each, dtype=np.int64), minlength=classes).tolist()


def leave_out_unlabelled(index: ClipIndex, split: str) -> tuple[ClipIndex, int]:
    """Clips that some task has a label for, and how many have none at all: they would train and score nothing."""
    kept = index.labelled()
    if not kept.any():
        raise ValueError(f"no clip of split {split!r} has a label; give labels in the manifest")
    return (index if kept.all() else index.take(kept)), int((~kept).sum())


def require_labels(parts: Mapping[str, ClipIndex], tasks: Mapping[str, Task]) -> None:
    """Raise ``ValueError`` when a task has no label at all in some part of the data."""
    for part, index in parts.items():
        for key, task in tasks.items():
            if index.labels[key].null_count == len(index):
                raise ValueError(
                    f"task {task.name!r} has no label on any of the {len(index)} {part} clips; label some, or leave "
                    "the task out of the manifest"
                )


def strata(index: ClipIndex) -> Sequence[int] | Sequence[Collection[Label]]:
    """What the clips are stratified by: their class, or with several labels or tasks all they have."""
    columns = {key: column.to_pylist() for key, column in index.labels.items()}
    if all(isinstance(label, int) for label in columns.get("", [None])):
        return columns[""]
    return [
        {(key, each) for key, found in columns.items() for each in _as_list(found[clip])} for clip in range(len(index))
    ]


def _as_list(label: int | list[int] | None) -> list[int]:
    return [] if label is None else [label] if isinstance(label, int) else label
