"""The Arrow files of one shard. Row i of every file is the same clip; a modality a clip lacks is a null there.

All are Arrow IPC *files*, uncompressed (JPEG does not shrink), with one clip per record batch in the feature files, so
that a shuffled reader maps the file and touches only the clips it asks for. Plain Arrow types only. Times are seconds
from the start of the clip's span.
"""

import json

import pyarrow as pa

from schemas.column import Column, fields_of
from schemas.features import SPEC_KEY, FeatureSpec, Modality
from schemas.manifest import IDENTITY_FIELDS
from schemas.task import Task, encode_tasks, label_fields

PRESENCE_COLUMNS = (
    Column(name="duration_s", type=pa.float64(), nullable=False, meaning="of the span as found in the file"),
    Column(
        name="frames", type=pa.int32(), nullable=False, meaning="at the stored rate, stored or not; 0 without a picture"
    ),
    Column(name="has_rgb", type=pa.bool_(), nullable=False, meaning="a video stream gave at least one frame"),
    Column(
        name="has_audio",
        type=pa.bool_(),
        nullable=False,
        meaning="an audio stream gave at least one sample in the span",
    ),
    Column(name="silent", type=pa.bool_(), nullable=False, meaning="there is audio and every sample is (near) zero"),
    Column(name="still", type=pa.bool_(), nullable=False, meaning="there is video and all stored frames are the same"),
)
"""What the clip turned out to hold; what to do about a missing part is the training run's policy."""

RGB_COLUMNS = (
    Column(name="clip_id", type=pa.string(), nullable=False, meaning="name of the clip"),
    Column(name="height", type=pa.int32(), meaning="of a frame, in pixels"),
    Column(name="width", type=pa.int32(), meaning="of a frame, in pixels"),
    Column(
        name="pts_s",
        type=pa.list_(pa.float64()),
        meaning="presentation time of the source frame behind each stored one, in seconds",
    ),
    Column(name="frames", type=pa.list_(pa.large_binary()), meaning="one encoded image per stored frame"),
)

FLOW_COLUMNS = (
    Column(name="clip_id", type=pa.string(), nullable=False, meaning="name of the clip"),
    Column(name="height", type=pa.int32(), meaning="of a frame, in pixels; the stored image is twice as high"),
    Column(name="width", type=pa.int32(), meaning="of a frame, in pixels; displacements are in these pixels"),
    Column(
        name="pts_s",
        type=pa.list_(pa.float64()),
        meaning="presentation time of the first frame of each pair, in seconds",
    ),
    Column(name="fields", type=pa.list_(pa.large_binary()), meaning="one encoded gray image per pair: u above v"),
)

LOGMEL_COLUMNS = (
    Column(name="clip_id", type=pa.string(), nullable=False, meaning="name of the clip"),
    Column(name="n_frames", type=pa.int32(), meaning="one for each hop in the clip"),
    Column(name="n_mels", type=pa.int32(), meaning="mel bands"),
    Column(
        name="audio_start_s",
        type=pa.float64(),
        meaning="real samples lie in [audio_start_s, audio_end_s); the rest is padding",
    ),
    Column(name="audio_end_s", type=pa.float64(), meaning="see audio_start_s"),
    Column(name="values", type=pa.list_(pa.float16()), meaning="n_frames x n_mels, row major, natural log"),
)

FEATURE_COLUMNS: dict[Modality, tuple[Column, ...]] = {
    "rgb": RGB_COLUMNS,
    "flow": FLOW_COLUMNS,
    "logmel": LOGMEL_COLUMNS,
}


def clips_schema(tasks: tuple[Task, ...]) -> pa.Schema:
    """``clips.arrow``: identity and labels from the manifest, then what was found."""
    return pa.schema(
        [*IDENTITY_FIELDS, *label_fields(tasks), *fields_of(PRESENCE_COLUMNS)], metadata=encode_tasks(tasks)
    )


def feature_schema(modality: Modality, spec: FeatureSpec) -> pa.Schema:
    """``<modality>.arrow``, its spec in the metadata."""
    metadata = {SPEC_KEY: json.dumps(spec.describe(modality), sort_keys=True).encode()}
    return pa.schema(list(fields_of(FEATURE_COLUMNS[modality])), metadata=metadata)
