r"""EPIC-KITCHENS-55 and -100: segments of untrimmed videos with a verb and a noun, the participant being the group.

The edition is told by the header. Class ids of the two editions differ, so annotations and class files must be of one
and the same, by their headers and by what their keys say. Times are taken from the time stamps alone: the frame numbers
count frames of an extraction nobody else has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute

from pipelines.annotations.cells import (
    BadRow,
    Text,
    checked_classes,
    columns_of,
    csv_rows,
    require_columns,
    split_of_file,
    splits_of_files,
    table_by_header,
    with_split,
)
from pipelines.annotations.table import Annotations, BadRows, Labels, Rows, to_mask

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""

Edition = Literal["55", "100"]

Short = Literal["keep", "expand"]
"""What becomes of segments shorter than a training window: kept, or widened around their centre."""

ROW_ID: dict[Edition, str] = {"55": "uid", "100": "narration_id"}
"""The column that tells the edition of annotations."""

NEEDED = ("participant_id", "video_id", "start_timestamp", "stop_timestamp")

LABELS = ("verb", "verb_class", "noun", "noun_class")

TIMESTAMP = r"^(?P<h>\d{1,3}):(?P<m>[0-5]\d):(?P<s>[0-5]\d)(?:\.(?P<f>\d{1,6}))?$"
"""Hours, minutes, seconds, and any number of digits of a fraction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Classes:
    """The classes of one head."""

    edition: Edition
    """Of the file they came from."""
    keys: tuple[str, ...]
    """Names, the position being the id."""
    what: str
    """Name of the file."""


def parse(
    texts: Mapping[str, Text],
    *,
    verbs: Classes,
    nouns: Classes,
    durations_s: Mapping[str, float] | None = None,
    window_s: float = 1.0,
    short: Short = "keep",
    val_participants: Sequence[str] = (),
    splits: Sequence[str] = (),
    bad_rows: BadRows = "refuse",
) -> Annotations:
    """Annotations from files of one edition by name; their split is told in ``splits``, else by their names.

    ``durations_s`` of videos, where they are known, bound the spans. Training segments of ``val_participants`` become
    validation: edition 55 has no validation files. Files without label columns have no labels.
    """
    bad: list[BadRow] = []
    told = splits_of_files(list(texts), splits)
    tables, editions = [], {}
    for number, (what, text) in enumerate(texts.items()):
        editions[what], cells = _cells(text, what, number, bad)
        tables.append(with_split(cells, told[what] or split_of_file(what)))
    edition = _one_edition(editions, verbs, nouns)
    rows = Rows(tables, sources=list(texts), bad=bad, bad_rows=bad_rows)
    videos = rows.matching(
        "video_id", r"^P\d\d_\d{2,3}$", lambda row: f"video_id {row['video_id']!r} is not like P01_01 or P01_101"
    )
    participants = rows.matching(
        "participant_id", r"^P\d\d$", lambda row: f"participant_id {row['participant_id']!r} is not like P01"
    )
    start_us, stop_us = _microseconds(rows, "start_timestamp"), _microseconds(rows, "stop_timestamp")
    rows.reject(
        pc.less_equal(stop_us, start_us),
        lambda row: f"stop {row['stop_timestamp']!r} is not after start {row['start_timestamp']!r}",
    )
    labels = [_labels(rows, "verb", verbs), _labels(rows, "noun", nouns)]
    duration_us = _durations_us(videos, durations_s)
    rows.reject(
        pc.greater_equal(start_us, duration_us),
        lambda row: f"start {row['start_timestamp']!r} is not inside video {row['video_id']}",
    )
    notes = _clip_notes(rows.good, stop_us, duration_us, durations_s)
    stop_us = pc.min_element_wise(stop_us, duration_us)
    length_us = pc.subtract(stop_us, start_us)
    if short == "expand":
        narrow = np.count_nonzero(to_mask(pc.less(length_us, round(window_s * 1e6))) & rows.good)
        start_us, stop_us = _expand(start_us, stop_us, duration_us, window_us=round(window_s * 1e6))
        notes.append(f"{narrow} segments shorter than {window_s:g} s were widened around their centre")
    columns = {
        "name": videos,
        "split": _splits(rows, participants, val_participants),
        "start_s": _seconds(start_us),
        "end_s": _seconds(stop_us),
        "length_s": _seconds(length_us),
        "clip_id": rows["id"] if edition == "100" else pc.binary_join_element_wise(videos, rows["id"], "_uid"),
        "group": participants,
        "video": videos,
    }
    return rows.finish(columns, labels, matched_by="stem", notes=notes)


def read_classes(text: Text, *, what: str, head: Literal["verb", "noun"]) -> Classes:
    r"""Classes of a head from a class file of either edition.

    >>> read_classes("verb_id,class_key,verbs\n0,take,['take']\n", what="EPIC_verb_classes.csv", head="verb").edition
    '55'
    """
    rows = csv_rows(text, what=what)
    _, first = next(rows, (0, []))
    header = [cell.strip() for cell in first]
    forms: dict[Edition, tuple[str, str]] = {"55": (f"{head}_id", "class_key"), "100": ("id", "key")}
    if set(forms["55"]) <= set(header):
        edition: Edition = "55"
    elif set(forms["100"]) <= set(header):
        edition = "100"
    else:
        raise ValueError(
            f"{what} is not a file of {head} classes; its header is: {', '.join(header) or 'empty'}; "
            f"it must have {' and '.join(forms['55'])} (edition 55) or {' and '.join(forms['100'])} (edition 100)"
        )
    number, key = forms[edition]
    named = [(row[header.index(number)].strip(), row[header.index(key)].strip()) for _, row in rows]
    if [number for number, _ in named] != [str(position) for position in range(len(named))]:
        raise ValueError(f"{what}: the class ids must count from 0; take the original file")
    return Classes(edition=edition, keys=checked_classes([name for _, name in named], what=what), what=what)


def read_durations(text: Text, *, what: str) -> dict[str, float]:
    r"""Length of every video in seconds, from ``EPIC_video_info.csv`` or ``EPIC_100_video_info.csv``.

    >>> read_durations("video,resolution,duration,fps\nP01_01,1920x1080,1652.15,59.94\n", what="EPIC_video_info.csv")
    {'P01_01': 1652.15}
    """
    whole = text if isinstance(text, str) else str(text.read())
    header = whole.removeprefix("\ufeff").partition("\n")[0].split(",")
    video = "video_id" if "video_id" in header else "video"
    table = table_by_header(whole, what=what, wanted=(video, "duration"))
    try:
        return {row[video]: float(row["duration"]) for row in table}
    except ValueError as error:
        raise ValueError(f"{what}: a duration is no number of seconds: {error}") from None


def _cells(text: Text, what: str, source: int, bad: list[BadRow]) -> tuple[Edition, pa.Table]:
    rows = csv_rows(text, what=what)
    _, first = next(rows, (0, []))
    header = [cell.strip() for cell in first]
    if "uid" in header:
        edition: Edition = "55"
    elif "narration_id" in header:
        edition = "100"
    else:
        raise ValueError(
            f"{what} has neither the column uid (edition 55) nor narration_id (edition 100); "
            f"its header is: {', '.join(header) or 'empty'}"
        )
    require_columns(header, NEEDED, what=what)
    if ("verb_class" in header) != ("noun_class" in header):
        raise ValueError(f"{what} must have both verb_class and noun_class, or neither; its header is: {header}")
    wanted = {ROW_ID[edition]: "id", **{name: name for name in (*NEEDED, *LABELS)}}
    names = [wanted.get(name, "") for name in header]
    return edition, columns_of(rows, names, what=what, source=source, bad=bad)


def _one_edition(editions: Mapping[str, Edition], verbs: Classes, nouns: Classes) -> Edition:
    every = {**editions, verbs.what: verbs.edition, nouns.what: nouns.edition}
    if len(set(every.values())) > 1:
        told = ", ".join(f"{what} ({edition})" for what, edition in every.items())
        raise ValueError(f"the class ids of EPIC-KITCHENS-55 and -100 differ; take files of one edition, not {told}")
    return verbs.edition


def _labels(rows: Rows, head: str, classes: Classes) -> Labels:
    """One head's classes; rows of files without label columns have none."""
    column = f"{head}_class"
    labelled = pc.is_valid(rows[column])
    rows.reject(
        pc.and_(labelled, pc.equal(rows[column], "")),
        lambda row: f"{column} is empty: the narration names no valid {head}",
    )
    ids = [str(position) for position in range(len(classes.keys))]
    labels = rows.labels(column, head, classes=classes.keys, keys=ids)
    rows.reject(labels.unknown, lambda row: f"{column} {row[column]!r} is none of the {len(ids)} in {classes.what}")
    # The word a class is called by belongs to it in its own edition; in the other one it has another id.
    called = pc.index_in(rows[head], pa.array(classes.keys, pa.string()))
    agree = to_mask(pc.equal(called, labels.column))
    told = to_mask(pc.and_(pc.is_valid(called), pc.is_valid(labels.column)))
    if np.count_nonzero(agree) * 2 < np.count_nonzero(told):
        first = int(np.flatnonzero(told & ~agree)[0])
        raise ValueError(
            f"{classes.what} does not fit the annotations: {head} {rows[head][first].as_py()!r} has class "
            f"{rows[column][first].as_py()} there and {called[first].as_py()} here; take the class file of one edition"
        )
    return labels


def _microseconds(rows: Rows, name: str) -> Any:
    """Time stamps as whole microseconds: sums of decimal fractions would not be the number that is written."""
    text = rows.matching(name, TIMESTAMP, lambda row: f"{name} {row[name]!r} is not HH:MM:SS.ff")
    parts = pc.extract_regex(text, TIMESTAMP)
    hours, minutes, seconds = (pc.cast(pc.struct_field(parts, key), pa.int64()) for key in "hms")
    fraction = pc.utf8_rpad(pc.struct_field(parts, "f"), 6, "0")
    whole = pc.add(pc.multiply(pc.add(pc.multiply(hours, 60), minutes), 60), seconds)
    return pc.add(pc.multiply(whole, 1_000_000), pc.cast(fraction, pa.int64()))


def _seconds(microseconds: Any) -> Any:
    return pc.divide(pc.cast(microseconds, pa.float64()), 1e6)


def _durations_us(videos: Any, durations_s: Mapping[str, float] | None) -> Any:
    if not durations_s:
        return pa.nulls(len(videos), pa.int64())
    known = pa.array([int(duration * 1e6) for duration in durations_s.values()], pa.int64())
    return known.take(pc.index_in(videos, pa.array(list(durations_s), pa.string())))


def _clip_notes(good: np.ndarray, stop_us: Any, duration_us: Any, durations_s: Mapping[str, float] | None) -> list[str]:
    if durations_s is None:
        return []
    late = np.count_nonzero(to_mask(pc.greater(stop_us, duration_us)) & good)
    unknown = np.count_nonzero(to_mask(pc.is_null(duration_us)) & good)
    notes = [f"{late} segments ended after their video and were cut to it"] if late else []
    return notes + ([f"{unknown} segments are of videos whose length is not known"] if unknown else [])


def _expand(start_us: Any, stop_us: Any, duration_us: Any, *, window_us: int) -> tuple[Any, Any]:
    """Starts and ends of spans at least a window long, around the same centre where the video reaches so far.

    >>> start, stop = pa.array([100, 0, 900]), pa.array([300, 9, 1000])
    >>> start, stop = _expand(start, stop, pa.array([None, None, 1000]), window_us=500)
    >>> start.to_pylist(), stop.to_pylist()
    ([0, 0, 500], [500, 500, 1000])
    """
    narrow = pc.less(pc.subtract(stop_us, start_us), window_us)
    centred = pc.subtract(pc.divide(pc.add(start_us, stop_us), 2), window_us // 2)
    latest = pc.subtract(duration_us, window_us)
    start = pc.max_element_wise(pc.min_element_wise(centred, latest), 0)
    stop = pc.min_element_wise(pc.add(start, window_us), duration_us)
    return pc.if_else(narrow, start, start_us), pc.if_else(narrow, stop, stop_us)


def _splits(rows: Rows, participants: Any, val_participants: Sequence[str]) -> Any:
    if not val_participants:
        return rows["split"]
    known = set(pc.unique(participants).to_pylist())
    for name in val_participants:
        if name not in known:
            raise ValueError(
                f"--val-participants: {name!r} has no segment; there are {', '.join(sorted(known - {None}))}"
            )
    theirs = pc.is_in(participants, pa.array(val_participants, pa.string()))
    return pc.if_else(pc.and_(theirs, pc.equal(rows["split"], "train")), "val", rows["split"])
