"""Sports-1M: lines ``URL label[,label...]``, the labels being line numbers of ``labels.txt`` counted from 0.

A clip is a whole video, named by its id. Several labels a video. The cross-validation folds put one video into train
and test at once, which is why the job refuses such annotations unless told otherwise.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow.compute

from pipelines.annotations.cells import BadRow, Text, columns_of, split_of_file, splits_of_files, text_lines, with_split
from pipelines.annotations.table import Annotations, BadRows, Rows

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""

URL = r"^(https?://)?(www\.)?(youtube\.com/watch\?(.*&)?v=|youtu\.be/)"
"""What stands before the id."""


def parse(
    texts: Mapping[str, Text],
    *,
    classes: Sequence[str],
    task: str = "sport",
    splits: Sequence[str] = (),
    bad_rows: BadRows = "refuse",
) -> Annotations:
    r"""Annotations from partition files by name; their split is told in ``splits``, else by their names.

    >>> text = "https://www.youtube.com/watch?v=UDqivjS-lpI 1,0\n"
    >>> parse({"test_partition.txt": text}, classes=("boomerang", "boxing")).table["label.sport"].to_pylist()
    [[1, 0]]
    """
    bad: list[BadRow] = []
    told = splits_of_files(list(texts), splits)
    tables = []
    for number, (what, text) in enumerate(texts.items()):
        cells = columns_of(_pairs(text, what), ("url", "labels"), what=what, source=number, bad=bad)
        cells = cells.append_column("id", pc.replace_substring_regex(cells["url"], URL, ""))
        tables.append(with_split(cells, told[what] or split_of_file(what)))
    rows = Rows(tables, sources=list(texts), bad=bad, bad_rows=bad_rows)
    ids = rows.video_ids()
    labels = rows.many_labels(
        "labels",
        task,
        separator=",",
        kind="multi",
        classes=classes,
        keys=[str(number) for number in range(len(classes))],
    )
    rows.require_known(labels, "labels", where=f"the class list, which counts from 0 to {len(classes) - 1}")
    rows.reject(pc.is_null(labels.column), lambda row: "no label")
    columns = {"name": ids, "split": rows["split"], "group": ids, "video": ids}
    return rows.finish(columns, [labels], matched_by="stem")


def _pairs(text: Text, what: str) -> Iterator[tuple[int, list[str]]]:
    for line, entry in text_lines(text, what=what):
        yield line, entry.split(maxsplit=1)
