"""Optical flow as a picture, in the colours in which the field publishes flow: the wheel of Baker et al., "A database
and evaluation methodology for optical flow" (Middlebury), with displacements beyond the scale darkened.

Direction is hue, length is saturation on white: rest is white, right is red, down is yellow, left is cyan-blue.
"""

import numpy as np
from jaxtyping import Float, UInt8

SECTORS = (15, 6, 4, 11, 13, 6)
"""Steps from red to yellow, green, cyan, blue, magenta and back to red: more where the eye tells more hues apart."""

BEYOND = 0.75
"""How bright a displacement beyond the scale is."""


def wheel() -> Float[np.ndarray, "steps 3"]:
    """Red, green and blue of every step, 0 to 1: in each sector one of them rises or falls, the others stay.

    >>> wheel().shape, wheel()[0].tolist(), wheel()[15].tolist()
    ((55, 3), [1.0, 0.0, 0.0], [1.0, 1.0, 0.0])
    """
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]], dtype=float)
    parts = []
    for steps, start, end in zip(SECTORS, corners[:-1], corners[1:], strict=True):
        share = np.floor(255 * np.arange(steps) / steps)[:, None] / 255
        parts.append(start + share * (end - start))
    return np.concatenate(parts)


def flow_picture(flow: Float[np.ndarray, "height width 2"], *, scale_px: float) -> UInt8[np.ndarray, "height width 3"]:
    """A field of displacements (horizontal, vertical; right and down are positive); ``scale_px`` has full colour."""
    colours = wheel()
    across, down = flow[..., 0] / scale_px, flow[..., 1] / scale_px
    length = np.hypot(across, down)[..., None]
    at = (np.arctan2(-down, -across) / np.pi + 1) / 2 * (len(colours) - 1)
    before = np.floor(at).astype(int)
    share = (at - before)[..., None]
    hue = (1 - share) * colours[before] + share * colours[(before + 1) % len(colours)]
    shown = np.where(length <= 1, 1 - length * (1 - hue), hue * BEYOND)
    return np.floor(255 * shown).astype(np.uint8)


def wheel_picture(size_px: int) -> UInt8[np.ndarray, "size size 3"]:
    """The key: every direction at the place it points to, white around it."""
    down, across = np.mgrid[-1 : 1 : size_px * 1j, -1 : 1 : size_px * 1j]
    inside = np.hypot(across, down) <= 1
    return flow_picture(np.stack([across, down], axis=-1) * inside[..., None], scale_px=1.0)
