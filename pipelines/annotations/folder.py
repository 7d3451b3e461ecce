"""Annotations from a tree of media files, where the names of folders are the labels."""

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from pipelines.annotations.cells import split_name
from pipelines.annotations.files import are_media, as_paths
from pipelines.annotations.table import FIELDS, Annotations
from schemas.manifest import SPLITS
from schemas.task import Task

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""


def from_folder(
    paths: Iterable[str] | pa.Array, *, task: str = "label", shares: tuple[float, float] = (0.1, 0.1), seed: int = 0
) -> Annotations:
    """Annotations from a tree of files: SPLIT/CLASS/FILE, or CLASS/FILE with a split of our own.

    The first level names splits when all of its folders do, classes when none does, and anything between is an error.
    Where it names classes, ``shares`` of every class go to val and test, at least one each where a class has three
    files or more, drawn with ``seed``. A file that lies too high in the tree for a class gets no annotation;
    `pipelines.preflight.build` reports it.

    >>> from_folder(["train/dog/a.mp4", "valid/dog/b.mp4"]).table["split"].to_pylist()
    ['train', 'val']
    """
    _check_shares(*shares)
    files = as_paths(paths)
    files = files.filter(pa.array(are_media(files)))
    files = files.take(pc.sort_indices(files))
    top = _folder(files, 1)
    names = sorted(name for name in pc.unique(top).to_pylist() if name)
    splits = [name for name in names if split_name(name) in SPLITS]
    if splits and len(splits) < len(names):
        others = [name for name in names if name not in splits]
        raise ValueError(
            f"some top folders name splits ({_shorten(splits)}) and others do not ({_shorten(others)}); "
            "name all of them train, val or test, or none"
        )
    label = _folder(files, 2) if splits else top
    deep = pc.not_equal(label, "")
    if not pc.any(deep).as_py():
        flat = len(files)
        there = f"{flat} media file{'s lie' if flat > 1 else ' lies'} in it without a class" if flat else "none at all"
        raise ValueError(
            f"the folder holds no media file as SPLIT/CLASS/FILE or CLASS/FILE ({there}); put the files of each class "
            "into a folder named for it, or list them in a table: gblend manifest csv"
        )
    files, top, label = (column.filter(deep) for column in (files, top, label))
    classes = sorted(pc.unique(label).to_pylist())
    codes = pc.index_in(label, pa.array(classes))
    if splits:
        meant = pa.array([split_name(name) for name in splits])
        split = meant.take(pc.index_in(top, pa.array(splits)))
    else:
        split = pa.array(_split_classes(codes.to_numpy(), classes, shares, seed))
    made: dict[str, Any] = {name: pa.nulls(len(files), kind) for name, kind in FIELDS.items()}
    made |= {"name": files, "split": split, f"label.{task}": codes}
    return Annotations(table=pa.table(made), tasks=(Task(name=task, kind="single", classes=tuple(classes)),))


def _folder(paths: Any, level: int) -> Any:
    """The name of the folder at a level of the tree, empty for files that lie higher."""
    return pc.replace_substring_regex(
        pc.if_else(_deep(paths, level), paths, ""), rf"^([^/]*/){{{level - 1}}}([^/]*)/.*$", r"\2"
    )


def _deep(paths: Any, level: int) -> Any:
    """Whether files lie at least so deep."""
    return pc.match_substring_regex(paths, rf"^([^/]*/){{{level}}}")


def _split_classes(codes: np.ndarray, classes: list[str], shares: tuple[float, float], seed: int) -> np.ndarray:
    split = np.empty(len(codes), object)
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(classes) + 1))
    for code, name in enumerate(classes):
        rows = order[bounds[code] : bounds[code + 1]]
        split[rows] = _draw_splits(len(rows), shares, f"{seed}/{name}")
    return split


def _check_shares(val: float, test: float) -> None:
    for name, share in (("val", val), ("test", test)):
        if not 0 <= share < 1:
            raise ValueError(f"the share for {name} must be at least 0 and below 1, got {share}")
    if not val + test < 1:
        raise ValueError(f"the shares for val and test must leave some for train: {val} + {test} is not below 1")


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _draw_splits(count: int, shares: tuple[float, float], seed: str) -> list[str]:
    """A split for each of a class's files.

    >>> sorted(_draw_splits(10, (0.1, 0.2), "0/dog"))
    ['test', 'test', 'train', 'train', 'train', 'train', 'train', 'train', 'train', 'val']
    """
    least = 1 if count >= 3 else 0
    val, test = (max(least, round(count * share)) if share > 0 else 0 for share in shares)
    splits = ["val"] * val + ["test"] * test
    splits = (splits + ["train"] * count)[:count]
    random.Random(seed).shuffle(splits)
    return splits
