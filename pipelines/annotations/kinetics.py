r"""Kinetics-400, -600 and -700: ``label,youtube_id,time_start,time_end,split`` and its older and shorter forms.

A clip is a file ``ID_SSSSSS_EEEEEE`` cut from the video already, wherever it lies below the root: flat per split, in
class folders, or with underscores in their names. Ids may begin with ``-`` and hold ``_``, so nothing is split there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipelines.annotations.cells import (
    BadRow,
    Text,
    columns_of,
    csv_rows,
    require_columns,
    split_of_file,
    splits_of_files,
    with_split,
)
from pipelines.annotations.table import Annotations, BadRows, Rows

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""

COLUMNS = {
    "label": "label",
    "label-name": "label",
    "youtube_id": "id",
    "video-id": "id",
    "time_start": "start",
    "start-time": "start",
    "time_end": "end",
    "end-time": "end",
    "split": "split",
}
"""Header names of the official files and of the older crawler's, to ours; others, such as ``is_cc``, are ignored."""


def parse(
    texts: Mapping[str, Text],
    *,
    task: str = "action",
    classes: Sequence[str] | None = None,
    splits: Sequence[str] = (),
    bad_rows: BadRows = "refuse",
) -> Annotations:
    r"""Annotations from CSV files by name.

    A file without the column ``split`` holds the split told in ``splits``, else the one in its name. Without
    ``classes`` they are the labels that occur, sorted. Only test clips may have no label.

    >>> made = parse({"k.csv": "label,youtube_id,time_start,time_end,split\nabseiling,-_3456789ab,4,14,validate\n"})
    >>> made.table.select(["name", "split", "group"]).to_pylist()
    [{'name': '-_3456789ab_000004_000014', 'split': 'val', 'group': '-_3456789ab'}]
    """
    bad: list[BadRow] = []
    told = splits_of_files(list(texts), splits)
    tables = [_cells(text, what, number, told[what], bad) for number, (what, text) in enumerate(texts.items())]
    rows = Rows(tables, sources=list(texts), bad=bad, bad_rows=bad_rows)
    ids = rows.video_ids()
    start, end = rows.whole_seconds("start"), rows.whole_seconds("end")
    length_s = pc.subtract(pc.cast(end, pa.float64()), pc.cast(start, pa.float64()))
    rows.require_spans(pc.cast(start, pa.float64()), pc.cast(end, pa.float64()))
    split = rows.splits()
    unlabelled = pc.or_kleene(pc.is_null(rows["label"]), pc.equal(rows["label"], ""))
    rows.reject(
        pc.and_(unlabelled, pc.not_equal(split, "test")), lambda row: "label is empty; only test clips may have none"
    )
    labels = rows.labels("label", task, classes=classes)
    rows.require_known(labels, "label", where="the class list")
    columns = {
        "name": pc.binary_join_element_wise(ids, start, end, "_"),
        "split": split,
        "length_s": length_s,
        "group": ids,
        "video": ids,
    }
    return rows.finish(columns, [labels], matched_by="stem")


def _cells(text: Text, what: str, source: int, told: str | None, bad: list[BadRow]) -> pa.Table:
    rows = csv_rows(text, what=what)
    _, first = next(rows, (0, []))
    header = [cell.strip() for cell in first]
    names = [COLUMNS.get(name, "") for name in header]
    require_columns(
        [ours or theirs for ours, theirs in zip(names, header, strict=True)], ("id", "start", "end"), what=what
    )
    cells = columns_of(rows, names, what=what, source=source, bad=bad)
    return cells if "split" in names else with_split(cells, told or split_of_file(what))
