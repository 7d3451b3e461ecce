"""What a clip is labelled with: a task has a name, a kind and its classes.

One label column per task, ``label.<name>``. Tasks travel as JSON in the schema metadata of the manifest and
of every ``clips.arrow``, and in ``dataset.json``, so a label is never an integer without a meaning.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import pyarrow as pa

TaskKind = Literal["single", "multi"]

TASKS_KEY = b"gblend.tasks"
"""Schema metadata key under which the tasks are stored, as JSON."""

LABEL_PREFIX = "label."


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One question asked about every clip.

    >>> Task(name="action", kind="single", classes=("noop", "fire")).column
    'label.action'
    """

    name: str
    """Short name, for example ``action``, ``verb`` or ``noun``."""
    kind: TaskKind
    """``single``: exactly one class a clip (int32). ``multi``: any number of them (list<int32>)."""
    classes: tuple[str, ...]
    """Class names; a label is an index into them."""

    def __post_init__(self) -> None:
        if self.kind not in ("single", "multi"):
            raise ValueError(f"task {self.name!r} has kind {self.kind!r}; allowed: single, multi")
        if not self.classes:
            raise ValueError(f"task {self.name!r} has no classes; name at least one")
        repeated = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if repeated:
            raise ValueError(f"task {self.name!r} names the class {repeated[0]!r} twice; class names are unique")

    @property
    def column(self) -> str:
        """The label column's name."""
        return LABEL_PREFIX + self.name

    @property
    def arrow_type(self) -> pa.DataType:
        """The label column's type."""
        return pa.int32() if self.kind == "single" else pa.list_(pa.int32())


def label_fields(tasks: tuple[Task, ...]) -> list[pa.Field]:
    """One Arrow field per task, in order. A null label is an unlabelled clip."""
    return [pa.field(task.column, task.arrow_type) for task in tasks]


def encode_tasks(tasks: tuple[Task, ...]) -> dict[bytes, bytes]:
    """Tasks as schema metadata."""
    return {TASKS_KEY: json.dumps([asdict(task) for task in tasks], sort_keys=True).encode()}


def decode_tasks(metadata: Mapping[bytes, bytes] | None, *, what: str) -> tuple[Task, ...]:
    """Tasks from schema metadata; ``what`` names the file in the error.

    >>> decode_tasks(encode_tasks((Task(name="a", kind="single", classes=("x",)),)), what="m")[0].classes
    ('x',)
    """
    if metadata is None or TASKS_KEY not in metadata:
        raise ValueError(
            f"{what} does not say which tasks its labels belong to (no schema metadata {TASKS_KEY.decode()!r}); "
            "write it with `gblend manifest`"
        )
    return tasks_from_json(json.loads(metadata[TASKS_KEY]))


def tasks_from_json(values: list[dict]) -> tuple[Task, ...]:
    """Tasks from the form they have in ``dataset.json``."""
    return tuple(Task(name=v["name"], kind=v["kind"], classes=tuple(v["classes"])) for v in values)
