"""Optical flow between stored frames, at the stored resolution, in the 8 bits it is stored with.

Dense inverse search on gray frames. A displacement is clipped to [-bound, bound] pixels of the stored frame and mapped
linearly to 0..255, as TSN, I3D and denseflow do; with a bound of 20 px one level is 0.157 px, and rest lands on 128.
N frames give N - stride fields: the last frames have no partner, and none is made up.
"""

from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from schemas.features import FlowSpec

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


def quantise(flow_px: Float32[np.ndarray, "*shape"], *, bound_px: float) -> UInt8[np.ndarray, "*shape"]:
    """round(255 (v + B) / 2B), clipped to 0..255.

    >>> quantise(np.array([-99.0, -20.0, 0.0, 10.0, 20.0], np.float32), bound_px=20.0)
    array([  0,   0, 128, 191, 255], dtype=uint8)
    """
    levels = flow_px * np.float32(255 / (2 * bound_px))
    levels += np.float32(127.5)
    np.rint(levels, out=levels)
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8)


def dequantise(levels: UInt8[np.ndarray, "*shape"], *, bound_px: float) -> Float32[np.ndarray, "*shape"]:
    """The displacement a level stands for: 2B u / 255 - B.

    >>> dequantise(np.array([0, 128, 255], np.uint8), bound_px=20.0).round(3).tolist()
    [-20.0, 0.078..., 20.0]
    """
    return levels.astype(np.float32) * np.float32(2 * bound_px / 255) - np.float32(bound_px)


def flow_images(
    frames: UInt8[np.ndarray, "time height width 3"], spec: FlowSpec
) -> list[UInt8[np.ndarray, "height2 width"]]:
    """One gray image a pair of frames, the horizontal component above the vertical one: 2 height x width."""
    cv2.setNumThreads(1)
    solver: Any = cv2.DISOpticalFlow.create(PRESETS[spec.preset])
    # DIS asserts contiguous input; converting to gray makes it so.
    gray = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames]
    images = []
    for first, second in zip(gray, gray[spec.stride :], strict=False):
        flow_px = solver.calc(first, second, None)
        images.append(quantise(np.concatenate([flow_px[..., 0], flow_px[..., 1]]), bound_px=spec.bound_px))
    return images
