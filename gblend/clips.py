"""Reading finished shards: an index of one split, and the stored bytes of any clip.

Files are memory-mapped, so a shuffled reader touches only the record batches it asks for; `gblend.shard_files` says
where they are. Only `pyarrow` reads them: no object is ever unpickled.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int

from gblend.heads import by_key
from gblend.shard_files import REMEDY, ShardFiles
from gblend.storage import read_bytes
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

OPEN_FILES = 256
"""Files in a cache that a process has open, at most."""


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

    rgb: Sequence[Encoded] | None = None
    """Encoded frames."""
    flow: Sequence[Encoded] | None = None
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


class StoredImages(Sequence[Encoded]):
    """The encoded images of a clip; one is looked up when it is asked for, because a window shows few of them."""

    def __init__(self, values: pa.LargeBinaryArray) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, at: int) -> pa.Buffer:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._values[at].as_buffer()


def read_dataset_info(data: str) -> DatasetInfo:
    """``dataset.json``; a directory without one is not a finished data set."""
    path = f"{data.rstrip('/')}/{DATASET_FILE}"
    try:
        stored = read_bytes(path)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: {data} is not a finished data set; {REMEDY}") from None
    try:
        return DatasetInfo.loads(stored.decode(), what=path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}); {REMEDY}") from None


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


def read_index(data: str | ShardFiles, info: DatasetInfo, split: str, modalities: tuple[str, ...]) -> ClipIndex:
    """The clips of one split, in stored order. Files of a path or URL are opened where they are.

    Raises:
        ValueError: The split is empty, a file is missing or has the wrong schema, or a label is no class.
    """
    ids, groups, shards, uris = [], [], [], []
    tasks = by_key(info.tasks)
    labels: dict[str, list[pa.Array]] = {key: [] for key in tasks}
    rows: list[int] = []
    present: dict[str, list[bool]] = {name: [] for name in modalities}
    files = ShardFiles(data) if isinstance(data, str) else data
    shards_of_split = info.require_split(split)
    files.fetch((shard.name, CLIPS_FILE) for shard in shards_of_split)
    for shard in shards_of_split:
        path = files.path(shard.name, CLIPS_FILE)
        table = files.open(shard.name, CLIPS_FILE).read_all()
        require_schema(table.schema, clips_schema(info.tasks), what=path, remedy=REMEDY)
        for key, task in tasks.items():
            labels[key] += _labels(table, task, path)
        ids += table.column("clip_id").to_pylist()
        groups += table.column("group").to_pylist()
        uris += table.column("uri").to_pylist()
        shards += [shard.name] * table.num_rows
        rows += range(table.num_rows)
        for name in modalities:
            present[name] += _present(table, name, info, files, shard.name)
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
    """Stored bytes by (shard, row). Files open when first needed, in each process for itself.

    Local files stay open, whatever their number. Of files in a cache only the last ones used do: what a process has
    open stays in the cache, and takes a file descriptor.
    """

    def __init__(self, data: str | ShardFiles, info: DatasetInfo, modalities: tuple[str, ...]) -> None:
        self.files = ShardFiles(data) if isinstance(data, str) else data
        self.modalities = modalities
        """Those of the run."""
        self._info = info
        self._clips = {shard.name: shard.clips for shard in info.shards}
        self._open: OrderedDict[tuple[str, str], pa.RecordBatchFileReader] = OrderedDict()
        self._open_bytes = 0

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": OrderedDict(), "_open_bytes": 0}

    def read(self, shard: str, row: int, wanted: tuple[str, ...] | None = None) -> StoredClip:
        """One clip, only these modalities; None: all of this reader."""
        chosen = self.modalities if wanted is None else wanted
        return clip_of({name: self._file(shard, name).get_batch(row) for name in chosen}, self._info.columns)

    def _file(self, shard: str, modality: str) -> pa.RecordBatchFileReader:
        key = (shard, modality)
        if key in self._open:
            if self.files.cache is not None:
                self._open.move_to_end(key)
            return self._open[key]
        file = feature_file(modality)
        if (cache := self.files.cache) is not None:
            size = self.files.stored(shard, file).size
            while self._open and (len(self._open) >= OPEN_FILES or self._open_bytes + size > cache.mapped_bytes):
                (other, its_modality), _ = self._open.popitem(last=False)
                self._open_bytes -= self.files.stored(other, feature_file(its_modality)).size
            self._open_bytes += size
        path, reader = self.files.path(shard, file), self.files.open(shard, file)
        _require_file(reader.schema, modality, self._info, path)
        if reader.num_record_batches != self._clips[shard]:
            raise ValueError(
                f"{path} holds {reader.num_record_batches} clips, {DATASET_FILE} says {self._clips[shard]}; {REMEDY}"
            )
        self._open[key] = reader
        return reader


def clip_of(rows: Mapping[str, pa.RecordBatch], columns: Mapping[str, TensorSpec]) -> StoredClip:
    """A clip from its row of every modality's file; ``columns`` are the user's own modalities."""
    values: dict = {"own": {}}
    for modality, row in rows.items():
        if modality in columns:
            if row.column(f"has_{modality}")[0].as_py():
                flat = row.column("values")[0].values.to_numpy(zero_copy_only=True)
                values["own"][modality] = flat.reshape(columns[modality].shape)
            continue
        if modality == "logmel":
            count = row.column("n_frames")[0].as_py()
            if count is not None:
                flat = row.column("values")[0].values.to_numpy(zero_copy_only=True)
                values["logmel"] = flat.reshape(count, row.column("n_mels")[0].as_py())
                for name in ("audio_start_s", "audio_end_s"):
                    values[name] = row.column(name)[0].as_py()
            continue
        height = row.column("height")[0].as_py()
        images = row.column("frames" if modality == "rgb" else "fields")[0]
        if height is not None and images.is_valid and len(images) > 0:
            values[modality] = StoredImages(images.values)
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


def _present(table: pa.Table, modality: str, info: DatasetInfo, files: ShardFiles, shard: str) -> list[bool]:
    """Which clips of a shard have a modality; one with too few frames for a pair has no flow."""
    if modality in info.columns:
        file, flag = feature_file(modality), f"has_{modality}"
        path, schema = files.path(shard, file), files.open(shard, file).schema
        _require_file(schema, modality, info, path)
        # The flags alone: the values of a mapped file stay on disk.
        flags = files.open(shard, file, fields=[schema.get_field_index(flag)]).read_all()[flag].to_pylist()
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
