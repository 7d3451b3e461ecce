"""Reading finished shards: an index of one split, and the stored bytes of any clip.

Local shards are memory-mapped, so a shuffled reader touches only the record batches it asks for; others are read by
ranges. Only `pyarrow` reads the files: no object is ever unpickled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int

from gblend.heads import by_key
from schemas import (
    DatasetInfo,
    Task,
    TensorSpec,
    clips_schema,
    feature_file,
    feature_schema,
    require_schema,
    tensor_schema,
)
from schemas.features import MODALITIES, SPEC_KEY
from schemas.layout import CLIPS_FILE, DATASET_FILE

Encoded = bytes | pa.Buffer
"""One stored image; a buffer still lies in the mapped file."""

REMEDY = "rerun `gblend preprocess`"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipIndex:
    """What is known about the clips of a split without opening a feature file. All arrays have one entry per clip."""

    clip_ids: tuple[str, ...]
    """Unique names."""
    groups: tuple[str, ...]
    """What must not straddle a hold-out."""
    labels: dict[str, pa.Array]
    """Per task key (`gblend.heads`), class indices: int32, or lists of them for several labels; null: unlabelled."""
    present: dict[str, Bool[np.ndarray, " clips"]]
    """Per modality of the run, whether the clip has it."""
    shards: tuple[str, ...]
    """Directory of each clip's shard, relative to the data set."""
    rows: Int[np.ndarray, " clips"]
    """Row in its shard."""
    uris: tuple[str, ...]
    """Source file of each clip, relative to the video root."""

    def __len__(self) -> int:
        return len(self.clip_ids)

    def labelled(self) -> Bool[np.ndarray, " clips"]:
        """Clips that some task has a label for."""
        return np.any([column.is_valid().to_numpy(zero_copy_only=False) for column in self.labels.values()], axis=0)

    def take(self, chosen: np.ndarray) -> "ClipIndex":
        """The clips at these positions (or under this mask), in order."""
        positions = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        return ClipIndex(
            clip_ids=tuple(self.clip_ids[i] for i in positions),
            groups=tuple(self.groups[i] for i in positions),
            labels={key: column.take(pa.array(positions)) for key, column in self.labels.items()},
            present={name: mask[positions] for name, mask in self.present.items()},
            shards=tuple(self.shards[i] for i in positions),
            rows=self.rows[positions],
            uris=tuple(self.uris[i] for i in positions),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredClip:
    """The stored bytes of one clip; None where it lacks the modality or the run does not read it."""

    rgb: list[Encoded] | None = None
    """Encoded frames."""
    flow: list[Encoded] | None = None
    """Encoded flow images, u above v."""
    logmel: np.ndarray | None = None
    """float16 (time, mel)."""
    audio_start_s: float = 0.0
    """Real sound lies in [audio_start_s, audio_end_s) of the clip; the log-mel around it is of padding."""
    audio_end_s: float = 0.0
    """See ``audio_start_s``; both 0 without sound."""
    height: int = 0
    """Of a frame, in pixels; 0 without a picture."""
    width: int = 0
    """Of a frame, in pixels."""
    own: dict[str, np.ndarray] = field(default_factory=dict)
    """The user's own tensors, float32, by name of the modality, of those that the clip has."""

    def has(self, modality: str) -> bool:
        """Whether the clip has a modality."""
        return modality in self.own or (modality in MODALITIES and getattr(self, modality) is not None)


def read_dataset_info(data: str) -> DatasetInfo:
    """``dataset.json``; a directory without one is not a finished data set."""
    path = f"{data.rstrip('/')}/{DATASET_FILE}"
    try:
        fs, place = fsspec.core.url_to_fs(path)
        text = fs.cat_file(place).decode()
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: {data} is not a finished data set; {REMEDY}") from None
    return DatasetInfo.loads(text, what=path)


def resolve_modalities(info: DatasetInfo, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Modalities of a run: those wanted, or all stored, in the order of heads and tables."""
    stored = info.modalities
    missing = [name for name in wanted if name not in stored]
    if missing:
        known = missing[0] in MODALITIES
        raise ValueError(
            f"the data set has no modality {missing[0]!r}; it holds {', '.join(stored)}; add it with `gblend "
            f"{'preprocess --modalities' if known else 'column --name'} {missing[0]}` or leave it out"
        )
    return tuple(name for name in stored if name in wanted) if wanted else stored


def read_index(data: str, info: DatasetInfo, split: str, modalities: tuple[str, ...]) -> ClipIndex:
    """The clips of one split, in stored order.

    Raises:
        ValueError: The split is empty, a file is missing or has the wrong schema, or a label is no class.
    """
    ids, groups, shards, uris = [], [], [], []
    tasks = by_key(info.tasks)
    labels: dict[str, list[pa.Array]] = {key: [] for key in tasks}
    rows: list[int] = []
    present: dict[str, list[bool]] = {name: [] for name in modalities}
    for shard in info.require_split(split):
        path = f"{data.rstrip('/')}/{shard.name}/{CLIPS_FILE}"
        table = _open(path).read_all()
        require_schema(table.schema, clips_schema(info.tasks), what=path, remedy=REMEDY)
        for key, task in tasks.items():
            labels[key] += _labels(table, task, path)
        ids += table.column("clip_id").to_pylist()
        groups += table.column("group").to_pylist()
        uris += table.column("uri").to_pylist()
        shards += [shard.name] * table.num_rows
        rows += range(table.num_rows)
        for name in modalities:
            present[name] += _present(table, name, info, f"{data.rstrip('/')}/{shard.name}")
    return ClipIndex(
        clip_ids=tuple(ids),
        groups=tuple(groups),
        labels={key: pa.concat_arrays(parts) for key, parts in labels.items()},
        present={name: np.asarray(mask, dtype=bool) for name, mask in present.items()},
        shards=tuple(shards),
        rows=np.asarray(rows, dtype=np.int64),
        uris=tuple(uris),
    )


class ClipReader:
    """Stored bytes by (shard, row). Files open when first needed, in each process for itself."""

    def __init__(self, data: str, info: DatasetInfo, modalities: tuple[str, ...]) -> None:
        self._data = data.rstrip("/")
        self._info = info
        self._modalities = modalities
        self._clips = {shard.name: shard.clips for shard in info.shards}
        self._files: dict[tuple[str, str], pa.RecordBatchFileReader] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_files": {}}

    def read(self, shard: str, row: int) -> StoredClip:
        """One clip, only the modalities of this reader."""
        rows = {modality: self._file(shard, modality).get_batch(row) for modality in self._modalities}
        return clip_of(rows, self._info.columns)

    def _file(self, shard: str, modality: str) -> pa.RecordBatchFileReader:
        key = (shard, modality)
        if key not in self._files:
            path = f"{self._data}/{shard}/{feature_file(modality)}"
            reader = _open(path)
            _require_file(reader.schema, modality, self._info, path)
            if reader.num_record_batches != self._clips[shard]:
                raise ValueError(
                    f"{path} holds {reader.num_record_batches} clips, "
                    f"{DATASET_FILE} says {self._clips[shard]}; {REMEDY}"
                )
            self._files[key] = reader
        return self._files[key]


def clip_of(rows: Mapping[str, pa.RecordBatch], columns: Mapping[str, TensorSpec]) -> StoredClip:
    """A clip from its row of every modality's file; ``columns`` are the user's own modalities."""
    values: dict = {"own": {}}
    for modality, row in rows.items():
        if modality in columns:
            if row.column(f"has_{modality}")[0].as_py():
                flat = row.column("values").flatten().to_numpy(zero_copy_only=True)
                values["own"][modality] = flat.reshape(columns[modality].shape)
            continue
        if modality == "logmel":
            count = row.column("n_frames")[0].as_py()
            if count is not None:
                flat = row.column("values").flatten().to_numpy(zero_copy_only=True)
                values["logmel"] = flat.reshape(count, row.column("n_mels")[0].as_py())
                for name in ("audio_start_s", "audio_end_s"):
                    values[name] = row.column(name)[0].as_py()
            continue
        height = row.column("height")[0].as_py()
        images = row.column("frames" if modality == "rgb" else "fields")[0]
        if height is not None and images.is_valid and len(images) > 0:
            values[modality] = [image.as_buffer() for image in images.values]
            values["height"], values["width"] = height, row.column("width")[0].as_py()
    return StoredClip(**values)


def _labels(table: pa.Table, task: Task, path: str) -> list[pa.Array]:
    """A label column, every label checked to be a class."""
    column = table.column(task.column)
    flat = column if task.kind == "single" else pc.list_flatten(column)  # pyright: ignore[reportAttributeAccessIssue]
    outside = [label for label in flat.unique().to_pylist() if label is not None and not 0 <= label < len(task.classes)]
    if outside:
        raise ValueError(f"{path}: {task.column} is {outside[0]}, but there are {len(task.classes)} classes; {REMEDY}")
    if task.kind == "multi" and flat.null_count:
        raise ValueError(f"{path}: {flat.null_count} labels inside the lists of {task.column} are null; {REMEDY}")
    return column.chunks


def _present(table: pa.Table, modality: str, info: DatasetInfo, shard: str) -> list[bool]:
    """Which clips of a shard have a modality; one with too few frames for a pair has no flow."""
    if modality in info.columns:
        path, flag = f"{shard}/{feature_file(modality)}", f"has_{modality}"
        place = _open(path)
        _require_file(place.schema, modality, info, path)
        # The flags alone: the values of a mapped file stay on disk.
        flags = _open(path, fields=[place.schema.get_field_index(flag)]).read_all()[flag].to_pylist()
        if len(flags) != table.num_rows:
            raise ValueError(f"{path} holds {len(flags)} clips, {CLIPS_FILE} beside it {table.num_rows}; {REMEDY}")
        return flags
    if modality == "logmel":
        return table.column("has_audio").to_pylist()
    least = info.features.flow.stride if modality == "flow" else 0
    return [frames > least for frames in table.column("frames").to_pylist()]


def _require_file(found: pa.Schema, modality: str, info: DatasetInfo, path: str) -> None:
    """Raise ``ValueError`` unless a modality's file is what ``dataset.json`` says."""
    if modality not in info.columns:
        expected = feature_schema(modality, info.features)  # pyright: ignore[reportArgumentType]
        require_schema(found, expected, what=path, remedy=REMEDY)
        return
    expected = tensor_schema(modality, info.columns[modality])
    require_schema(found, expected, what=path, remedy="add it again with `gblend column`")
    if json.loads((found.metadata or {}).get(SPEC_KEY, b"null")) != json.loads(expected.metadata[SPEC_KEY]):
        raise ValueError(f"{path} holds other values than {DATASET_FILE} says; add them again with `gblend column`")


def _open(path: str, *, fields: list[int] | None = None) -> pa.RecordBatchFileReader:
    """An Arrow IPC file: mapped when local, else read by ranges as its batches are asked for. All columns, or some."""
    fs, place = fsspec.core.url_to_fs(path)
    options = pa.ipc.IpcReadOptions(included_fields=fields)
    try:
        if "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
            # The mapping outlives the file descriptor: a large data set has more files than a process may hold open.
            with pa.memory_map(place) as file:
                return pa.ipc.open_file(pa.BufferReader(file.read_buffer()), options=options)
        return pa.ipc.open_file(pa.PythonFile(fs.open(place, "rb"), mode="r"), options=options)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; {REMEDY}") from None
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a whole Arrow file ({error}); {REMEDY}") from None
