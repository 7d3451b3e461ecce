"""Names of heads. A branch (a modality, or all of them fused) has one head for every task.

With one task a head is called as its branch, ``rgb`` or ``fused``; with several it is ``<task>/<branch>``, task by
task. What belongs to a task is kept under its *key*: the empty text for the only one, else its name. So among several
tasks ``fused`` alone is what the fused heads of all tasks say together.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from schemas import Task

Value = TypeVar("Value")

FUSED = "fused"
"""Name of the branch that reads all modalities; every other branch is named after its modality."""


def by_key(tasks: Sequence[Task]) -> dict[str, Task]:
    """Tasks by key.

    >>> list(by_key([Task(name="action", kind="single", classes=("a", "b"))]))
    ['']
    """
    return {"" if len(tasks) == 1 else task.name: task for task in tasks}


def head_name(key: str, branch: str) -> str:
    """The head of a branch for a task.

    >>> head_name("", "rgb"), head_name("verb", "rgb")
    ('rgb', 'verb/rgb')
    """
    return f"{key}/{branch}" if key else branch


def head_names(keys: Iterable[str], branches: Sequence[str]) -> tuple[str, ...]:
    """All heads in order: task by task, the fused one last in each.

    >>> head_names(["verb", "noun"], ["rgb", "fused"])
    ('verb/rgb', 'verb/fused', 'noun/rgb', 'noun/fused')
    """
    return tuple(head_name(key, branch) for key in keys for branch in branches)


def branch_of(head: str) -> str:
    """The branch of a head.

    >>> branch_of("verb/rgb"), branch_of("rgb")
    ('rgb', 'rgb')
    """
    return head.rpartition("/")[2]


def key_of(head: str) -> str:
    """The key of a head's task.

    >>> key_of("verb/rgb"), key_of("rgb")
    ('verb', '')
    """
    return head.rpartition("/")[0]


def of_each_task(heads: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Heads of every task, by its key, in the order given.

    >>> of_each_task(["verb/rgb", "verb/fused", "noun/rgb", "noun/fused"])["noun"]
    ('noun/rgb', 'noun/fused')
    """
    found: dict[str, list[str]] = {}
    for head in heads:
        found.setdefault(key_of(head), []).append(head)
    return {key: tuple(names) for key, names in found.items()}


def branches_of(heads: Iterable[str]) -> tuple[str, ...]:
    """Their branches, each once, in order.

    >>> branches_of(["verb/rgb", "verb/fused", "noun/rgb", "noun/fused"])
    ('rgb', 'fused')
    """
    return tuple(dict.fromkeys(map(branch_of, heads)))


def for_task(values: Mapping[str, Value], key: str) -> dict[str, Value]:
    """Of values by head, those of one task, by branch.

    >>> for_task({"verb/rgb": 1, "noun/rgb": 2, "rgb": 3}, "noun"), for_task({"noun/rgb": 2, "rgb": 3}, "")
    ({'rgb': 2}, {'rgb': 3})
    """
    return {branch_of(head): value for head, value in values.items() if key_of(head) == key}
