"""Text to columns of cells: line by line, so that every complaint names its line, and in batches, so that millions fit.

Columns are found by their header names wherever a file has a header. A row with the wrong number of cells is one bad
row; text that is not CSV at all is an error, because nothing after that point can be trusted.
"""

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute

from schemas.manifest import SPLITS

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""

Text = str | io.TextIOBase
"""What a parser reads: text, or an open file of it."""

BATCH = 1 << 10
"""Rows turned into columns at a time: few enough that their cells die young, which the collector of garbage likes."""

CHUNK = 1 << 6
"""Batches joined to one chunk of a column."""

SPLIT_ALIASES = {
    "training": "train",
    "validation": "val",
    "validate": "val",
    "valid": "val",
    "testing": "test",
    "eval": "test",
}
"""Names other datasets give the splits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BadRow:
    """One row that cannot be used, and why."""

    source: str
    """Name of the annotation file."""
    line: int
    """Line in it, from 1."""
    reason: str
    """What is wrong, what is allowed."""

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}: {self.reason}"


@contextmanager
def open_texts(paths: Sequence[str]) -> Iterator[dict[str, Text]]:
    """Annotation files by name, local or of any fsspec URL, decoded as they are read."""
    repeated = sorted({path for path in paths if list(paths).count(path) > 1})
    if repeated:
        raise ValueError(f"the annotation file {repeated[0]} is given twice")
    with ExitStack() as stack:
        texts: dict[str, Text] = {}
        for path in paths:
            file: Any = stack.enter_context(fsspec.open(path, "rb"))  # pyright: ignore[reportArgumentType]
            texts[path] = stack.enter_context(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
        yield texts


def csv_rows(text: Text, *, what: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line that holds anything. Blanks after a comma belong to no cell."""
    reader = csv.reader(_lines(text), skipinitialspace=True, strict=True)
    try:
        for row in reader:
            if any(map(str.strip, row)):
                yield reader.line_num, row
    except UnicodeDecodeError:
        raise ValueError(f"{what} is not UTF-8 text (near line {reader.line_num + 1}); convert it first") from None
    except csv.Error as error:
        cut = "; it ends inside a quoted cell: is the file whole?" if "unexpected end" in str(error) else ""
        raise ValueError(f"{what}, line {reader.line_num} is not CSV: {error}{cut}") from None


def text_lines(text: Text, *, what: str) -> Iterator[tuple[int, str]]:
    """Line number and text of every line that holds anything, stripped."""
    number = 0
    try:
        for number, line in enumerate(_lines(text), start=1):
            if line.strip():
                yield number, line.strip()
    except UnicodeDecodeError:
        raise ValueError(f"{what} is not UTF-8 text (near line {number + 1}); convert it first") from None


def columns_of(
    rows: Iterable[tuple[int, list[str]]], names: Sequence[str], *, what: str, source: int, bad: list[BadRow]
) -> pa.Table:
    """Rows of cells as trimmed text columns, with the columns ``source`` and ``line``.

    ``names`` has one name a cell, an empty one where nobody needs the cell. A row with more or fewer cells goes to
    ``bad``.
    """
    kept = [(index, name) for index, name in enumerate(names) if name]
    fields = [*((name, pa.string()) for _, name in kept), ("source", pa.int16()), ("line", pa.int32())]
    schema = pa.schema(fields)
    chunks, batches = [], []
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        whole = [(line, row) for line, row in batch if len(row) == len(names)]
        if len(whole) < len(batch):
            bad += [
                BadRow(source=what, line=n, reason=_count(row, names)) for n, row in batch if len(row) != len(names)
            ]
        cells = list(zip(*(row for _, row in whole), strict=True)) or [()] * len(names)
        columns: list[Any] = [pc.utf8_trim_whitespace(pa.array(cells[index], pa.string())) for index, _ in kept]
        columns += [pa.array([source] * len(whole), pa.int16()), pa.array([n for n, _ in whole], pa.int32())]
        batches.append(pa.record_batch(columns, schema=schema))
        if len(batches) == CHUNK:
            chunks.append(pa.Table.from_batches(batches, schema).combine_chunks())
            batches = []
    return pa.concat_tables([*chunks, pa.Table.from_batches(batches, schema).combine_chunks()])


def split_name(cell: str) -> str:
    """A split by the name we give it; any other name in lower case.

    >>> split_name("Validation")
    'val'
    """
    name = cell.lower()
    return SPLIT_ALIASES.get(name, name)


def split_of_file(name: str) -> str:
    """The split that an annotation file's name tells.

    >>> split_of_file("data/EPIC_100_validation.csv"), split_of_file("unbalanced_train_segments.csv")
    ('val', 'train')
    >>> split_of_file("vggsound.csv")
    Traceback (most recent call last):
        ...
    ValueError: cannot tell from the name of vggsound.csv which split it holds; ...
    """
    found = {split_name(word) for word in re.split(r"[^a-z]+", os.path.basename(name).lower())} & set(SPLITS)
    if len(found) != 1:
        raise ValueError(
            f"cannot tell from the name of {name} which split it holds; say so with --splits (train, val or test)"
        )
    return found.pop()


def splits_of_files(names: Sequence[str], splits: Sequence[str]) -> dict[str, str | None]:
    """The split of every annotation file as it was told, in the same order; None: nothing was told."""
    if not names:
        raise ValueError("no annotation file is given; name at least one with --annotations")
    if not splits:
        return dict.fromkeys(names)
    if len(splits) != len(names):
        raise ValueError(f"--splits names {len(splits)} splits for {len(names)} annotation files; give one for each")
    told: dict[str, str | None] = {name: split_name(split) for name, split in zip(names, splits, strict=True)}
    for split in told.values():
        if split not in SPLITS:
            raise ValueError(f"--splits: {split!r} is unknown; allowed: {', '.join(SPLITS)}")
    return told


def with_split(cells: pa.Table, split: str) -> pa.Table:
    """Cells of a file that holds one split."""
    return cells.append_column("split", pa.repeat(pa.scalar(split, pa.string()), cells.num_rows))


def class_list(text: Text, *, what: str) -> tuple[str, ...]:
    r"""Class names, one a line, the line number being the index.

    >>> class_list("abseiling\nair drumming\n", what="label_map.txt")
    ('abseiling', 'air drumming')
    """
    return checked_classes([line for _, line in text_lines(text, what=what)], what=what)


def checked_classes(names: Sequence[str], *, what: str) -> tuple[str, ...]:
    """Class names that are all different, and at least one."""
    if not names:
        raise ValueError(f"{what} names no class")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} names the class {name!r} twice; class names are unique")
        seen.add(name)
    return tuple(names)


def table_by_header(text: Text, *, what: str, wanted: Sequence[str]) -> list[dict[str, str]]:
    """The small CSV files beside annotations, such as class lists: wanted columns, found by name, as rows."""
    rows = csv_rows(text, what=what)
    _, header = next(rows, (0, []))
    header = [cell.strip() for cell in header]
    require_columns(header, wanted, what=what)
    places = {name: header.index(name) for name in wanted}
    table = []
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{what}, line {line}: {_count(row, header)}")
        table.append({name: row[place].strip() for name, place in places.items()})
    return table


def require_columns(header: Sequence[str], wanted: Sequence[str], *, what: str) -> None:
    """Raise unless every wanted column is in a header."""
    for name in wanted:
        if name not in header:
            raise ValueError(f"{what} has no column {name!r}; its header is: {', '.join(header) or 'empty'}")


def _lines(text: Text) -> Iterable[str]:
    return io.StringIO(text.removeprefix("\ufeff"), newline="") if isinstance(text, str) else text


def _count(row: Sequence[str], names: Sequence[str]) -> str:
    hint = "; put a cell that holds a comma in quotes" if len(row) > len(names) else ""
    return f"{len(row)} cells where {len(names)} belong{hint}"
