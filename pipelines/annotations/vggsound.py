r"""VGGSound: ``id,start,label,split`` without a header, or the ``ID_SSSSSS.mp4,label`` of its train.csv and test.csv.

The one set whose columns are told by position. A clip is a file ``ID_SSSSSS``, ten seconds from second SSSSSS, cut
already. Labels hold commas.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

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
    with_split,
)
from pipelines.annotations.table import Annotations, BadRows, Rows

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""

CLASSES = 309
"""How many classes the whole set has."""

LENGTH_S = 10.0
"""How long every clip is said to be."""


def parse(
    texts: Mapping[str, Text],
    *,
    task: str = "sound",
    classes: Sequence[str] | None = None,
    splits: Sequence[str] = (),
    bad_rows: BadRows = "refuse",
) -> Annotations:
    r"""Annotations from the files by name; the split of a two-column file is told in ``splits``, else by its name.

    >>> parse({"vggsound.csv": '---g-f_I2yQ,1,"people marching, slowly",test\n'}).table["name"].to_pylist()
    ['---g-f_I2yQ_000001']
    """
    bad: list[BadRow] = []
    told = splits_of_files(list(texts), splits)
    tables = [_cells(text, what, number, told[what], bad) for number, (what, text) in enumerate(texts.items())]
    rows = Rows(tables, sources=list(texts), bad=bad, bad_rows=bad_rows)
    ids, start = rows.video_ids(), rows.whole_seconds("start")
    split = rows.splits()
    rows.reject(pc.equal(rows["label"], ""), lambda row: "label is empty")
    labels = rows.labels("label", task, classes=classes)
    rows.require_known(labels, "label", where="the class list")
    few = len(labels.task.classes) != CLASSES
    notes = [f"{len(labels.task.classes)} classes; the whole set has {CLASSES}"] if few else []
    columns = {
        "name": pc.binary_join_element_wise(ids, start, "_"),
        "split": split,
        "length_s": pa.repeat(pa.scalar(LENGTH_S), len(rows.good)),
        "group": ids,
        "video": ids,
    }
    return rows.finish(columns, [labels], matched_by="stem", notes=notes)


def read_classes(text: Text, *, what: str) -> tuple[str, ...]:
    r"""Class names from ``stat.csv``: the first cell of every line.

    >>> read_classes('ambulance siren,1050,vehicle\n"pigeon, dove cooing",900,animals', what="stat.csv")
    ('ambulance siren', 'pigeon, dove cooing')
    """
    return checked_classes([row[0].strip() for _, row in csv_rows(text, what=what)], what=what)


def _cells(text: Text, what: str, source: int, told: str | None, bad: list[BadRow]) -> pa.Table:
    rows = csv_rows(text, what=what)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{what} has no rows")
    width = len(first[1])
    if width == 4:
        names = ("id", "start", "label", "split")
        return columns_of(chain([first], rows), names, what=what, source=source, bad=bad)
    if width != 2:
        raise ValueError(
            f"{what}, line {first[0]}: {width} cells; VGGSound has id,start,label,split or file,label in every line"
        )
    cells = columns_of(chain([first], rows), ("file", "label"), what=what, source=source, bad=bad)
    stem = pc.replace_substring_regex(cells["file"], r"\.[^.]*$", "")
    parts = [pc.utf8_slice_codeunits(stem, 0, 11), pc.utf8_slice_codeunits(stem, 12)]
    cells = cells.append_column("id", parts[0]).append_column("start", parts[1])
    return with_split(cells, told or split_of_file(what))
