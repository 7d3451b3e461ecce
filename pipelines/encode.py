"""Images to bytes: JPEG through OpenCV, or the raw array."""

from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8

Codec = Literal["jpeg", "raw"]


def encode_frame(frame: UInt8[np.ndarray, "height width 3"], *, codec: Codec, jpeg_quality: int) -> bytes:
    """A frame in the order blue, green, red as it is stored: raw ones in the order red, green, blue.

    >>> len(encode_frame(np.zeros((4, 6, 3), np.uint8), codec="raw", jpeg_quality=90))
    72
    """
    if codec == "raw":
        return frame[..., ::-1].tobytes()
    return _jpeg(frame, jpeg_quality)


def encode_gray(image: UInt8[np.ndarray, "height width"], *, codec: Codec, jpeg_quality: int) -> bytes:
    """A gray image, such as a flow field, as it is stored.

    >>> encode_gray(np.zeros((8, 8), np.uint8), codec="jpeg", jpeg_quality=95)[:2].hex()
    'ffd8'
    """
    return image.tobytes() if codec == "raw" else _jpeg(image, jpeg_quality)


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV could not write a JPEG"
    return data.tobytes()
