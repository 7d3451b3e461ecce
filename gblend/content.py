"""What pictures and sound of a data set are like, measured on some clips of every split: enough to tell splits apart.

One image of a clip is decoded, not all; a data set of a million clips is looked at in seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gblend.clips import ClipIndex, ClipReader
from gblend.shard_files import ShardFiles
from gblend.stills import field, frame, sound
from schemas import DatasetInfo, feature_file

CLIPS = 256
"""Looked at of every split, at most."""

SHARDS = 32
"""Of every split, at most, from which these clips come."""

QUANTITIES = {
    "brightness": "mean level of the middle frame, 0 to 255",
    "motion_px": "mean displacement in the middle flow field, in stored pixels",
    "loudness": "mean log-mel of the real sound, natural logarithm",
    "source_fps": "source frames shown a second, at most the stored rate",
}
"""What is measured, and what it means."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """Measurements of some clips of one split."""

    clips: int
    """Clips looked at."""
    values: dict[str, Float[np.ndarray, " clips"]]
    """By `QUANTITIES`, of the clips that have what it takes; none: left out."""
    sizes: dict[str, int]
    """``HEIGHTxWIDTH`` of stored pictures in pixels to clips, the most frequent first."""


def look_at(data: str, info: DatasetInfo, index: ClipIndex, *, seed: int = 0) -> Content:
    """Some clips of a split, of random shards, chosen by the seed alone."""
    rng = np.random.default_rng(seed)
    shards = sorted(set(index.shards))
    from_shards = {shards[at] for at in rng.permutation(len(shards))[:SHARDS]}
    there = np.flatnonzero([shard in from_shards for shard in index.shards])
    chosen = index.take(np.sort(rng.permutation(there)[:CLIPS]))
    files = ShardFiles(data)
    reader, modalities = ClipReader(files, info, info.features.modalities), info.features.modalities
    found: dict[str, list[float]] = {name: [] for name in QUANTITIES}
    sizes: dict[str, int] = {}
    for shard, row in zip(chosen.shards, chosen.rows.tolist(), strict=True):
        clip = reader.read(shard, row)
        if clip.rgb is not None:
            found["brightness"].append(float(frame(clip, len(clip.rgb) // 2, info.features).mean()))
        if clip.flow is not None:
            lengths = np.linalg.norm(field(clip, len(clip.flow) // 2, info.features), axis=-1)
            found["motion_px"].append(float(lengths.mean()))
        if clip.logmel is not None:
            found["loudness"].append(float(sound(clip, info.features).mean()))
        if clip.height:
            size = f"{clip.height}x{clip.width}"
            sizes[size] = sizes.get(size, 0) + 1
    if "rgb" in modalities:
        found["source_fps"] = _source_rates(files, chosen, info.features.rgb.fps)
    return Content(
        clips=len(chosen),
        values={name: np.array(values) for name, values in found.items() if values},
        sizes=dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0]))),
    )


def _source_rates(files: ShardFiles, chosen: ClipIndex, fps: float) -> list[float]:
    """Different source frames behind the stored ones, a second of the clip."""
    rates, opened = [], {}
    for shard, row in zip(chosen.shards, chosen.rows.tolist(), strict=True):
        if shard not in opened:
            file = feature_file("rgb")
            column = files.open(shard, file).schema.get_field_index("pts_s")
            opened[shard] = files.open(shard, file, fields=[column])
        times = opened[shard].get_batch(row).column("pts_s")[0].as_py()
        if times:
            rates.append(fps * len(set(times)) / len(times))
    return rates


def spread(values: Float[np.ndarray, " clips"]) -> Mapping[str, float]:
    """A few numbers that say how values are distributed.

    >>> dict(spread(np.array([1.0, 2.0, 3.0])))
    {'min': 1.0, 'median': 2.0, 'mean': 2.0, 'max': 3.0}
    """
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "max": float(values.max()),
    }
