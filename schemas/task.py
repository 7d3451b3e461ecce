"""What a clip is labelled with: a task has a name, a kind and its classes.

One label column per task, ``label.<name>``. Tasks travel as JSON in the schema metadata of the manifest and
of every ``clips.arrow``, and in ``dataset.json``, so a label is never an integer without a meaning.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

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
    """Short name, for example ``action``, ``verb`` or ``noun``; without ``/``."""
    kind: TaskKind
    """``single``: exactly one class a clip (int32). ``multi``: any number of them (list<int32>)."""
    classes: tuple[str, ...]
    """Class names; a label is an index into them."""

    def __post_init__(self) -> None:
        if self.kind not in ("single", "multi"):
            raise ValueError(f"task {self.name!r} has kind {self.kind!r}; allowed: single, multi")
        if "/" in self.name:
            raise ValueError(
                f"task {self.name!r} has a / in its name, which parts task and branch in the names of heads; rename it"
            )
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
    try:
        values = json.loads(metadata[TASKS_KEY])
    except ValueError as error:
        raise ValueError(f"{what}: schema metadata {TASKS_KEY.decode()!r} is not JSON ({error})") from None
    return tasks_from_json(values, what=what)


def tasks_from_json(values: Any, *, what: str = "dataset.json") -> tuple[Task, ...]:
    """Tasks from the form they have in ``dataset.json``; ``what`` names the file in errors.

    >>> tasks_from_json([{"name": "a", "kind": "single"}], what="m")
    Traceback (most recent call last):
        ...
    ValueError: m: task 0 must have name, kind and classes (a list of names), got {'name': 'a', 'kind': 'single'}
    """
    if not isinstance(values, list) or not values:
        raise ValueError(f"{what}: tasks must be a list of at least one task, got {values!r:.200}")
    tasks = []
    for index, value in enumerate(values):
        entry = value if isinstance(value, dict) else {}
        classes = entry.get("classes")
        texts: list[Any] = [entry.get("name"), entry.get("kind"), *(classes if isinstance(classes, list) else [None])]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"{what}: task {index} must have name, kind and classes (a list of names), got {value!r:.200}"
            )
        try:
            tasks.append(Task(name=texts[0], kind=texts[1], classes=tuple(texts[2:])))
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
    if len({task.name for task in tasks}) < len(tasks):
        raise ValueError(f"{what}: two tasks have the same name: {', '.join(task.name for task in tasks)}")
    return tuple(tasks)
