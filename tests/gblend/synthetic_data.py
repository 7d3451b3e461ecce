"""A dataset directory of two splits with pixel values chosen by hand, stored raw."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas import (
    LEDGER_SCHEMA,
    DatasetInfo,
    FeatureSpec,
    FlowSpec,
    LogmelNumbers,
    LogmelSpec,
    RgbSpec,
    ShardEntry,
    Task,
    clips_schema,
    feature_file,
    feature_schema,
)
from schemas.layout import CLIPS_FILE, DATASET_FILE, LEDGER_FILE

TASKS = (Task(name="action", kind="single", classes=("noop", "fire", "left")),)
SPEC = FeatureSpec(
    rgb=RgbSpec(fps=10.0, fixed_size_px=(16, 24), codec="raw"),
    flow=FlowSpec(bound_px=20.0, codec="raw"),
    logmel=LogmelSpec(recipe="custom", custom=LogmelNumbers(mels=4)),
)
FRAMES, MEL_FRAMES = 6, 60


def frame(index: int) -> np.ndarray:
    """Red grows by 10 a frame, green is 5 in the left column of the picture only, blue is 200."""
    image = np.zeros((16, 24, 3), np.uint8)
    image[..., 0] = 10 * index
    image[:, 0, 1] = 5
    image[..., 2] = 200
    return image


FLOW_LEVELS = (255, 0)
"""Stored level of the horizontal and of the vertical component: +20 px and -20 px."""


def write_dataset(directory: Path, *, per_split: int = 3, silent_row: int | None = None, blind_row: int | None = None):
    """Splits train and test, one shard each; clip i has class i % 3; two more clips failed in train."""
    shards = []
    for split in ("train", "test"):
        shard = directory / split / "00000"
        shard.mkdir(parents=True)
        names = [f"{split}-{i}" for i in range(per_split)]
        rgb, flow, logmel, clips = [], [], [], []
        for i, name in enumerate(names):
            blind, silent = i == blind_row, i == silent_row
            size = {"height": None if blind else 16, "width": None if blind else 24}
            pts = None if blind else [k / 10 for k in range(FRAMES)]
            levels = np.concatenate([np.full((16, 24), level, np.uint8) for level in FLOW_LEVELS])
            rgb.append(
                {
                    "clip_id": name,
                    **size,
                    "pts_s": pts,
                    "frames": None if blind else [frame(k).tobytes() for k in range(FRAMES)],
                }
            )
            flow.append(
                {
                    "clip_id": name,
                    **size,
                    "pts_s": pts,
                    "fields": None if blind else [levels.tobytes()] * (FRAMES - 1),
                }
            )
            values = np.arange(MEL_FRAMES * 4, dtype=np.float16)
            logmel.append(
                {
                    "clip_id": name,
                    "n_frames": None if silent else MEL_FRAMES,
                    "n_mels": None if silent else 4,
                    "audio_start_s": None if silent else 0.0,
                    "audio_end_s": None if silent else 0.6,
                    "values": None if silent else values,
                }
            )
            clips.append(
                {
                    "clip_id": name,
                    "uri": f"{name}.mp4",
                    "start_s": None,
                    "end_s": None,
                    "split": split,
                    "group": name,
                    "label.action": i % 3,
                    "duration_s": 0.6,
                    "frames": 0 if blind else 9,
                    "has_rgb": not blind,
                    "has_audio": not silent,
                    "silent": False,
                    "still": False,
                }
            )
        _write(shard / CLIPS_FILE, clips_schema(TASKS), [clips])
        for modality, rows in (("rgb", rgb), ("flow", flow), ("logmel", logmel)):
            _write(shard / feature_file(modality), feature_schema(modality, SPEC), [[row] for row in rows])
        shards.append(ShardEntry(split=split, name=f"{split}/00000", clips=per_split))
    counts = {
        "train": {"ok": per_split, "failed": 2, "skipped": 0},
        "test": {"ok": per_split, "failed": 0, "skipped": 1},
    }
    info = DatasetInfo(
        tasks=TASKS, features=SPEC, shards=tuple(shards), counts=counts, present={}, versions={"av": "18.1.0"}
    )
    (directory / DATASET_FILE).write_text(info.dumps())
    rows = [_ledger_row(f"{s}-{i}", s, "ok") for s in ("train", "test") for i in range(per_split)]
    rows += [_ledger_row(f"bad{i}", "train", "failed", "open", "unreadable", f"bad{i}: moov missing") for i in (0, 1)]
    rows += [_ledger_row("off", "test", "skipped", "plan", "duplicate", "listed twice")]
    pq.write_table(pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA), directory / LEDGER_FILE)


def _ledger_row(name, split, status, stage=None, reason=None, message=None):
    return {
        "clip_id": name,
        "uri": f"{name}.mp4",
        "split": split,
        "status": status,
        "stage": stage,
        "reason": reason,
        "message": message,
        "shard": None,
        "row": None,
    }


def _write(path: Path, schema: pa.Schema, batches: list[list[dict]]) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for rows in batches:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
