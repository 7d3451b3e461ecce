"""Media files for tests, written on the fly: lossless where a test compares values, H.264 + AAC where it need not."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

MILLISECOND = Fraction(1, 1000)


def gray_level(level: int, *, height: int = 48, width: int = 64) -> np.ndarray:
    """A flat picture that says which source frame it is."""
    return np.full((height, width, 3), level, np.uint8)


def moving_square(
    i: int, *, height: int = 64, width: int = 96, side: int = 24, step_px: tuple[int, int] = (3, 0)
) -> np.ndarray:
    """A textured square that moves by ``step_px`` (right, down) a frame over a dark ground."""
    picture = np.full((height, width, 3), 32, np.uint8)
    texture = np.random.default_rng(0).integers(64, 255, (side, side, 1)).repeat(3, axis=2).astype(np.uint8)
    x, y = 8 + step_px[0] * i, 20 + step_px[1] * i
    picture[y : y + side, x : x + side] = texture
    return picture


def tone(hz: float, *, seconds: float, rate: int = 16_000, peak: float = 0.25) -> np.ndarray:
    """A sine."""
    return (peak * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_media(
    path: Path,
    *,
    pts_s: Sequence[float] | None = None,
    picture: Callable[[int], np.ndarray] = lambda i: gray_level(min(255, 5 * i)),
    sound: np.ndarray | None = None,
    sound_start_s: float = 0.0,
    rate: int = 16_000,
    video_codec: str = "ffv1",
    audio_codec: str = "pcm_s16le",
    gop: int = 12,
) -> Path:
    """Write one file: frame i shows ``picture(i)`` from ``pts_s[i]`` on. A stream without data is left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = audio = None
        if pts_s is not None:
            video = container.add_stream(video_codec, rate=Fraction(25))
            height, width = picture(0).shape[:2]
            video.width, video.height, video.time_base = width, height, MILLISECOND
            video.codec_context.time_base = MILLISECOND
            video.pix_fmt = "bgr0" if video_codec == "ffv1" else "yuv420p"
            video.codec_context.gop_size = gop
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=rate, layout="mono")
        if video is not None:
            for i, at_s in enumerate(pts_s or ()):
                frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
                frame.pts, frame.time_base = round(at_s * 1000), MILLISECOND
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio is not None and sound is not None:
            done = 0
            for at in range(0, len(sound), 1024):
                piece = np.round(sound[at : at + 1024] * 32767).astype(np.int16)[None]
                block = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
                block.sample_rate, block.time_base = rate, Fraction(1, rate)
                block.pts = done + round(sound_start_s * rate)
                done += piece.shape[1]
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def steady(seconds: float, fps: float = 25.0) -> list[float]:
    """Presentation times of a constant rate."""
    return [i / fps for i in range(round(seconds * fps))]


def ordinary_clip(path: Path, *, seconds: float = 0.8, hz: float = 440.0) -> Path:
    """A small H.264 + AAC clip with a moving square and a tone."""
    return write_media(
        path,
        pts_s=steady(seconds),
        picture=moving_square_small,
        sound=tone(hz, seconds=seconds),
        video_codec="libx264",
        audio_codec="aac",
    )


def moving_square_small(i: int) -> np.ndarray:
    """A square that stays inside a small picture."""
    return moving_square(i % 16, height=48, width=64, side=16, step_px=(2, 0))
