"""Annotations from a tree of media files, where the names of folders are the labels."""

import os
import random
from collections import defaultdict
from collections.abc import Iterable

from fsspec.core import url_to_fs

from pipelines.annotations import Annotation, split_name
from schemas.manifest import SPLITS

VIDEO_ENDINGS = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".ts",
    ".mpg",
    ".mpeg",
    ".flv",
    ".wmv",
    ".asf",
    ".gif",
)
AUDIO_ENDINGS = (".ogv", ".ogg", ".wav", ".mp3", ".flac", ".m4a", ".aac")
MEDIA_ENDINGS = frozenset(VIDEO_ENDINGS + AUDIO_ENDINGS)
"""Files a folder tree is searched for."""


def from_folder(
    paths: Iterable[str], *, task: str = "label", shares: tuple[float, float] = (0.1, 0.1), seed: int = 0
) -> list[Annotation]:
    """Annotations from a tree of files: SPLIT/CLASS/FILE, or CLASS/FILE with a split of our own.

    The first level names splits when all of its folders do, classes when none does, and anything between is an error.
    Where it names classes, ``shares`` of every class go to val and test, at least one each where a class has three
    files or more, drawn with ``seed``. A file that lies too high in the tree for a class gets no annotation;
    `pipelines.manifest.build` reports it.

    >>> [a.split for a in from_folder(["train/dog/a.mp4", "valid/dog/b.mp4"])]
    ['train', 'val']
    """
    _check_shares(*shares)
    media = sorted(p for p in paths if is_media(p))
    parts = [p.split("/") for p in media]
    top = sorted({p[0] for p in parts if len(p) > 1})
    splits = [name for name in top if split_name(name) in SPLITS]
    if splits and len(splits) < len(top):
        others = [name for name in top if name not in splits]
        raise ValueError(
            f"some top folders name splits ({_shorten(splits)}) and others do not ({_shorten(others)}); "
            "name all of them train, val or test, or none"
        )
    if splits:
        deep = [(p, "/".join(p)) for p in parts if len(p) > 2]
        rows = [Annotation(uri=uri, split=split_name(p[0]), labels={task: (p[1],)}) for p, uri in deep]
    else:
        by_class: dict[str, list[str]] = defaultdict(list)
        for p, uri in zip(parts, media, strict=True):
            if len(p) > 1:
                by_class[p[0]].append(uri)
        rows = []
        for name, uris in sorted(by_class.items()):
            for uri, split in zip(uris, _draw_splits(len(uris), shares, f"{seed}/{name}"), strict=True):
                rows.append(Annotation(uri=uri, split=split, labels={task: (name,)}))
    if not rows:
        raise ValueError("the folder holds no media file as SPLIT/CLASS/FILE or CLASS/FILE")
    return sorted(rows, key=lambda row: row.uri)


def is_media(path: str) -> bool:
    """Whether the name ends like that of a media file.

    >>> is_media("dog/a.MP4"), is_media("dog/notes.txt")
    (True, False)
    """
    return os.path.splitext(path)[1].lower() in MEDIA_ENDINGS


def list_files(videos: str) -> list[str]:
    """Every file below a video root (path or fsspec URL), relative to it."""
    fs, root = url_to_fs(videos)
    root = root.rstrip("/")
    if not fs.isdir(root or "/"):
        raise FileNotFoundError(f"there is no video root at {videos}")
    return sorted(path[len(root) :].lstrip("/") for path in fs.find(root))


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
