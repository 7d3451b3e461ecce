"""Does a file have the schema it should? Checked once, where the file is opened; trusted after that."""

import pyarrow as pa


def require_schema(found: pa.Schema, expected: pa.Schema, *, what: str, remedy: str) -> None:
    """Raise one readable ``ValueError`` unless every expected column is there with its type. Extra columns are allowed.

    >>> require_schema(pa.schema([("a", pa.int64())]), pa.schema([("a", pa.string())]), what="f", remedy="rewrite it")
    Traceback (most recent call last):
        ...
    ValueError: f does not fit its schema: column 'a' is int64, must be string; rewrite it
    """
    problems = []
    for wanted in expected:
        index = found.get_field_index(wanted.name)
        if index < 0:
            problems.append(f"column {wanted.name!r} ({wanted.type}) is missing")
        elif not _same(found.field(index).type, wanted.type):
            problems.append(f"column {wanted.name!r} is {found.field(index).type}, must be {wanted.type}")
    if problems:
        raise ValueError(f"{what} does not fit its schema: {'; '.join(problems)}; {remedy}")


def _same(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Equal up to the names Parquet gives list elements and the offset width of strings."""
    if pa.types.is_list(wanted):
        return (pa.types.is_list(found) or pa.types.is_large_list(found)) and found.value_type == wanted.value_type
    if pa.types.is_string(wanted):
        return pa.types.is_string(found) or pa.types.is_large_string(found)
    return found == wanted
