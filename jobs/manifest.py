r"""Annotations and a video root to a clip manifest, with a report on what is missing.

ray job submit --working-dir . -- \
    python -m jobs.manifest csv --annotations clips.csv --videos s3://b/v --out s3://b/clips.parquet
"""

import sys

from jobs.cli import run
from pipelines.annotations import Annotation, from_csv
from pipelines.folder import from_folder, list_files
from pipelines.manifest import write_manifest
from pipelines.preflight import build


def csv(*, annotations: str, videos: str, out: str, task: str = "label") -> str:
    """Manifest from a CSV file with a header.

    Columns: path, split, label (or label.TASK for several heads; several labels in a cell separated by "|"), and
    optionally start, end (seconds), id, group.

    Args:
        annotations: CSV file, path or fsspec URL.
        videos: Root that the paths are relative to, path or fsspec URL.
        out: Manifest to write (Parquet).
        task: Name of the task that the column "label" belongs to.
    """
    return _write(from_csv(annotations, default_task=task), videos, list_files(videos), out)


def folder(*, videos: str, out: str, task: str = "label", val: float = 0.1, test: float = 0.1, seed: int = 0) -> str:
    """Manifest from a tree SPLIT/CLASS/FILE, or CLASS/FILE with a stratified split.

    Args:
        videos: Root of the tree, path or fsspec URL.
        out: Manifest to write (Parquet).
        task: Name of the task that the class folders belong to.
        val: Share of every class for validation, where the tree has no splits.
        test: Share of every class for testing, where the tree has no splits.
        seed: Of that split.
    """
    files = list_files(videos)
    return _write(from_folder(files, task=task, shares=(val, test), seed=seed), videos, files, out)


def _write(annotations: list[Annotation], videos: str, files: list[str], out: str) -> str:
    table, report = build(annotations, files=files)
    write_manifest(table, out)
    for line in report.lines():
        print(line)
    return out


manifest = {"csv": csv, "folder": folder}


if __name__ == "__main__":
    sys.exit(run(manifest, prog="python -m jobs.manifest"))
