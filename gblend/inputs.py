"""Stored bytes to network inputs: decode only the window's images, scale, crop, normalise.

Until the device, frames stay uint8 and flow stays quantised, so little is moved; `to_inputs` makes floats of whole
batches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from gblend.clips import Encoded, StoredClip
from gblend.config import InputConfig
from gblend.masks import Mask, blot_out, draw_masks
from gblend.windows import audio_mask, frame_indices, mel_positions, mel_window, start_count
from schemas import FeatureSpec, TensorSpec

RGB_MEAN = (110.201, 100.64, 95.997)
"""Of 0..255, from the code released by the paper's authors."""
RGB_STD = (58.149, 56.470, 55.332)


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Where a sample lies in its clip."""

    start_frame: int
    """First stored frame."""
    top: float
    """Vertical place of the crop, 0 (top) to 1 (bottom)."""
    left: float
    """Horizontal place of the crop, 0 to 1."""
    mirrored: bool
    """Flipped left to right."""
    short_side_px: int | None = None
    """Length to which the short side is resized; None: that of central windows."""
    time_masks: tuple[Mask, ...] = ()
    """Over log-mel frames."""
    band_masks: tuple[Mask, ...] = ()
    """Over mel bands."""


def choose_window(clip: StoredClip, config: InputConfig, rng: np.random.Generator | None) -> Window:
    """A random window with ``rng``, the central one without.

    What a setting names changes nothing else: the numbers of a window are always drawn, and masks, of which there may
    be any number, come from streams of their own.
    """
    starts = count_starts(clip, config)
    if rng is None:
        return Window(start_frame=(starts - 1) // 2, top=0.5, left=0.5, mirrored=False)
    start, top, left, coin, side = int(rng.integers(starts)), *rng.random(4).tolist()
    masks: dict[str, tuple[Mask, ...]] = {}
    if config.time_masks[0] or config.band_masks[0]:
        over_time, over_bands = rng.spawn(2)
        masks["time_masks"] = draw_masks(over_time, config.time_masks[0])
        masks["band_masks"] = draw_masks(over_bands, config.band_masks[0])
    return Window(
        start_frame=start,
        top=top,
        left=left,
        mirrored=config.flip == "horizontal" and coin < 0.5,
        short_side_px=config.jitter_px[int(side * len(config.jitter_px))] if config.jitter_px else None,
        **masks,
    )


def count_starts(clip: StoredClip, config: InputConfig) -> int:
    """How many places a window has in a clip; one in a clip without a picture."""
    counts = [len(images) for images in (clip.rgb, clip.flow) if images is not None]
    return start_count(min(counts), frames=config.frames, step=config.frame_step) if counts else 1


def cut_window(
    clip: StoredClip,
    window: Window,
    config: InputConfig,
    spec: FeatureSpec,
    modalities: tuple[str, ...],
    *,
    columns: Mapping[str, TensorSpec] | None = None,
) -> dict[str, np.ndarray]:
    """The window's arrays per modality; zeros where the clip has none (the presence mask says so).

    ``columns`` are the user's own tensors, which are seen whole, wherever the window lies.

    Returns:
        rgb: uint8 (frames, crop, crop, 3); flow: uint8 (frames, 2, crop, crop), quantised; logmel: float32
        (mel_frames, mels); a user's own: see `whole_tensor`.
    """
    arrays: dict[str, np.ndarray] = {}
    size = config.crop_px
    for modality in modalities:
        if columns and modality in columns:
            arrays[modality] = whole_tensor(clip.own.get(modality), columns[modality])
            continue
        if modality == "logmel":
            if clip.logmel is None:
                arrays[modality] = np.zeros((config.mel_frames, spec.logmel.mels), dtype=np.float32)
                continue
            logmel = mel_window(clip.logmel, _mel_positions(window, config, spec), silence=spec.logmel.silence)
            if window.time_masks or window.band_masks:
                logmel = blot_out(
                    logmel,
                    frames=window.time_masks,
                    frames_width=config.time_masks[1],
                    bands=window.band_masks,
                    bands_width=config.band_masks[1],
                    fill=spec.logmel.mean,
                )
            arrays[modality] = logmel
            continue
        images = clip.rgb if modality == "rgb" else clip.flow
        if images is None:
            shape = (config.frames, size, size, 3) if modality == "rgb" else (config.frames, 2, size, size)
            arrays[modality] = np.zeros(shape, dtype=np.uint8)
            continue
        indices = frame_indices(window.start_frame, stored=len(images), frames=config.frames, step=config.frame_step)
        cut = _cut_rgb if modality == "rgb" else _cut_flow
        arrays[modality] = cut([images[i] for i in indices.tolist()], clip, window, config, spec)
    return arrays


def whole_tensor(values: Float32[np.ndarray, "*axes"] | None, spec: TensorSpec) -> Float32[np.ndarray, "*moved"]:
    """A user's own tensor as its network sees it: standardised channel by channel, the channels first; zeros for none.

    >>> spec = TensorSpec(shape=(2, 1), mean=(1.0,), sd=(2.0,), sha256="")
    >>> whole_tensor(np.array([[3.0], [5.0]], dtype=np.float32), spec).tolist()
    [[1.0, 2.0]]
    """
    if values is None:
        return np.zeros((spec.channels, *spec.shape[:-1]), dtype=np.float32)
    standard = (values - np.array(spec.mean)) / np.array(spec.sd)  # In double: a mean may be far larger than its sd.
    return np.ascontiguousarray(np.moveaxis(standard, -1, 0), dtype=np.float32)


def sound_mask(
    clip: StoredClip, window: Window, config: InputConfig, spec: FeatureSpec
) -> Bool[np.ndarray, " mel_frames"]:
    """Which of the window's log-mel frames show real sound; the others are the silence that padding is stored as."""
    if clip.logmel is None:
        return np.zeros(config.mel_frames, dtype=bool)
    return audio_mask(
        _mel_positions(window, config, spec),
        hop_s=spec.logmel.hop_s,
        first_centre_s=spec.logmel.first_centre_s,
        audio_start_s=clip.audio_start_s,
        audio_end_s=clip.audio_end_s,
    )


def window_spec(spec: FeatureSpec, config: InputConfig) -> FeatureSpec:
    """The spec of central windows as they are cut: resizing a picture resizes its motion, so the bound of the
    displacements is in pixels of the resized picture. The levels stay as they are, and lose nothing.

    >>> small = window_spec(FeatureSpec(), InputConfig(scale_px=64, crop_px=56))
    >>> FeatureSpec().flow.bound_px, small.flow.bound_px
    (20.0, 10.0)
    """
    stored_px = min(spec.rgb.fixed_size_px or (spec.rgb.short_side_px,))
    scale = _short_side_px(stored_px, config, None) / stored_px
    return replace(spec, flow=replace(spec.flow, bound_px=spec.flow.bound_px * scale))


def enlargement(window: Window, spec: FeatureSpec, config: InputConfig) -> float:
    """How much larger the window's picture is than that of a central window, and with it every displacement.

    >>> window = Window(start_frame=0, top=0.0, left=0.0, mirrored=False, short_side_px=80)
    >>> enlargement(window, FeatureSpec(), InputConfig(scale_px=64, crop_px=56))
    1.25
    """
    stored_px = min(spec.rgb.fixed_size_px or (spec.rgb.short_side_px,))
    return _short_side_px(stored_px, config, window) / _short_side_px(stored_px, config, None)


def to_inputs(
    arrays: Mapping[str, Tensor], spec: FeatureSpec, *, enlarged: Float[Tensor, " batch"] | None = None
) -> dict[str, Tensor]:
    """Batches of window arrays, on their device, as float inputs (batch, channels, ...).

    rgb is standardised; flow becomes displacement in pixels, of the picture the network sees when ``spec`` comes from
    `window_spec` and ``enlarged`` from `enlargement`, clip by clip (None: 1); logmel is standardised by its recipe,
    because an untrained BatchNorm is not. A user's own tensors, under any other name, stay as they are: `whole_tensor`
    has standardised them.
    """
    inputs: dict[str, Tensor] = {}
    for name, values in arrays.items():
        if name == "rgb":
            # Not made on the device: a GPU would be waited for.
            mean, std = (torch.tensor(each).to(values.device, non_blocking=True) for each in (RGB_MEAN, RGB_STD))
            inputs[name] = ((values.float() - mean) / std).permute(0, 4, 1, 2, 3)
        elif name == "flow":
            of_clip = 1.0 if enlarged is None else enlarged.view(-1, 1, 1, 1, 1)
            bound = spec.flow.bound_px
            pixels = values.float() * (of_clip * (2.0 * bound / 255.0)) - of_clip * bound
            inputs[name] = pixels.permute(0, 2, 1, 3, 4)
        elif name == "logmel":
            inputs[name] = ((values - spec.logmel.mean) / spec.logmel.sd).unsqueeze(1)
        else:
            inputs[name] = values.float()
    return inputs


def _cut_rgb(
    images: Sequence[Encoded], clip: StoredClip, window: Window, config: InputConfig, spec: FeatureSpec
) -> np.ndarray:
    cut = np.empty((len(images), config.crop_px, config.crop_px, 3), dtype=np.uint8)
    for data, place in zip(images, cut, strict=True):
        if spec.rgb.codec == "raw":
            image = np.frombuffer(data, dtype=np.uint8).reshape(clip.height, clip.width, 3)
        else:
            image = decode_image(data, "rgb")
        _cut_into(place, image, window, config)
    return cut


def _cut_flow(
    images: Sequence[Encoded], clip: StoredClip, window: Window, config: InputConfig, spec: FeatureSpec
) -> np.ndarray:
    cut = np.empty((len(images), 2, config.crop_px, config.crop_px), dtype=np.uint8)
    for data, place in zip(images, cut, strict=True):
        image = np.frombuffer(data, dtype=np.uint8) if spec.flow.codec == "raw" else decode_image(data, "flow")
        for component, its_place in zip(image.reshape(2, clip.height, clip.width), place, strict=True):
            _cut_into(its_place, component, window, config)
    if window.mirrored:
        # Mirroring the picture mirrors the motion: the horizontal displacement changes its sign, and level its side.
        np.subtract(255, cut[:, 0], out=cut[:, 0])
    return cut


def decode_image(data: Encoded, modality: Literal["rgb", "flow"]) -> np.ndarray:
    """What an encoded image of ``rgb.arrow`` or ``flow.arrow`` is when it is stored raw."""
    mode = cv2.IMREAD_COLOR_RGB if modality == "rgb" else cv2.IMREAD_GRAYSCALE
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), mode)
    if image is None:
        raise ValueError(
            "a stored image cannot be decoded: the shard is damaged; delete it and rerun `gblend preprocess`"
        )
    return image


def _mel_positions(window: Window, config: InputConfig, spec: FeatureSpec) -> Float[np.ndarray, " mel_frames"]:
    return mel_positions(
        start_s=window.start_frame / spec.rgb.fps,
        window_s=config.frames * config.frame_step / spec.rgb.fps,
        hop_s=spec.logmel.hop_s,
        frames=config.mel_frames,
        alignment=config.mel_alignment,
    )


def _short_side_px(stored_px: int, config: InputConfig, window: Window | None) -> int:
    """To which a picture's short side is resized; without a window, for a central one."""
    if window is not None and window.short_side_px is not None:
        return window.short_side_px
    return config.scale_px if config.scale_px is not None else max(stored_px, config.crop_px)


def _scale(image: np.ndarray, window: Window, config: InputConfig) -> np.ndarray:
    height, width = image.shape[:2]
    short = _short_side_px(min(height, width), config, window)
    if short == min(height, width):
        return image
    ratio = short / min(height, width)
    size = (max(config.crop_px, round(width * ratio)), max(config.crop_px, round(height * ratio)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)


def _cut_into(place: np.ndarray, image: np.ndarray, window: Window, config: InputConfig) -> None:
    """Write the window's part of a picture, of any number of channels, to its place in a batch of frames."""
    scaled = _scale(image, window, config)
    height, width = scaled.shape[:2]
    top = round(window.top * (height - config.crop_px))
    left = round(window.left * (width - config.crop_px))
    cut = scaled[top : top + config.crop_px, left : left + config.crop_px]
    if window.mirrored:
        cv2.flip(cut, 1, place)  # Several times as fast as a reversed view is copied.
    else:
        place[:] = cut
