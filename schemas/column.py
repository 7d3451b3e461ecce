"""A column of an Arrow file: its field, and what it means, for people and for the tables of the documentation."""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column.

    >>> Column(name="row", type=pa.int32(), nullable=False, meaning="row in the shard").field
    pyarrow.Field<row: int32 not null>
    """

    name: str
    """Its name."""
    type: pa.DataType
    """Its Arrow type."""
    meaning: str
    """One line."""
    nullable: bool = True
    """Whether a cell may be empty."""

    @property
    def field(self) -> pa.Field:
        """The Arrow field."""
        return pa.field(self.name, self.type, nullable=self.nullable)


def fields_of(columns: tuple[Column, ...]) -> tuple[pa.Field, ...]:
    """The Arrow fields of columns, in order."""
    return tuple(column.field for column in columns)
