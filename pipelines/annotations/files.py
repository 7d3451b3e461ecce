"""Which file below the video root a clip means: listed once, then joined as columns.

Datasets are unpacked in many layouts, so most adapters name a file by its stem, wherever it lies. Where one stem lies
in several folders, a folder of replacements wins (they replace corrupt files), then one named for the clip's split,
then one named for no split; video wins over sound alone. What is still undecided is the first path, and reported.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pipelines.annotations.cells import SPLIT_ALIASES
from pipelines.annotations.table import Annotations, flat, give_back, to_mask
from schemas.manifest import SPLITS

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""

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
"""Files a tree is searched for."""

REPLACEMENT = r"(?i)(^|/)replacements?[^/]*/"
"""Folders whose files replace corrupt ones of the same name, as Kinetics-400 has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """Where the files of annotated clips are."""

    position: np.ndarray
    """For each clip, the position of its file; -1: there is none."""
    ambiguous: np.ndarray
    """Clips for which several files are equally good."""


def is_media(path: str) -> bool:
    """Whether the name ends like that of a media file.

    >>> is_media("dog/a.MP4"), is_media("dog/notes.txt")
    (True, False)
    """
    return os.path.splitext(path)[1].lower() in MEDIA_ENDINGS


def are_media(paths: Any) -> np.ndarray:
    """`is_media` of a column."""
    return _ends_with(paths, MEDIA_ENDINGS)


def stems(paths: Any) -> Any:
    """Names without folder and ending, of a column.

    >>> stems(pa.array(["train/a b/-x_1.y.mp4", "z"])).to_pylist()
    ['-x_1.y', 'z']
    """
    return pc.replace_substring_regex(pc.replace_substring_regex(paths, r"^.*/", ""), r"\.[^.]*$", "")


def list_files(videos: str) -> pa.Array:
    """Every file below a video root (path or fsspec URL), relative to it, sorted.

    Links to directories are not followed: what lies behind them is not below the root.
    """
    fs, root = url_to_fs(videos)
    root = root.rstrip("/")
    if not fs.isdir(root or "/"):
        raise FileNotFoundError(f"there is no video root at {videos}")
    # fsspec keeps a dictionary a file, two gigabytes for two million; where we can, we keep the names alone.
    found = (
        _walk(root or "/", "") if isinstance(fs, LocalFileSystem) else ([path[len(root) :] for path in fs.find(root)],)
    )
    chunks = [pa.array([_readable(path.lstrip("/")) for path in paths], pa.string()) for paths in found]
    paths = pa.chunked_array(chunks, pa.string()).combine_chunks()
    return paths.take(pc.sort_indices(paths))


def as_paths(files: Iterable[str] | pa.Array) -> Any:
    """Paths of files as one column, whatever they came as."""
    return files if isinstance(files, pa.Array) else pa.array(list(files), pa.string())


def locate(annotations: Annotations, paths: Any) -> Located:
    """The file of every clip."""
    names = flat(annotations.table["name"])
    if annotations.matched_by == "path":
        return Located(position=_index_in(names, paths), ambiguous=np.zeros(len(names), bool))
    endings = MEDIA_ENDINGS if annotations.ending is None else {annotations.ending.lower()}
    candidates = np.flatnonzero(_ends_with(paths, endings))
    media = paths if len(candidates) == len(paths) else paths.take(pa.array(candidates))
    candidate_stems = stems(media)
    different = pc.count_distinct(candidate_stems).as_py()
    give_back()
    if different == len(candidates):
        index = _index_in(names, candidate_stems)
        position = np.where(index >= 0, candidates[index], -1) if len(candidates) else index
        return Located(position=position, ambiguous=np.zeros(len(names), bool))
    return _best(names, annotations.table["split"], candidate_stems, media, candidates)


def _best(names: Any, splits: Any, candidate_stems: Any, paths: Any, candidates: np.ndarray) -> Located:
    """The best file of every clip where some stems have several."""
    encoded = candidate_stems.dictionary_encode()
    codes = encoded.indices.to_numpy()
    wanted = _index_in(names, encoded.dictionary)
    folders = pc.replace_substring_regex(paths, r"[^/]*$", "")
    replaces = to_mask(pc.match_substring_regex(folders, REPLACEMENT))
    of_split = {split: to_mask(pc.match_substring_regex(folders, _folder_pattern(split))) for split in SPLITS}
    of_any = np.logical_or.reduce(list(of_split.values()))
    sound = _ends_with(paths, frozenset(AUDIO_ENDINGS))
    position = np.full(len(names), -1, np.int64)
    ambiguous = np.zeros(len(names), bool)
    for split in SPLITS:
        rows = np.flatnonzero(to_mask(pc.equal(flat(splits), split)) & (wanted >= 0))
        folder = np.where(replaces, 0, np.where(of_split[split], 1, np.where(of_any, 3, 2)))
        rank = 2 * folder + sound
        order = np.lexsort((np.arange(len(codes)), rank, codes))
        leads = np.flatnonzero(np.diff(codes[order], prepend=-1))
        best = order[leads]  # For every stem, in the order of its code.
        ties = np.bincount(codes[rank == rank[best][codes]], minlength=len(best)) > 1
        position[rows] = candidates[best[wanted[rows]]]
        ambiguous[rows] = ties[wanted[rows]]
    return Located(position=position, ambiguous=ambiguous)


def _folder_pattern(split: str) -> str:
    """A folder with one of a split's names as a word: ``val/``, ``videos_val/``, ``eval_segments/``.

    >>> [bool(re.search(_folder_pattern("val"), path)) for path in ("Val_256/", "k/validate/", "oval/", "eval/")]
    [True, True, False, False]
    """
    names = [split, *(alias for alias, meant in SPLIT_ALIASES.items() if meant == split)]
    return rf"(?i)(^|/|[^a-z/])({'|'.join(names)})([^a-z][^/]*)?/"


def _index_in(values: Any, value_set: Any) -> np.ndarray:
    return pc.fill_null(pc.index_in(values, value_set), -1).to_numpy().astype(np.int64)


def _ends_with(paths: Any, endings: Iterable[str]) -> np.ndarray:
    pattern = "|".join(re.escape(ending.removeprefix(".")) for ending in sorted(endings))
    return to_mask(pc.match_substring_regex(paths, rf"(?i)[^/]\.({pattern})$"))


def _walk(root: str, below: str) -> Iterator[list[str]]:
    """Paths relative to a local root, a list a directory."""
    pending = [below]
    while pending:
        here = pending.pop()
        files = []
        with os.scandir(os.path.join(root, here)) as entries:
            for entry in entries:
                path = f"{here}/{entry.name}" if here else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                elif not entry.is_symlink() or not entry.is_dir():
                    files.append(path)
        yield files


def _readable(path: str) -> str:
    """A path that a manifest can hold: one that is not UTF-8 is shown with marks, and so is never found."""
    return path if path.isascii() else path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
