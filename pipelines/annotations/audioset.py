"""AudioSet: ``# YTID, start_seconds, end_seconds, positive_labels`` below two comment lines, several labels a clip.

Copies without the comments or the blanks read alike. Copies that a spreadsheet or a broken download has damaged are
refused whole: what they lost cannot be seen row by row. File names differ from copy to copy, hence the templates.
"""

import os
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute

from pipelines.annotations.cells import (
    BadRow,
    Text,
    checked_classes,
    columns_of,
    csv_rows,
    split_of_file,
    splits_of_files,
    table_by_header,
    with_split,
)
from pipelines.annotations.files import MEDIA_ENDINGS, are_media, stems
from pipelines.annotations.table import Annotations, BadRows, Rows, flat, give_back

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""

Holds = Literal["clips", "sources"]
"""Whether a file is the segment, cut already, or the whole source video."""

COLUMNS = {"YTID": "id", "start_seconds": "start", "end_seconds": "end", "positive_labels": "labels"}
"""Header names to ours."""

TEMPLATES = (
    "{id}",
    "Y{id}",
    "{id}_{start_ms}_{end_ms}",
    "Y{id}_{start_ms}_{end_ms}",
    "{id}_{start_s}_{end_s}",
    "{id}_{start_ms}",
    "{id}_{start_s}",
    "{id}_{start_s:06}",
    "{id}_{start_s:06}_{end_s:06}",
)
"""File names, without ending, that copies are known to use."""

TRIED = 20_000
"""Rows whose names are looked for when a template is chosen."""


def parse(
    texts: Mapping[str, Text],
    *,
    classes: Mapping[str, str],
    task: str = "event",
    splits: Sequence[str] = (),
    bad_rows: BadRows = "refuse",
) -> Annotations:
    r"""Annotations from segment files by name; `name_files` gives them file names.

    ``classes`` are mids with their names, in the order of their indices, see `read_classes`. The split of a file is
    told in ``splits``, else by its name: ``eval`` is test.

    >>> text = '# YTID, start_seconds, end_seconds, positive_labels\n--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/0bt9lr"\n'
    >>> parse({"eval.csv": text}, classes={"/m/0bt9lr": "Dog", "/m/068hy": "Animal"}).table["label.event"].to_pylist()
    [[1, 0]]
    """
    bad: list[BadRow] = []
    notes: list[str] = []
    told = splits_of_files(list(texts), splits)
    tables = []
    for number, (what, text) in enumerate(texts.items()):
        cells = _cells(text, what, number, bad, notes)
        tables.append(with_split(cells, told[what] or split_of_file(what)))
    rows = Rows(tables, sources=list(texts), bad=bad, bad_rows=bad_rows)
    tables.clear()  # `rows` lets go of the text as soon as it can.
    ids = rows.video_ids()
    start_s, end_s = rows.seconds("start"), rows.seconds("end")
    rows.reject(pc.or_(pc.is_null(start_s), pc.is_null(end_s)), lambda row: "start or end is empty")
    rows.require_spans(start_s, end_s)
    labels = rows.many_labels(
        "labels", task, separator=",", kind="multi", keys=list(classes), classes=list(classes.values())
    )
    rows.require_known(labels, "labels", where="the class file")
    rows.reject(pc.is_null(labels.column), lambda row: "positive_labels is empty")
    columns = {
        "name": ids,
        "split": rows["split"],
        "start_s": start_s,
        "end_s": end_s,
        "length_s": pc.subtract(end_s, start_s),
        "group": ids,
        "video": ids,
    }
    return rows.finish(columns, [labels], matched_by="stem", notes=notes)


def read_classes(text: Text, *, what: str) -> dict[str, str]:
    r"""Mid to name, in the order of the indices, from ``class_labels_indices.csv``.

    >>> read_classes('index,mid,display_name\n0,/m/09x0r,"Speech"\n', what="class_labels_indices.csv")
    {'/m/09x0r': 'Speech'}
    """
    table = table_by_header(text, what=what, wanted=("index", "mid", "display_name"))
    if [row["index"] for row in table] != [str(number) for number in range(len(table))]:
        raise ValueError(f"{what}: the column index must count from 0; take the original file")
    names = checked_classes([row["display_name"] for row in table], what=what)
    mids = checked_classes([row["mid"] for row in table], what=what)
    return dict(zip(mids, names, strict=True))


def name_files(annotations: Annotations, *, paths: Any, template: str | None = None, holds: Holds) -> Annotations:
    """The annotations with file names to look for, and with spans only where a file is a whole source.

    Without a template, the one of `TEMPLATES` is taken that finds the most files.
    """
    chosen = template or _best_template(annotations, paths)
    stem, ending = os.path.splitext(chosen)
    if ending.lower() not in MEDIA_ENDINGS:
        stem, ending = chosen, ""
    give_back()
    table = annotations.table
    names = _rendered(stem, table)
    table = table.set_column(table.column_names.index("name"), "name", names)
    if holds == "clips":
        for name in ("start_s", "end_s"):
            nothing = pa.nulls(table.num_rows, pa.float64())
            table = table.set_column(table.column_names.index(name), name, nothing)
    notes = (*annotations.notes, f"files are named {chosen!r} and are taken as {holds}")
    return replace(annotations, table=table, ending=ending or None, notes=notes)


def _best_template(annotations: Annotations, paths: Any) -> str:
    table = annotations.table
    table = table.take(pa.array(range(0, table.num_rows, max(1, table.num_rows // TRIED))))
    present = stems(paths.filter(pa.array(are_media(paths))))
    hits = {template: pc.sum(pc.is_in(present, _rendered(template, table))).as_py() or 0 for template in TEMPLATES}
    best = max(hits, key=lambda template: hits[template])
    if not hits[best]:
        raise ValueError(
            f"no media file below the video root is named like {', '.join(TEMPLATES)} with an id of the annotations; "
            f"say how with --template (found, for example: {', '.join(present.slice(0, 3).to_pylist()) or 'none'})"
        )
    return best


def _rendered(template: str, table: pa.Table) -> Any:
    """File names of a table's rows."""
    start_s, end_s = flat(table["start_s"]), flat(table["end_s"])
    fields = {
        "id": lambda: flat(table["video"]),
        "start_ms": lambda: _whole(pc.multiply(start_s, 1000.0)),
        "end_ms": lambda: _whole(pc.multiply(end_s, 1000.0)),
        "start_s": lambda: _whole(pc.floor(start_s)),
        "end_s": lambda: _whole(pc.floor(end_s)),
    }
    parts = []
    for literal, field, width, _ in string.Formatter().parse(template):
        parts.append(pa.scalar(literal, pa.string()))
        if field is None:
            continue
        if field not in fields or not re.fullmatch(r"(0?\d+)?", width or "") or "/" in literal:
            raise ValueError(
                f"template {template!r} is not understood; it is a file name made of {{id}}, {{start_ms}}, {{end_ms}}, "
                "{start_s} and {end_s}, these with a width such as {start_s:06}"
            )
        value = fields[field]()
        parts.append(pc.utf8_lpad(value, int(width), "0") if width else value)
    if not any(isinstance(part, pa.Array) for part in parts):
        raise ValueError(f"template {template!r} names one file for all clips; it needs at least {{id}}")
    return pc.binary_join_element_wise(*parts, "")


def _whole(values: Any) -> Any:
    return pc.cast(pc.cast(pc.round(values), pa.int64()), pa.string())


def _cells(text: Text, what: str, source: int, bad: list[BadRow], notes: list[str]) -> pa.Table:
    rows = csv_rows(text, what=what)
    header, declared = [], None
    for line, row in rows:
        if row[0].startswith("#") and not row[-1].strip():
            raise ValueError(
                f"{what}, line {line} is padded with commas: a spreadsheet has rewritten this file, which destroys ids "
                "that begin with '-' and scatters labels over columns; take the original file"
            )
        header = [cell.strip() for cell in (row[0].lstrip("# "), *row[1:])]
        counted = [cell for cell in header if cell.startswith("num_segs=")]
        declared = int(counted[0].removeprefix("num_segs=")) if counted else declared
        if not row[0].startswith("#") or "YTID" in header:
            break
    if sorted(header) != sorted(COLUMNS):
        raise ValueError(
            f"{what} has no header line; it must name {', '.join(COLUMNS)}, and the first line that is no comment is: "
            f"{', '.join(header)[:80] or 'missing'}"
        )
    last = [0]
    before = len(bad)
    cells = columns_of(
        _counting(rows, last, what), [COLUMNS[name] for name in header], what=what, source=source, bad=bad
    )
    cut = [row for row in bad[before:] if row.line == last[0] and row.reason[0] < "4"]
    if cut:
        raise ValueError(f"{what}, line {last[0]}: the file ends in the middle of a row; download it again")
    held = cells.num_rows + len(bad) - before
    if declared is not None and declared != held:
        notes.append(f"{what} says it has {declared} segments and holds {held}")
    return cells


def _counting(rows: Iterator[tuple[int, list[str]]], last: list[int], what: str) -> Iterator[tuple[int, list[str]]]:
    """The rows, with the number of the last line kept; an id that a spreadsheet took for a formula is an error."""
    for line, row in rows:
        last[0] = line
        if row[0] == "#NAME?":
            raise ValueError(
                f"{what}, line {line}: '#NAME?' is what a spreadsheet makes of an id that begins with '-'; "
                "take the original file"
            )
        yield line, row
