r"""Annotations and a video root to a clip manifest, with a report on what is missing.

ray job submit --working-dir . -- \
    python -m jobs.manifest csv --annotations clips.csv --videos s3://b/v --out s3://b/clips.parquet

The report is printed, long lists shortened, and written whole as JSON beside the manifest (clips.report.json).
"""

import json
import sys

import pyarrow as pa

from jobs.cli import run
from jobs.places import absolute
from jobs.progress import progress
from jobs.terminal import Result, say
from pipelines.annotations import (
    Annotations,
    BadRows,
    audioset,
    epic_kitchens,
    from_csv,
    from_folder,
    kinetics,
    list_files,
    open_texts,
    sports1m,
    vggsound,
)
from pipelines.annotations.cells import class_list
from pipelines.manifest import write_manifest
from pipelines.preflight import SharedVideos, build, report_path, write_report


def _csv(
    *,
    annotations: str,
    videos: str,
    out: str,
    task: str = "label",
    bad_rows: BadRows = "refuse",
    shared_videos: SharedVideos = "report",
    window_s: float = 1.0,
) -> Result:
    """Manifest from a CSV file with a header, or from JSON lines (.jsonl).

    Columns: path, split, label (or label.TASK for several heads; several labels in a cell separated by "|", in JSON a
    list), and optionally start, end (seconds), id, group.

    Args:
        annotations: CSV or JSONL file, path or fsspec URL.
        videos: Root that the paths are relative to, path or fsspec URL.
        out: Manifest to write (Parquet).
        task: Name of the task that the column "label" belongs to.
        bad_rows: Refuse annotations with rows that cannot be used, or leave the rows out and list them in the report.
        shared_videos: Report files with clips in several splits, or refuse them.
        window_s: Length of a training window; the report counts clips that are annotated as shorter.
    """
    made = from_csv(annotations, default_task=task, bad_rows=bad_rows)
    return _write(made, videos, None, out, bad_rows, shared_videos, window_s)


def _folder(
    *,
    videos: str,
    out: str,
    task: str = "label",
    val: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Result:
    """Manifest from a tree SPLIT/CLASS/FILE, or CLASS/FILE with a stratified split.

    Args:
        videos: Root of the tree, path or fsspec URL.
        out: Manifest to write (Parquet).
        task: Name of the task that the class folders belong to.
        val: Share of every class for validation, where the tree has no splits.
        test: Share of every class for testing, where the tree has no splits.
        seed: Of that split.
    """
    files = _list(videos)
    made = from_folder(files, task=task, shares=(val, test), seed=seed)
    return _write(made, videos, files, out, "refuse", "report", 1.0)


def _kinetics(
    *,
    annotations: tuple[str, ...],
    videos: str,
    out: str,
    classes: str | None = None,
    splits: tuple[str, ...] = (),
    task: str = "action",
    bad_rows: BadRows = "refuse",
    shared_videos: SharedVideos = "report",
    window_s: float = 1.0,
) -> Result:
    """Manifest from the CSV files of Kinetics-400, -600 or -700, of DeepMind's or the older crawler's form.

    A clip is the file ID_SSSSSS_EEEEEE, cut already, wherever it lies below the root. Of several with that name, one in
    a folder of replacements is taken, else one in a folder named for the clip's split. Only test clips may have no
    label.

    Args:
        annotations: One or more CSV files, paths or fsspec URLs.
        videos: Root below which the files lie, in folders of any kind; path or fsspec URL.
        out: Manifest to write (Parquet).
        classes: Text file with one class name a line, in the order of the class indices; without it, the labels sorted.
        splits: Split of each annotation file, in order; without it, the column "split" or the file's name tells it.
        task: Name of the task.
        bad_rows: Refuse annotations with rows that cannot be used, or leave the rows out and list them in the report.
        shared_videos: Report source videos with clips in several splits, or refuse them.
        window_s: Length of a training window; the report counts clips that are annotated as shorter.
    """
    with open_texts(annotations) as texts, open_texts([classes] if classes else []) as lists:
        names = class_list(lists[classes], what=classes) if classes else None
        made = kinetics.parse(texts, task=task, classes=names, splits=splits, bad_rows=bad_rows)
    return _write(made, videos, None, out, bad_rows, shared_videos, window_s)


def _audioset(
    *,
    annotations: tuple[str, ...],
    classes: str,
    videos: str,
    out: str,
    template: str | None = None,
    files: audioset.Holds = "clips",
    splits: tuple[str, ...] = (),
    task: str = "event",
    bad_rows: BadRows = "refuse",
    shared_videos: SharedVideos = "report",
    window_s: float = 1.0,
) -> Result:
    """Manifest from the segment files of AudioSet, several labels a clip.

    Args:
        annotations: One or more segment files (eval_segments.csv, ...), paths or fsspec URLs.
        videos: Root below which the files lie, in folders of any kind; path or fsspec URL.
        out: Manifest to write (Parquet).
        classes: class_labels_indices.csv, which gives label codes their indices and names.
        template: File name made of {id}, {start_ms}, {end_ms}, {start_s}, {end_s}, with or without an ending, such as
            Y{id}.wav; without it, the one of the known templates that finds the most files.
        files: Whether a file is the clip, cut already, or the whole source video, which gives the clips a span.
        splits: Split of each annotation file, in order; without it, the file's name tells it (eval is test).
        task: Name of the task.
        bad_rows: Refuse annotations with rows that cannot be used, or leave the rows out and list them in the report.
        shared_videos: Report source videos with clips in several splits, or refuse them.
        window_s: Length of a training window; the report counts clips that are annotated as shorter.
    """
    with open_texts(annotations) as texts, open_texts([classes]) as lists:
        names = audioset.read_classes(lists[classes], what=classes)
        made = audioset.parse(texts, classes=names, task=task, splits=splits, bad_rows=bad_rows)
    found = _list(videos)
    made = audioset.name_files(made, paths=found, template=template, holds=files)
    return _write(made, videos, found, out, bad_rows, shared_videos, window_s)


def _vggsound(
    *,
    annotations: tuple[str, ...],
    videos: str,
    out: str,
    classes: str | None = None,
    splits: tuple[str, ...] = (),
    task: str = "sound",
    bad_rows: BadRows = "refuse",
    shared_videos: SharedVideos = "report",
    window_s: float = 1.0,
) -> Result:
    """Manifest from vggsound.csv, or train.csv and test.csv, of VGGSound: clips are files ID_SSSSSS, cut already.

    Args:
        annotations: One or more annotation files, paths or fsspec URLs.
        videos: Root below which the files lie, in folders of any kind; path or fsspec URL.
        out: Manifest to write (Parquet).
        classes: stat.csv, whose first cells are the class names; without it, the labels sorted.
        splits: Split of each annotation file, in order; without it, the last column or the file's name tells it.
        task: Name of the task.
        bad_rows: Refuse annotations with rows that cannot be used, or leave the rows out and list them in the report.
        shared_videos: Report source videos with clips in several splits, or refuse them.
        window_s: Length of a training window; the report counts clips that are annotated as shorter.
    """
    with open_texts(annotations) as texts, open_texts([classes] if classes else []) as lists:
        names = vggsound.read_classes(lists[classes], what=classes) if classes else None
        made = vggsound.parse(texts, task=task, classes=names, splits=splits, bad_rows=bad_rows)
    return _write(made, videos, None, out, bad_rows, shared_videos, window_s)


def _epic_kitchens(
    *,
    annotations: tuple[str, ...],
    verbs: str,
    nouns: str,
    videos: str,
    out: str,
    video_info: str | None = None,
    short: epic_kitchens.Short = "keep",
    val_participants: tuple[str, ...] = (),
    splits: tuple[str, ...] = (),
    bad_rows: BadRows = "refuse",
    shared_videos: SharedVideos = "report",
    window_s: float = 1.0,
) -> Result:
    """Manifest from the files of EPIC-KITCHENS-55 or -100: tasks verb and noun, the participant as group.

    The header tells the edition; files of both are refused, because their class ids differ. Spans come from the time
    stamps, not the frame numbers. Files are found by the name of their video, as P01/videos/P01_01.MP4.

    Args:
        annotations: One or more annotation files of one edition, paths or fsspec URLs.
        videos: Root below which the files lie, in folders of any kind; path or fsspec URL.
        out: Manifest to write (Parquet).
        verbs: Verb classes of the same edition.
        nouns: Noun classes of the same edition.
        video_info: EPIC_video_info.csv or EPIC_100_video_info.csv: bounds spans by the length of the video.
        short: Keep segments shorter than a window as they are, or expand them around their centre.
        val_participants: Participants whose training segments become validation; edition 55 has no validation file.
        splits: Split of each annotation file, in order; without it, the file's name tells it.
        bad_rows: Refuse annotations with rows that cannot be used, or leave the rows out and list them in the report.
        shared_videos: Report source videos with clips in several splits, or refuse them.
        window_s: Length of a training window; the report counts clips that are annotated as shorter.
    """
    beside = [verbs, nouns, *([video_info] if video_info else [])]
    with open_texts(annotations) as texts, open_texts(beside) as lists:
        made = epic_kitchens.parse(
            texts,
            verbs=epic_kitchens.read_classes(lists[verbs], what=verbs, head="verb"),
            nouns=epic_kitchens.read_classes(lists[nouns], what=nouns, head="noun"),
            durations_s=epic_kitchens.read_durations(lists[video_info], what=video_info) if video_info else None,
            window_s=window_s,
            short=short,
            val_participants=val_participants,
            splits=splits,
            bad_rows=bad_rows,
        )
    return _write(made, videos, None, out, bad_rows, shared_videos, window_s)


def _sports1m(
    *,
    annotations: tuple[str, ...],
    classes: str,
    videos: str,
    out: str,
    splits: tuple[str, ...] = (),
    task: str = "sport",
    bad_rows: BadRows = "refuse",
    shared_videos: SharedVideos = "refuse",
    window_s: float = 1.0,
) -> Result:
    """Manifest from the partition files of Sports-1M: whole videos, several labels each, files named by video id.

    Args:
        annotations: One or more partition files, paths or fsspec URLs.
        videos: Root below which the files lie, in folders of any kind; path or fsspec URL.
        out: Manifest to write (Parquet).
        classes: labels.txt, one class name a line; labels count its lines from 0.
        splits: Split of each annotation file, in order; without it, the file's name tells it.
        task: Name of the task.
        bad_rows: Refuse annotations with rows that cannot be used, or leave the rows out and list them in the report.
        shared_videos: Refuse videos in several splits, as the cross-validation folds have them, or report them.
        window_s: Length of a training window; the report counts clips that are annotated as shorter.
    """
    with open_texts(annotations) as texts, open_texts([classes]) as lists:
        names = class_list(lists[classes], what=classes)
        made = sports1m.parse(texts, classes=names, task=task, splits=splits, bad_rows=bad_rows)
    return _write(made, videos, None, out, bad_rows, shared_videos, window_s)


def _list(videos: str) -> pa.Array:
    with progress(f"list {videos}", "files") as shown:
        found = list_files(videos)
        shown.step(len(found), None, "")
    return found


def _write(
    annotations: Annotations,
    videos: str,
    files: pa.Array | None,
    out: str,
    bad_rows: BadRows,
    shared_videos: SharedVideos,
    window_s: float,
) -> Result:
    out = absolute(out)
    files = _list(videos) if files is None else files
    with progress(f"find {annotations.table.num_rows} clips", "clips"):
        table, report = build(
            annotations, files=files, window_s=window_s, shared_videos=shared_videos, bad_rows=bad_rows
        )
    write_manifest(table, out)
    write_report(report, report_path(out))
    for line in report.lines():
        say(line)
    return Result(place=out, numbers={"report": report_path(out), **json.loads(report.to_json())})


manifest = {
    "kinetics": _kinetics,
    "audioset": _audioset,
    "vggsound": _vggsound,
    "epic-kitchens": _epic_kitchens,
    "sports1m": _sports1m,
    "folder": _folder,
    "csv": _csv,
}


if __name__ == "__main__":
    sys.exit(run(manifest, prog="python -m jobs.manifest"))
