"""One manifest row to one stored clip, or to the reason why there is none: the boundary where errors become data.

A modality the file lacks is a null and a flag, never an invented array. The clip as a whole fails only when none of the
modalities asked for can be had. Presence flags and the length depend on the file alone, not on which modalities are
stored, so picture and sound are both looked at even when one of them is wanted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.audio import AudioClip
from pipelines.decode import DecodedClip, VideoClip, decode_clip
from pipelines.encode import encode_frame, encode_gray
from pipelines.flow import flow_images
from pipelines.logmel import logmel
from pipelines.source import DecodeError, DecodeLimits
from pipelines.store import local_media
from schemas.features import FeatureSpec, FlowSpec, LogmelSpec, Modality, RgbSpec
from schemas.ledger import Stage

SILENT_PEAK = 1e-4
"""Sound that never exceeds this (-80 dB of full scale) counts as silence."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRecord:
    """A clip that can be stored: the values of its Arrow rows."""

    presence: Row
    """The columns of ``clips.arrow`` that are not in the manifest."""
    features: dict[Modality, Row]
    """One row per requested modality; all but ``clip_id`` null when the clip lacks it."""
    note: str | None = None
    """Damage survived and modalities missing, for the ledger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFailure:
    """A clip that cannot be stored."""

    stage: Stage
    """The step that ended it."""
    reason: str
    """A short slug to count by."""
    message: str
    """One readable line."""


def make_clip(
    row: Mapping[str, Any], *, videos: str, features: FeatureSpec, limits: DecodeLimits | None = None
) -> ClipRecord | ClipFailure:
    """Decode, compute and encode what one manifest row asks for. Never raises: a broken file costs its own row only."""
    try:
        with local_media(videos, row["uri"]) as path:
            decoded = decode_clip(
                path,
                start_s=row["start_s"],
                end_s=row["end_s"],
                rgb=features.rgb,
                sample_rate_hz=features.logmel.sample_rate_hz,
                limits=limits,
            )
        return compute(row["clip_id"], decoded, features)
    except DecodeError as error:
        return ClipFailure(stage=error.stage, reason=error.reason, message=_one_line(str(error)))
    except Exception as error:  # The row boundary: a bug met by one clip must not cost its neighbours.
        return ClipFailure(
            stage=_stage_of(error), reason="internal-error", message=_one_line(f"{type(error).__name__}: {error}")
        )


def compute(clip_id: str, decoded: DecodedClip, features: FeatureSpec) -> ClipRecord | ClipFailure:
    """The stored form of a decoded clip."""
    video, audio = decoded.video, decoded.audio
    wanted: dict[Modality, Row | None] = {}
    for modality in features.modalities:
        if modality == "rgb":
            wanted[modality] = None if video is None else _rgb(video, features.rgb)
        elif modality == "flow":
            wanted[modality] = None if video is None else _flow(video, features.flow)
        else:
            wanted[modality] = None if audio is None else _logmel(audio, decoded.duration_s, features.logmel)
    missing: list[Modality] = [name for name, values in wanted.items() if values is None]
    if len(missing) == len(wanted):
        return _nothing(decoded, missing)
    notes = [*decoded.notes, *(f"no {name}" for name in missing)]
    if decoded.no_video == "bad-span":
        notes.append("the span starts after the end of the picture")
    return ClipRecord(
        presence={
            "duration_s": decoded.duration_s,
            "has_rgb": video is not None,
            "has_audio": audio is not None,
            "silent": audio is not None and float(np.abs(audio.samples).max()) <= SILENT_PEAK,
            "still": video is not None and all(np.array_equal(video.frames[0], f) for f in video.frames[1:]),
        },
        features={name: {"clip_id": clip_id, **(values or {})} for name, values in wanted.items()},
        note="; ".join(notes) or None,
    )


def _rgb(video: VideoClip, spec: RgbSpec) -> Row:
    stored: list[bytes] = []
    for i, frame in enumerate(video.frames):
        if i and video.pts_s[i] == video.pts_s[i - 1]:
            stored.append(stored[-1])  # The same source frame again: the same bytes.
        else:
            stored.append(encode_frame(frame, codec=spec.codec, jpeg_quality=spec.jpeg_quality))
    height, width = video.frames.shape[1:3]
    return {"height": height, "width": width, "pts_s": video.pts_s, "frames": stored}


def _flow(video: VideoClip, spec: FlowSpec) -> Row | None:
    images = flow_images(video.frames, spec)
    if not images:
        return None
    height, width = video.frames.shape[1:3]
    return {
        "height": height,
        "width": width,
        "pts_s": video.pts_s[: len(images)],
        "fields": [encode_gray(image, codec=spec.codec, jpeg_quality=spec.jpeg_quality) for image in images],
    }


def _logmel(audio: AudioClip, duration_s: float, spec: LogmelSpec) -> Row:
    values = logmel(audio.samples, duration_s=duration_s, spec=spec)
    return {
        "n_frames": values.shape[0],
        "n_mels": values.shape[1],
        "audio_start_s": audio.start_s,
        "audio_end_s": audio.end_s,
        "values": values.reshape(-1),
    }


def _nothing(decoded: DecodedClip, missing: list[Modality]) -> ClipFailure:
    """Why a clip that has none of the requested modalities has none."""
    asked = ", ".join(missing)
    if "flow" in missing and decoded.video is not None:
        return ClipFailure(stage="flow", reason="too-few-frames", message=f"{len(decoded.video.frames)} stored frames")
    if "rgb" in missing or "flow" in missing:
        reason, kind, stage = decoded.no_video or "no-frames", "video", "video"
    else:
        reason, kind, stage = decoded.no_audio or "no-samples", "audio", "audio"
    if reason == "bad-span":
        stage, what = "plan", "the span starts after the end of the picture"
    else:
        what = f"no {kind} stream" if reason.endswith("stream") else f"nothing in the {kind} stream"
    return ClipFailure(stage=stage, reason=reason, message="; ".join([what, *decoded.notes, f"requested: {asked}"]))


def _stage_of(error: Exception) -> Stage:
    """Which step an unexpected error came from, by the module that raised it."""
    stages: dict[str, Stage] = {
        "pipelines.decode": "video",
        "pipelines.audio": "audio",
        "pipelines.flow": "flow",
        "pipelines.logmel": "logmel",
        "pipelines.encode": "encode",
    }
    trace, stage = error.__traceback__, "open"
    while trace is not None:
        stage = stages.get(trace.tb_frame.f_globals.get("__name__", ""), stage)
        trace = trace.tb_next
    return stage  # pyright: ignore[reportReturnType]


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
