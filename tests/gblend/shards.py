"""Data set directories as preprocessing leaves them, from arrays chosen by a test, with nothing but pyarrow and cv2."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from schemas import (
    DatasetInfo,
    FeatureSpec,
    ShardDone,
    ShardEntry,
    Task,
    clips_schema,
    feature_file,
    feature_schema,
    shard_name,
)

TASK = Task(name="action", kind="single", classes=("a", "b", "c"))


@dataclass(kw_only=True)
class Clip:
    name: str
    label: int | list[int] | None = 0
    labels: dict[str, int | list[int] | None] | None = None
    """Per task, where there is more than ``label`` to say."""
    group: str | None = None
    frames: np.ndarray | None = None  # uint8 (time, height, width, 3)
    flow: np.ndarray | None = None  # uint8 (time, 2 height, width)
    logmel: np.ndarray | None = None  # float16 (time, mel)
    uri: str | None = None


def gradient_clip(name: str, *, length: int = 6, height: int = 20, width: int = 24, seed: int = 0, **given) -> Clip:
    """Smooth pictures (JPEG keeps them), flow at rest and a log-mel ramp; every value differs between seeds."""
    y, x, t = np.mgrid[0:height, 0:width, 0:length]
    plane = (4 * x + 3 * y + 8 * t + 10 * seed).transpose(2, 0, 1) % 256
    pictures = np.stack([plane, plane // 2, 255 - plane], axis=-1).astype(np.uint8)
    flow = np.full((length - 1, 2 * height, width), 128, dtype=np.uint8)
    mel = (np.arange(40)[None, :] * 0.1 + np.arange(30)[:, None] + seed).astype(np.float16)
    return Clip(name=name, **{"frames": pictures, "flow": flow, "logmel": mel, **given})


def write_dataset(
    root: Path,
    clips: dict[str, list[Clip]],
    *,
    spec: FeatureSpec | None = None,
    tasks: tuple[Task, ...] = (TASK,),
    per_shard: int = 100,
) -> str:
    spec = spec or FeatureSpec()
    entries = []
    for split, members in clips.items():
        for number, at in enumerate(range(0, len(members), per_shard)):
            shard = shard_name(split, number)
            write_shard(root / shard, split, members[at : at + per_shard], spec, tasks)
            entries.append(ShardEntry(split=split, name=shard, clips=len(members[at : at + per_shard])))
    info = DatasetInfo(tasks=tasks, features=spec, shards=tuple(entries), counts={}, present={}, versions={})
    (root / "dataset.json").write_text(info.dumps())
    return str(root)


def write_shard(place: Path, split: str, clips: list[Clip], spec: FeatureSpec, tasks: tuple[Task, ...]) -> None:
    place.mkdir(parents=True)
    rows = [
        {
            "clip_id": clip.name,
            "uri": clip.uri or f"{split}/{clip.name}.mp4",
            "split": split,
            "group": clip.group or clip.name,
            "duration_s": 1.0,
            "frames": 0 if clip.frames is None else len(clip.frames),
            "has_rgb": clip.frames is not None,
            "has_audio": clip.logmel is not None,
            "silent": False,
            "still": False,
            **{task.column: clip.labels[task.name] if clip.labels else clip.label for task in tasks},
        }
        for clip in clips
    ]
    table = pa.Table.from_pylist(rows, clips_schema(tasks))
    with pa.ipc.new_file(str(place / "clips.arrow"), table.schema) as file:
        file.write_table(table)
    for modality in spec.modalities:
        schema = feature_schema(modality, spec)
        with pa.ipc.new_file(str(place / feature_file(modality)), schema) as file:
            for clip in clips:
                values = {"clip_id": clip.name, **_values(clip, modality, spec)}
                columns = [pa.array([values.get(item.name)], type=item.type) for item in schema]
                file.write_batch(pa.record_batch(columns, schema=schema))


def write_done(root: Path) -> None:
    """The ``done.json`` of every shard, of what its files are now."""
    for place in {path.parent for path in root.rglob("*.arrow")}:
        files = {path.name: path.read_bytes() for path in place.glob("*.arrow")}
        done = ShardDone(
            clips=0,
            failed=0,
            manifest="",
            present={},
            sampling={},
            fingerprints={},
            specs={},
            checksums={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
            sizes={name: len(data) for name, data in files.items()},
            limits={},
            versions={},
        )
        (place / "done.json").write_text(done.dumps())


def _values(clip: Clip, modality: str, spec: FeatureSpec) -> dict:
    if modality == "logmel":
        if clip.logmel is None:
            return {}
        frames, mels = clip.logmel.shape
        sound = {"audio_start_s": 0.0, "audio_end_s": frames * spec.logmel.hop_s}
        return {"n_frames": frames, "n_mels": mels, **sound, "values": clip.logmel.reshape(-1)}
    images = clip.frames if modality == "rgb" else clip.flow
    if images is None:
        return {}
    height, width = images.shape[1] // (1 if modality == "rgb" else 2), images.shape[2]
    stored = [encode_rgb(i, spec.rgb.codec) if modality == "rgb" else encode_flow(i, spec.flow.codec) for i in images]
    return {"height": height, "width": width, "pts_s": [0.0] * len(images), _column(modality): stored}


def _column(modality: str) -> str:
    return "frames" if modality == "rgb" else "fields"


def encode_rgb(image: np.ndarray, codec: str) -> bytes:
    if codec == "raw":
        return image.tobytes()
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def encode_flow(image: np.ndarray, codec: str) -> bytes:
    return image.tobytes() if codec == "raw" else cv2.imencode(".jpg", image)[1].tobytes()
