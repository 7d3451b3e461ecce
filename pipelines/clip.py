"""The clips of one source file to stored rows, or to the reasons why there are none: where errors become data.

A clip is had when it has picture or sound, whatever modalities are asked for: so the clips of a dataset do not depend
on them, and a modality can be added later. One that a clip lacks is a null and a flag, never an invented array. A
broken file costs its own clips only, and nothing that a file does raises here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.audio import AudioClip
from pipelines.decode import decode_spans
from pipelines.encode import encode_frame, encode_gray
from pipelines.flow import flow_images
from pipelines.logmel import logmel
from pipelines.messages import ClipFailure, ClipRequest, SourceRequest
from pipelines.picture import VideoClip
from pipelines.source import DecodeError, DecodeLimits, OutOfMemoryError
from pipelines.store import local_media
from pipelines.take import DecodedClip, Span
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
    """One row per modality computed; all but ``clip_id`` null when the clip lacks it."""
    note: str | None = None
    """Damage survived and parts missing, for the ledger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipResult:
    """What came of one clip of a request."""

    index: int
    """Which of the request's clips."""
    made: ClipRecord | ClipFailure
    """The clip, or why there is none."""


def make_clips(
    request: SourceRequest,
    *,
    videos: str,
    features: FeatureSpec,
    limits: DecodeLimits | None = None,
    scratch: str | None = None,
) -> Iterator[ClipResult]:
    """Decode, compute and encode the clips of one file, each given as soon as it is complete.

    ``scratch`` is a directory for files that have to be downloaded.
    """
    limits = limits or DecodeLimits()
    waiting = set(range(len(request.clips)))
    spans = [Span(start_s=c.start_s, end_s=c.end_s, duration_s=c.duration_s) for c in request.clips]
    try:
        with local_media(videos, request.uri, scratch=scratch, max_bytes=int(limits.max_file_gib * 2**30)) as path:
            decoded = decode_spans(
                path,
                spans,
                rgb=features.rgb,
                sample_rate_hz=features.logmel.sample_rate_hz,
                limits=limits,
                parts=request.parts,
            )
            for result in decoded:
                waiting.discard(result.index)
                yield ClipResult(index=result.index, made=_made(request, result.index, result.clip, features))
    except Exception as error:  # It concerns the file: every clip that has no result yet.
        failure = _failure(error)
        for index in sorted(waiting):
            yield ClipResult(index=index, made=failure)


def _made(
    request: SourceRequest, index: int, decoded: DecodedClip | DecodeError, features: FeatureSpec
) -> ClipRecord | ClipFailure:
    try:
        if isinstance(decoded, DecodeError):
            raise decoded
        return compute(request.clips[index], decoded, features, request.modalities)
    except Exception as error:  # The row boundary: a bug met by one clip must not cost its neighbours.
        return _failure(error)


def _failure(error: Exception) -> ClipFailure:
    """An error as a ledger row's reason."""
    if isinstance(error, MemoryError):
        error = OutOfMemoryError("decoding it needs more memory than --limits.max-memory-gib allows")
    if isinstance(error, DecodeError):
        return ClipFailure(stage=error.stage, reason=error.reason, message=_one_line(str(error)))
    return ClipFailure(
        stage=_stage_of(error), reason="internal-error", message=_one_line(f"{type(error).__name__}: {error}")
    )


def compute(
    clip: ClipRequest, decoded: DecodedClip, features: FeatureSpec, modalities: tuple[Modality, ...]
) -> ClipRecord | ClipFailure:
    """The stored form of a decoded clip."""
    video, audio = decoded.video, decoded.audio
    if video is None and audio is None and clip.duration_s is None:
        return _nothing(decoded)
    stored: dict[Modality, Row | None] = {}
    for modality in modalities:
        if modality == "rgb":
            stored[modality] = None if video is None else _rgb(video, features.rgb)
        elif modality == "flow":
            stored[modality] = None if video is None else _flow(video, features.flow)
        else:
            stored[modality] = None if audio is None else _logmel(audio, decoded.duration_s, features.logmel)
    notes = list(decoded.notes)
    if decoded.no_video is not None:
        notes.append("the span starts after the picture's end" if decoded.no_video == "bad-span" else "no picture")
    if decoded.no_audio is not None:
        notes.append("no sound")
    return ClipRecord(
        presence={
            "duration_s": decoded.duration_s,
            "frames": 0 if video is None else len(video.frames),
            "has_rgb": video is not None,
            "has_audio": audio is not None,
            "silent": audio is not None and float(np.abs(audio.samples).max()) <= SILENT_PEAK,
            "still": video is not None and all(np.array_equal(video.frames[0], f) for f in video.frames[1:]),
        },
        features={name: {"clip_id": clip.clip_id, **(values or {})} for name, values in stored.items()},
        note="; ".join(notes) or None,
    )


def _rgb(video: VideoClip, spec: RgbSpec) -> Row:
    stored: list[bytes] = []
    for i, frame in enumerate(video.frames):
        if i and video.pts_s[i] == video.pts_s[i - 1]:
            stored.append(stored[-1])  # The same source frame again: the same bytes.
        else:
            stored.append(encode_frame(frame, codec=spec.codec, jpeg_quality=spec.jpeg_quality))
    height, width = video.frames[0].shape[:2]
    return {"height": height, "width": width, "pts_s": video.pts_s, "frames": stored}


def _flow(video: VideoClip, spec: FlowSpec) -> Row | None:
    images = flow_images(video.frames, spec)
    if not images:
        return None
    height, width = video.frames[0].shape[:2]
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


def _nothing(decoded: DecodedClip) -> ClipFailure:
    """Why a clip has neither picture nor sound."""
    found: tuple[Stage, str, str]
    if decoded.no_video == "bad-span":
        found = "plan", "bad-span", "the span starts after the end of the picture, and there is no sound in it"
    elif decoded.no_video == "no-frames":
        found = "video", "no-frames", "no frame of the picture can be decoded in the span, and there is no sound in it"
    elif decoded.no_audio == "no-samples":
        found = "audio", "no-samples", "there is no picture, and no sound in the span"
    else:
        found = "open", "no-streams", "there is neither a picture nor a sound stream"
    stage, reason, what = found
    return ClipFailure(stage=stage, reason=reason, message="; ".join([what, *decoded.notes]))


def _stage_of(error: Exception) -> Stage:
    """Which step an unexpected error came from, by the module that raised it."""
    stages: dict[str, Stage] = {
        "pipelines.decode": "video",
        "pipelines.reading": "video",
        "pipelines.picture": "video",
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
