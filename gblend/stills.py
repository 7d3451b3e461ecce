"""Single pictures of a stored clip, whole, at the stored size: a frame, a flow field, the log-mel of the real sound."""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from gblend.clips import Encoded, StoredClip
from gblend.inputs import decode_image
from schemas import FeatureSpec


def frame(clip: StoredClip, at: int, spec: FeatureSpec) -> UInt8[np.ndarray, "height width 3"]:
    """A frame of a clip that has some."""
    assert clip.rgb is not None
    return _decoded(clip.rgb[at], "rgb", spec.rgb.codec).reshape(clip.height, clip.width, 3)


def field(clip: StoredClip, at: int, spec: FeatureSpec) -> Float32[np.ndarray, "height width 2"]:
    """Displacements (horizontal, vertical) in pixels of the stored frame, of a clip that has some."""
    assert clip.flow is not None
    levels = _decoded(clip.flow[at], "flow", spec.flow.codec).reshape(2, clip.height, clip.width)
    bound_px = np.float32(spec.flow.bound_px)
    return np.moveaxis(levels, 0, -1).astype(np.float32) * (2 * bound_px / 255) - bound_px


def sound(clip: StoredClip, spec: FeatureSpec) -> Float32[np.ndarray, "frames mels"]:
    """The log-mel frames that begin where there is real sound; at least one, of a clip that has sound."""
    assert clip.logmel is not None
    first = min(int(clip.audio_start_s / spec.logmel.hop_s), len(clip.logmel) - 1)
    last = max(first + 1, math.ceil(clip.audio_end_s / spec.logmel.hop_s))
    return clip.logmel[first:last].astype(np.float32)


def moments(stored: int, wanted: int) -> list[int]:
    """Indices in the middle of equal parts of a clip, fewer when it has fewer images.

    >>> moments(9, 3), moments(2, 3)
    ([1, 4, 7], [0, 1])
    """
    parts = min(stored, wanted)
    return [int((part + 0.5) * stored / parts) for part in range(parts)]


def _decoded(data: Encoded, modality: Literal["rgb", "flow"], codec: str) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8) if codec == "raw" else decode_image(data, modality)
