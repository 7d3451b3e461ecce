"""A user's file of tensors, checked whole before anything is written: `clip_id` and one tensor a clip, in Parquet.

The rows come in any order, and a dataset's shards need theirs: the values are laid out on disk in the dataset's order,
so that memory holds one batch of rows and not all of them.
"""

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32

from schemas.tensor import TensorSpec

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""

BATCH_ROWS = 1024
"""Rows of the file held at once."""

CHUNK_BYTES = 64 << 20
"""Of values that statistics are made of at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensors:
    """The tensors of a dataset's clips, in its order."""

    spec: TensorSpec
    """Shape and statistics."""
    has: Bool[np.ndarray, " clips"]
    """Which clips have one."""
    values: Float32[np.ndarray, "clips numbers"]
    """On disk; row major, 0 where there is none."""
    elsewhere: int
    """Rows of the file whose clip the manifest names and preprocessing could not store."""


def read_tensors(
    path: str, *, name: str, clip_ids: Sequence[str], training: Bool[np.ndarray, " clips"], failed: set[str], room: str
) -> Tensors:
    """Read a file of tensors.

    Args:
        path: Parquet, local path or fsspec URL. Its column ``name``, or the only one beside ``clip_id``, holds lists of
            numbers, nested as the tensor has axes, or numbers; null: the clip has none.
        name: Of the modality.
        clip_ids: Of the dataset's clips, in its order.
        training: Which of them the statistics are made of.
        failed: Clips of the manifest that are not stored: their rows are counted and left out.
        room: Directory for the values.

    Raises:
        ValueError: What is wrong with the file, the first such row named.
    """
    place = {clip_id: at for at, clip_id in enumerate(clip_ids)}
    has, elsewhere, seen = np.zeros(len(clip_ids), dtype=bool), 0, set()
    shape: tuple[int, ...] | None = None
    values: Any = None
    try:
        with cast("Any", fsspec.open(path, "rb")) as file:
            parquet = pq.ParquetFile(file)
            column = _column_of(parquet.schema_arrow, name, path)
            for batch in parquet.iter_batches(BATCH_ROWS, columns=["clip_id", column]):
                ids = batch.column("clip_id").to_pylist()
                at = np.array([_place_of(clip_id, place, failed, seen, path) for clip_id in ids])
                elsewhere += int((at < 0).sum())
                filled = batch.column(column).is_valid().to_numpy(zero_copy_only=False)
                named = [clip_id for clip_id, valid in zip(ids, filled, strict=True) if valid]
                found = _numbers(batch.column(column).drop_null(), named, path)
                if not named:
                    continue
                if values is None:
                    shape = found.shape[1:]
                    where = os.path.join(room, f"{name}.float32")
                    values = np.memmap(where, np.float32, "w+", shape=(len(clip_ids), math.prod(shape)))
                if found.shape[1:] != shape:
                    raise ValueError(
                        f"{path}: the tensor of clip {named[0]!r} has shape {found.shape[1:]}, earlier ones {shape}; "
                        "all must have one shape: cut or pad them to it"
                    )
                stored = at[filled] >= 0
                has[at[filled][stored]] = True
                values[at[filled][stored]] = found[stored].reshape(int(stored.sum()), -1)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file of tensors at {path}") from None
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file ({error}); write `clip_id` and a tensor column") from None
    if shape is None or values is None or not (has & training).any():
        raise ValueError(f"{path} has a tensor for none of the dataset's training clips; check its clip_id column")
    mean, sd = _statistics(values, np.flatnonzero(has & training), shape[-1])
    digest = hashlib.sha256(repr(shape).encode() + has.tobytes())
    rows = max(1, CHUNK_BYTES // (4 * values.shape[1]))
    for start in range(0, len(values), rows):
        digest.update(values[start : start + rows].tobytes())
    spec = TensorSpec(shape=shape, mean=mean, sd=sd, sha256=digest.hexdigest())
    return Tensors(spec=spec, has=has, values=values, elsewhere=elsewhere)


def _column_of(schema: pa.Schema, name: str, path: str) -> str:
    """The column that holds the tensors."""
    if "clip_id" not in schema.names or not (
        pa.types.is_string(schema.field("clip_id").type) or pa.types.is_large_string(schema.field("clip_id").type)
    ):
        raise ValueError(f"{path} must have a string column 'clip_id'; its columns: {_columns(schema)}")
    others = [column for column in schema.names if column != "clip_id"]
    if name in others or len(others) == 1:
        return name if name in others else others[0]
    raise ValueError(
        f"{path} must have a column {name!r}, or one only beside 'clip_id'; its columns: {_columns(schema)}"
    )


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _place_of(clip_id: str | None, place: dict[str, int], failed: set[str], seen: set[str], path: str) -> int:
    """Where a row of the file belongs, -1 for a clip that is not stored."""
    if clip_id is None:
        raise ValueError(f"{path} has an empty clip_id; every row needs one")
    if clip_id in seen:
        raise ValueError(f"{path} has two rows for clip_id {clip_id!r}; give every clip one")
    if clip_id not in place and clip_id not in failed:
        raise ValueError(
            f"{path} has clip_id {clip_id!r}, which the dataset does not know; leave it out, or take the ids from the "
            "clip manifest"
        )
    seen.add(clip_id)
    return place.get(clip_id, -1)


def _numbers(cells: pa.Array, clip_ids: list[str], path: str) -> Float32[np.ndarray, "rows *axes"]:  # noqa: F821
    """Cells without nulls as one array, the axes of the tensors last."""
    axes: list[int] = []
    if isinstance(cells, pa.ExtensionArray):
        plain = isinstance(cells, pa.FixedShapeTensorArray)
        if not plain or list(cells.type.permutation or ()) != sorted(cells.type.permutation or ()):
            raise ValueError(f"{path} holds {cells.type}; write tensors as lists of numbers, nested as they have axes")
        axes, cells = list(cells.type.shape), cells.storage.flatten()
    while _is_list(cells.type):
        lengths = pc.list_value_length(cells).to_numpy(zero_copy_only=False)
        here = int(lengths[0]) if len(lengths) else 0
        each = math.prod(axes)  # Lists of this level that a clip has.
        other = np.flatnonzero(lengths != here)
        if len(other):
            raise ValueError(
                f"{path}: the tensor of clip {clip_ids[other[0] // each]!r} has {lengths[other[0]]} entries along axis "
                f"{len(axes)}, that of clip {clip_ids[0]!r} has {here}; all must have one shape: cut or pad them to it"
            )
        if len(lengths) and here == 0:
            raise ValueError(
                f"{path}: the tensor of clip {clip_ids[0]!r} is empty; leave the cell empty (null) where there is none"
            )
        axes.append(here)
        cells = cells.flatten()
        _require_whole(cells, math.prod(axes), clip_ids, path)
    if not (pa.types.is_floating(cells.type) or pa.types.is_integer(cells.type)):
        raise ValueError(f"{path} holds tensors of {cells.type}; allowed: integers and floating-point numbers")
    _require_whole(cells, math.prod(axes), clip_ids, path)
    with np.errstate(over="ignore"):  # What single precision cannot hold is refused here.
        values = cells.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(clip_ids), *(axes or [1]))
    wrong = np.flatnonzero(~np.isfinite(values.reshape(len(clip_ids), -1)).all(axis=1)) if clip_ids else []
    if len(wrong):
        raise ValueError(
            f"{path}: the tensor of clip {clip_ids[wrong[0]]!r} holds a number that is not finite in single precision; "
            "correct it, or leave the cell empty (null) where there is none"
        )
    return values


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _require_whole(flat: pa.Array, each: int, clip_ids: list[str], path: str) -> None:
    """No gaps inside a tensor, ``each`` entries a clip."""
    if flat.null_count:
        first = int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0])
        raise ValueError(
            f"{path}: the tensor of clip {clip_ids[first // each]!r} has an empty place; every number must be there, "
            "or the whole cell be empty (null)"
        )


def _statistics(
    values: Float32[np.ndarray, "clips numbers"], chosen: np.ndarray, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and sd of every channel over the chosen clips; an sd of 0 is said to be 1.

    To twelve digits, the mean of the larger of the two: far below what single precision tells apart, whatever the
    offset of a channel, and the same however the sums were cut into parts.
    """
    rows = max(1, CHUNK_BYTES // (8 * values.shape[1]))
    parts = [chosen[start : start + rows] for start in range(0, len(chosen), rows)]
    count = len(chosen) * values.shape[1] // channels

    def total(power: int, centre: np.ndarray) -> np.ndarray:
        sums = [((values[p].astype(np.float64).reshape(-1, channels) - centre) ** power).sum(axis=0) for p in parts]
        return np.sum(sums, axis=0) / count

    mean = total(1, np.zeros(channels))
    sd = np.sqrt(total(2, mean))
    sd = np.where(sd > 1e-6 * np.maximum(np.abs(mean), 1e-30), sd, 1.0)
    scales = np.maximum(np.abs(mean), sd).tolist()
    rounded = tuple(round(v, 11 - math.floor(math.log10(s))) for v, s in zip(mean.tolist(), scales, strict=True))
    return rounded, tuple(float(f"{v:.12g}") for v in sd)
