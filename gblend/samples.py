"""A few clips of a data set as the network sees them: the moving picture, flow as colour, the log-mel as an image.

Clips are picked by a fixed seed from all splits, a class that was not shown yet before one that was. With the run's
`InputConfig` a clip is cut to the central window it is measured on; without one it is shown whole, cropped to a square.
A modality that a clip lacks stays None and is shown as absent: nothing is invented for it.
"""

import base64
import dataclasses
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from gblend.clips import ClipIndex, ClipReader, StoredClip, read_dataset_info, read_index
from gblend.config import InputConfig
from gblend.flow_colour import flow_picture, wheel_picture
from gblend.heads import by_key
from gblend.inputs import choose_window, cut_window, window_spec
from gblend.svg import panel
from schemas import SPLITS, DatasetInfo, Task

SHARDS_PER_SPLIT = 4
"""Clips are picked from this many shards, so that a data set of a thousand shards is not read for a few pictures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleClip:
    """One clip to show."""

    clip_id: str
    """As in the manifest."""
    split: str
    """train, val or test."""
    label: str
    """Name of its class; of several tasks with their names."""
    fps: float
    """Frames (and flow fields) per second of the arrays."""
    mel_s: float
    """Seconds that the log-mel spans."""
    rgb: UInt8[np.ndarray, "time height width 3"] | None = None
    """Frames; None where the clip has no picture or the data set no rgb."""
    flow: Float32[np.ndarray, "time height width 2"] | None = None
    """Displacement (horizontal, vertical) in pixels of the shown picture, from one frame to the next."""
    logmel: Float32[np.ndarray, "frames mels"] | None = None
    """As the recipe stores it: a natural logarithm."""


def load_samples(
    data: str, *, config: InputConfig | None = None, per_split: int = 2, seed: int = 0
) -> tuple[SampleClip, ...]:
    """Pick and decode ``per_split`` clips of every split that has any."""
    info = read_dataset_info(data)
    reader = ClipReader(data, info, info.features.modalities)
    rng = np.random.default_rng(seed)
    shown: Counter[str] = Counter()
    samples = []
    for split in SPLITS:
        shards = [shard for shard in info.shards if shard.split == split and shard.clips > 0]
        if not shards:
            continue
        picked = rng.permutation(len(shards))[:SHARDS_PER_SPLIT]
        index = read_index(data, dataclasses.replace(info, shards=tuple(shards[i] for i in sorted(picked))), split, ())
        texts = label_texts(index, by_key(info.tasks))
        left = [int(i) for i in rng.permutation(len(index))]
        for _ in range(min(per_split, len(left))):
            chosen = min(left, key=lambda i: shown[texts[i]])  # the first of the least shown classes
            left.remove(chosen)
            shown[texts[chosen]] += 1
            stored = reader.read(index.shards[chosen], int(index.rows[chosen]))
            samples.append(
                decode_sample(stored, info, config, clip_id=index.clip_ids[chosen], split=split, label=texts[chosen])
            )
    return tuple(samples)


def label_texts(index: ClipIndex, tasks: Mapping[str, Task]) -> list[str]:
    """What every clip is labelled with, in words."""
    columns = {key: index.labels[key].to_pylist() for key in tasks}

    def text(key: str, clip: int) -> str:
        found, task = columns[key][clip], tasks[key]
        classes = [] if found is None else [found] if isinstance(found, int) else found
        words = "unlabelled" if found is None else ", ".join(task.classes[label] for label in classes) or "none"
        return f"{task.name} {words}" if key else words

    return ["; ".join(text(key, clip) for key in tasks) for clip in range(len(index))]


def decode_sample(
    stored: StoredClip, info: DatasetInfo, config: InputConfig | None, *, clip_id: str, split: str, label: str
) -> SampleClip:
    """The arrays of one clip, cut to the central window."""
    spec = info.features
    images = [found for found in (stored.rgb, stored.flow) if found is not None]
    if config is None:
        config = InputConfig(
            frames=min((len(found) for found in images), default=1),
            crop_px=min(stored.height, stored.width) or 1,
            mel_frames=1 if stored.logmel is None else len(stored.logmel),
            mel_alignment="exact",
        )
    arrays = cut_window(stored, choose_window(stored, config, None), config, spec, spec.modalities)
    mel_s = config.mel_frames * spec.logmel.hop_s
    if config.mel_alignment == "stretch":
        mel_s = config.frames * config.frame_step / spec.rgb.fps
    flow = None
    if stored.flow is not None:
        levels = arrays["flow"].transpose(0, 2, 3, 1).astype(np.float32)
        bound_px = window_spec(spec, config).flow.bound_px
        flow = levels * np.float32(2 * bound_px / 255) - np.float32(bound_px)
    return SampleClip(
        clip_id=clip_id,
        split=split,
        label=label,
        fps=spec.rgb.fps / config.frame_step,
        mel_s=mel_s,
        rgb=arrays["rgb"] if stored.rgb is not None else None,
        flow=flow,
        logmel=arrays["logmel"].astype(np.float32) if stored.logmel is not None else None,
    )


def animation(frames: UInt8[np.ndarray, "time height width 3"], *, fps: float) -> str:
    """An endless animated WebP as a data URI."""
    images = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=images[1:],
        duration=max(1, round(1000 / fps)),
        loop=0,
        quality=70,
    )
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def flow_scale_px(flow: Float32[np.ndarray, "time height width 2"]) -> float:
    """Displacement shown in full colour: nearly the clip's largest, at least 1 px so that noise stays pale."""
    return max(1.0, float(np.percentile(np.hypot(flow[..., 0], flow[..., 1]), 99.5)))


def flow_frames(
    flow: Float32[np.ndarray, "time height width 2"], *, scale_px: float
) -> UInt8[np.ndarray, "time height width 3"]:
    """Every field as a picture (`gblend.flow_colour`)."""
    return np.stack([flow_picture(field, scale_px=scale_px) for field in flow])


def flow_wheel(size_px: int = 56) -> str:
    """The key to the flow's colours, as a data URI: every direction at the place it points to, nothing around it."""
    y, x = np.mgrid[-1 : 1 : size_px * 1j, -1 : 1 : size_px * 1j]
    alpha = (np.hypot(x, y) <= 1).astype(np.uint8)[..., None] * np.uint8(255)
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([wheel_picture(size_px), alpha], axis=-1)).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def logmel_svg(logmel: Float32[np.ndarray, "frames mels"], *, name: str, duration_s: float) -> str:
    """The log-mel with its axes: seconds to the right, mel bands upwards."""
    label = f"log-mel spectrogram, {len(logmel)} frames of {logmel.shape[1]} mel bands"
    with panel(name, label, heads=(), width_px=250, height_px=160) as drawn:
        drawn.axes.imshow(
            logmel.T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            interpolation="none",
            extent=(0.0, duration_s, 0.0, float(logmel.shape[1])),
        )
        drawn.axes.grid(visible=False)
        drawn.axes.locator_params(nbins=4)
        drawn.axes.set_xlabel("s")
        drawn.axes.set_ylabel("mel band")
    return drawn.svg[0]
