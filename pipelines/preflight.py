"""Annotations and the files below a video root to a clip manifest and a report, before any work is spent.

What is missing on disk is a count and a list, not an error, because real datasets lose videos all the time. Whole
columns are joined and compared at once: two million clips take seconds and stay far below a gigabyte.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute
from fsspec.core import url_to_fs

from pipelines.annotations.cells import BadRow
from pipelines.annotations.files import are_media, as_paths, locate
from pipelines.annotations.generic import LABEL_SEPARATOR
from pipelines.annotations.ids import make_clip_ids
from pipelines.annotations.table import FIELDS, Annotations, BadRows, flat, give_back
from pipelines.manifest import repeated_rows
from schemas.manifest import SPLITS, manifest_schema

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""

SharedVideos = Literal["report", "refuse"]
"""What becomes of source videos with clips in several splits: a list in the report, or an error."""

SHOWN = 20
"""Names of each list that people are shown; the report file has all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """What a manifest covers. ``annotated`` = ``found`` + ``missing_clips`` + ``duplicates`` + ``bad``, as counts."""

    annotated: int
    """Rows of the annotations."""
    found: int
    """Rows of the manifest: those whose file exists, repeated ones counted once."""
    missing_clips: int
    """Rows whose file does not exist."""
    missing: tuple[str, ...]
    """Annotated files that do not exist, sorted, each once."""
    duplicates: tuple[str, ...]
    """Ids of rows that repeat an earlier one word for word and were left out."""
    ignored: tuple[str, ...]
    """Media files below the root that no row names, sorted."""
    bad: tuple[BadRow, ...]
    """Rows that cannot be used and were left out, with the reason."""
    window_s: float
    """Length of a training window."""
    short: tuple[str, ...]
    """Ids of clips in the manifest that are annotated as shorter than a window."""
    ambiguous: tuple[str, ...]
    """Clips of which several files below the root have the name and none is better; the first was taken."""
    shared_videos: dict[str, tuple[str, ...]]
    """Source video -> the splits, more than one, in which it has clips."""
    histogram: dict[str, dict[str, dict[str, int]]]
    """Task -> split -> class -> clips."""
    notes: tuple[str, ...]
    """What else was noticed."""

    def lines(self) -> list[str]:
        """The report, for people."""
        told = [
            f"annotated {self.annotated}, found {self.found}, missing files {len(self.missing)}, "
            f"duplicates {len(self.duplicates)}, ignored media files {len(self.ignored)}",
            f"bad rows {len(self.bad)}, clips shorter than {self.window_s:g} s {len(self.short)}, "
            f"ambiguous files {len(self.ambiguous)}, videos in several splits {len(self.shared_videos)}",
        ]
        told += [f"note: {note}" for note in self.notes]
        shared = [f"{video} ({', '.join(splits)})" for video, splits in self.shared_videos.items()]
        for what, names in (
            ("missing", self.missing),
            ("duplicate", self.duplicates),
            ("ignored", self.ignored),
            ("bad row", self.bad),
            ("ambiguous", self.ambiguous),
            ("in several splits", shared),
        ):
            told += [f"{what}: {name}" for name in names[:SHOWN]]
            if len(names) > SHOWN:
                told.append(f"{what}: ... and {len(names) - SHOWN} more")
        for task, splits in self.histogram.items():
            for split, classes in splits.items():
                shown = ", ".join(f"{name} {count}" for name, count in list(classes.items())[:SHOWN])
                more = f", ... {len(classes) - SHOWN} more classes" if len(classes) > SHOWN else ""
                told.append(f"{task}, {split}: {sum(classes.values())} labels: {shown}{more}")
        return told

    def to_json(self) -> str:
        """The whole report."""
        return json.dumps(asdict(self), indent=1) + "\n"


def build(
    annotations: Annotations,
    *,
    files: Iterable[str] | pa.Array,
    window_s: float = 1.0,
    shared_videos: SharedVideos = "report",
    bad_rows: BadRows = "refuse",
) -> tuple[pa.Table, Preflight]:
    """The manifest of the annotated clips whose files exist, in annotation order, and the report on all of them.

    Rows may repeat each other word for word; two that share an id and nothing else are an error, or bad rows.
    """
    paths = as_paths(files)
    table = annotations.table
    total = table.num_rows + len(annotations.bad)
    located = locate(annotations, paths)
    give_back()
    found = located.position >= 0
    if not found.any():
        asked = ", ".join(table["name"].slice(0, 3).to_pylist())
        raise ValueError(f"none of the {total} annotated files exists below the video root; looked for {asked}, ...")
    # A file that is missing goes by the name it was looked for: repeated rows are found all the same.
    uri = _or_else(paths.take(pa.array(located.position, mask=~found)), flat(table["name"]))
    clip_id = _or_else(flat(table["clip_id"]), make_clip_ids(uri, table["start_s"], table["end_s"]))
    repeats, firsts = repeated_rows(clip_id)
    give_back()
    conflicts = _conflicts(annotations, table, uri, clip_id, repeats, firsts)
    if conflicts and bad_rows == "refuse":
        raise ValueError(str(next(iter(conflicts.values()))))
    unique = np.ones(table.num_rows, bool)
    unique[repeats] = False
    kept = np.flatnonzero(unique & found)
    keep = pa.array(kept)
    shared = _shared(table, uri, unique)
    give_back()
    if shared and shared_videos == "refuse":
        video, splits = next(iter(shared.items()))
        raise ValueError(
            f"{len(shared)} videos have clips in several splits, such as {video} in {' and '.join(splits)}; "
            "correct the annotations, or accept the leak with --shared-videos report"
        )
    used = np.zeros(len(paths), bool)
    used[located.position[found]] = True
    missing = _sorted(pc.unique(uri.filter(pa.array(unique & ~found))))
    ambiguous = _sorted(uri.filter(pa.array(located.ambiguous & unique)))
    duplicates = clip_id.take(pa.array([p for p in repeats.tolist() if p not in conflicts], pa.int64())).to_pylist()
    uris = uri.take(keep)
    clip_ids = uris if clip_id is uri else clip_id.take(keep)
    del uri, clip_id  # Millions of paths: one copy is enough, and what the joins took is given back before the rest.
    give_back()
    columns: dict[str, Any] = {name: flat(table[name]).take(keep) for name in ("start_s", "end_s", "split")}
    columns |= {"clip_id": clip_ids, "uri": uris, "group": _or_else(flat(table["group"]).take(keep), uris)}
    columns |= {task.column: flat(table[task.column]).take(keep) for task in annotations.tasks}
    schema = manifest_schema(annotations.tasks)
    manifest = pa.table([columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema)
    length_s = flat(table["length_s"]).to_numpy(zero_copy_only=False)[kept]
    report = Preflight(
        annotated=total,
        found=manifest.num_rows,
        missing_clips=int(np.count_nonzero(unique & ~found)),
        missing=missing,
        duplicates=tuple(duplicates),
        ignored=_sorted(paths.filter(pa.array(are_media(paths) & ~used))),
        bad=(*annotations.bad, *conflicts.values()),
        window_s=window_s,
        short=tuple(clip_ids.filter(pa.array(length_s < window_s)).to_pylist()),
        ambiguous=ambiguous,
        shared_videos=shared,
        histogram=_histogram(annotations, manifest),
        notes=annotations.notes,
    )
    return manifest, report


def report_path(out: str) -> str:
    """Where the report on a manifest lies.

    >>> report_path("s3://b/clips.parquet")
    's3://b/clips.report.json'
    """
    return out.removesuffix(".parquet") + ".report.json"


def write_report(report: Preflight, out: str) -> None:
    """Write a report as JSON, whole or not at all."""
    fs, path = url_to_fs(out)
    temporary = f"{path}.tmp-{os.getpid()}"
    fs.pipe_file(temporary, report.to_json().encode())
    fs.mv(temporary, path)


def _or_else(given: Any, otherwise: Any) -> Any:
    """Given text, and other text where there is none."""
    if not given.null_count:
        return given
    if given.null_count == len(given):
        return otherwise
    return pc.coalesce(given, otherwise)


def _conflicts(
    annotations: Annotations, table: pa.Table, uri: Any, clip_id: Any, repeats: np.ndarray, firsts: np.ndarray
) -> dict[int, BadRow]:
    """Rows with the id of another that are not that row written twice: a clip or a label would be lost silently."""
    conflicts: dict[int, BadRow] = {}
    compared = [name for name in FIELDS if name not in ("name", "clip_id", "source", "line")]
    columns = {"uri": uri, **{name: flat(table[name]) for name in compared}}
    columns |= {task.column: flat(table[task.column]) for task in annotations.tasks}
    for name, column in columns.items():
        here, there = column.take(pa.array(repeats)), column.take(pa.array(firsts))
        if here.equals(there):
            continue
        for position, one, other in zip(repeats.tolist(), there.to_pylist(), here.to_pylist(), strict=True):
            if one == other or position in conflicts:
                continue
            classes = next((task.classes for task in annotations.tasks if task.column == name), None)
            one, other = (_spelled(value, classes) for value in (one, other))
            source, line = table["source"][position].as_py(), table["line"][position].as_py()
            conflicts[position] = BadRow(
                source="" if source is None else annotations.sources[source],
                line=line or 0,
                reason=f"two rows share the clip id {clip_id[position].as_py()!r} but differ in {name}: "
                f"{one!r} and {other!r}; ids are unique, and several labels of one clip go into one cell, "
                f"separated by {LABEL_SEPARATOR!r}",
            )
    return dict(sorted(conflicts.items()))


def _spelled(value: Any, classes: tuple[str, ...] | None) -> Any:
    if classes is None or value is None:
        return value
    return [classes[index] for index in value] if isinstance(value, list) else classes[value]


def _shared(table: pa.Table, uri: Any, unique: np.ndarray) -> dict[str, tuple[str, ...]]:
    """Source videos with clips in several splits."""
    split = pc.index_in(flat(table["split"]), pa.array(SPLITS)).to_numpy()[unique].astype(np.int64)
    if len(np.unique(split)) < 2:
        return {}
    videos = _or_else(flat(table["video"]), uri).filter(pa.array(unique)).dictionary_encode()
    codes = videos.indices.to_numpy()
    lowest, highest = np.full(len(videos.dictionary), len(SPLITS)), np.full(len(videos.dictionary), -1)
    np.minimum.at(lowest, codes, split)
    np.maximum.at(highest, codes, split)
    several = np.flatnonzero(lowest < highest)
    told = np.zeros((len(several), len(SPLITS)), bool)
    mine = np.isin(codes, several)
    told[np.searchsorted(several, codes[mine]), split[mine]] = True
    names = videos.dictionary.take(pa.array(several)).to_pylist()
    return {
        name: tuple(s for s, there in zip(SPLITS, row, strict=True) if there)
        for name, row in sorted(zip(names, told.tolist(), strict=True))
    }


def _histogram(annotations: Annotations, manifest: pa.Table) -> dict[str, dict[str, dict[str, int]]]:
    histogram: dict[str, dict[str, dict[str, int]]] = {task.name: {} for task in annotations.tasks}
    for split in SPLITS:
        mine = pc.equal(flat(manifest["split"]), split)
        for task in annotations.tasks:
            labels = flat(manifest[task.column]).filter(mine)
            values = (labels.flatten() if task.kind == "multi" else labels).drop_null()
            counts = np.bincount(values.to_numpy(), minlength=len(task.classes))
            named = sorted((name, int(count)) for name, count in zip(task.classes, counts, strict=True) if count)
            if named:
                histogram[task.name][split] = dict(named)
    return histogram


def _sorted(names: Any) -> tuple[str, ...]:
    return tuple(names.take(pc.sort_indices(names)).to_pylist())
