import io

import numpy as np
from PIL import Image

from pipelines.encode import encode_frame, encode_gray


def test_another_library_reads_the_same_colours_from_the_jpeg():
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:, :24, 2] = 220  # The last channel is red.
    frame[:, 24:, 0] = 220
    read = np.asarray(Image.open(io.BytesIO(encode_frame(frame, codec="jpeg", jpeg_quality=95))))
    assert np.abs(read[:, 4:16].astype(int) - [220, 0, 0]).max() < 12
    assert np.abs(read[:, 32:44].astype(int) - [0, 0, 220]).max() < 12


def test_raw_frames_come_back_exactly_with_red_first():
    frame = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    data = encode_frame(frame, codec="raw", jpeg_quality=90)
    assert np.array_equal(np.frombuffer(data, np.uint8).reshape(6, 8, 3), frame[..., ::-1])


def test_a_gray_image_stays_gray():
    image = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (16, 1))
    read = Image.open(io.BytesIO(encode_gray(image, codec="jpeg", jpeg_quality=95)))
    assert read.mode == "L"
    assert np.abs(np.asarray(read).astype(int) - image).max() <= 3
