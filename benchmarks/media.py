"""Media for the benchmarks, made on the spot: H.264 and AAC in mp4, with texture and movement in every picture.

Flat or still pictures would make decoding, flow and JPEG look cheap. Files of one set repeat a few distinct ones under
many names (hard links), because making them costs more than reading them.
"""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

SOUND_HZ = 44_100


def write_clips(
    root: Path, *, clips: int, distinct: int, seconds: float, height: int = 256, width: int = 340, fps: int = 30
) -> list[str]:
    """Write ``clips`` files below ``root`` and return their names, sorted."""
    root.mkdir(parents=True, exist_ok=True)
    names = [f"clip{i:05d}.mp4" for i in range(clips)]
    for i, name in enumerate(names):
        if i < distinct:
            write_clip(root / name, seed=i, seconds=seconds, height=height, width=width, fps=fps)
        else:
            os.link(root / names[i % distinct], root / name)
    return names


def write_clip(path: Path, *, seed: int, seconds: float, height: int, width: int, fps: int) -> None:
    """One file: a scrolling textured ground, three textured patches that cross it, and two tones with noise."""
    rng = np.random.default_rng(seed)
    ground = _texture(rng, 2 * height, 2 * width)
    patches = [_texture(rng, height // 4, width // 4) for _ in range(3)]
    with av.open(str(path), "w", format="mp4") as container:
        options = {"preset": "veryfast", "crf": "23", "g": str(4 * fps)}
        video: Any = container.add_stream("libx264", rate=fps, options=options)
        video.width, video.height, video.pix_fmt, video.thread_count = width, height, "yuv420p", 1
        audio: Any = container.add_stream("aac", rate=SOUND_HZ, layout="stereo", bit_rate=128_000)
        for i in range(round(seconds * fps)):
            picture = _picture(ground, patches, time_s=i / fps, height=height, width=width)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(_sound(rng, seconds), format="s16", layout="stereo")
        sound.sample_rate, sound.pts, sound.time_base = SOUND_HZ, 0, Fraction(1, SOUND_HZ)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise of two sizes, smooth enough for an encoder and rough enough for optical flow."""
    coarse = cv2.resize(rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), np.uint8), (width, height))
    fine = cv2.resize(rng.integers(0, 256, (height // 3 + 2, width // 3 + 2, 3), np.uint8), (width, height))
    return cv2.addWeighted(coarse, 0.7, fine, 0.3, 0.0)


def _picture(ground: np.ndarray, patches: list[np.ndarray], *, time_s: float, height: int, width: int) -> np.ndarray:
    """What is on screen at a time: everything moves by tens of pixels a second."""
    x, y = round(0.08 * width * time_s) % width, round(0.05 * height * time_s) % height
    picture = ground[y : y + height, x : x + width].copy()
    for i, patch in enumerate(patches):
        tall, wide = patch.shape[:2]
        x = round((0.1 + 0.12 * i) * width * time_s + 40 * i) % (width - wide)
        y = round((0.15 - 0.04 * i) * height * time_s + 30 * i) % (height - tall)
        picture[y : y + tall, x : x + wide] = patch
    return picture


def _sound(rng: np.random.Generator, seconds: float) -> np.ndarray:
    time_s = np.arange(round(seconds * SOUND_HZ)) / SOUND_HZ
    tones = 0.2 * np.sin(2 * np.pi * 440 * time_s) + 0.1 * np.sin(2 * np.pi * 1_313 * time_s)
    mixed = tones + rng.normal(0, 0.02, len(time_s))
    return np.repeat((mixed * 32_767).astype(np.int16), 2)[None]
