"""The Arrow files of one shard. Row i of every file is the same clip; a modality a clip lacks is a null there.

All are Arrow IPC *files*, uncompressed (JPEG does not shrink), with one clip per record batch in the feature files, so
that a shuffled reader maps the file and touches only the clips it asks for. Plain Arrow types only. Times are seconds
from the start of the clip's span.
"""

import json

import pyarrow as pa

from schemas.features import SPEC_KEY, FeatureSpec, Modality
from schemas.manifest import IDENTITY_FIELDS
from schemas.task import Task, encode_tasks, label_fields

PRESENCE_FIELDS: tuple[pa.Field, ...] = (
    pa.field("duration_s", pa.float64(), nullable=False),  # of the span as found in the file
    pa.field("frames", pa.int32(), nullable=False),  # at the stored rate, stored or not; 0 without a picture
    pa.field("has_rgb", pa.bool_(), nullable=False),  # a video stream gave at least one frame
    pa.field("has_audio", pa.bool_(), nullable=False),  # an audio stream gave at least one sample in the span
    pa.field("silent", pa.bool_(), nullable=False),  # there is audio and every sample is (near) zero
    pa.field("still", pa.bool_(), nullable=False),  # there is video and all stored frames are the same
)
"""What the clip turned out to hold; what to do about a missing part is the training run's policy."""

RGB_FIELDS: tuple[pa.Field, ...] = (
    pa.field("clip_id", pa.string(), nullable=False),
    pa.field("height", pa.int32()),
    pa.field("width", pa.int32()),
    pa.field("pts_s", pa.list_(pa.float64())),  # presentation time of each stored frame
    pa.field("frames", pa.list_(pa.large_binary())),  # one encoded image per stored frame
)

FLOW_FIELDS: tuple[pa.Field, ...] = (
    pa.field("clip_id", pa.string(), nullable=False),
    pa.field("height", pa.int32()),  # of the frame; the stored image is twice as high
    pa.field("width", pa.int32()),
    pa.field("pts_s", pa.list_(pa.float64())),  # presentation time of the first frame of each pair
    pa.field("fields", pa.list_(pa.large_binary())),  # one encoded gray image per pair: u above v
)

LOGMEL_FIELDS: tuple[pa.Field, ...] = (
    pa.field("clip_id", pa.string(), nullable=False),
    pa.field("n_frames", pa.int32()),
    pa.field("n_mels", pa.int32()),
    pa.field("audio_start_s", pa.float64()),  # real samples lie in [audio_start_s, audio_end_s); the rest is padding
    pa.field("audio_end_s", pa.float64()),
    pa.field("values", pa.list_(pa.float16())),  # n_frames x n_mels, row major, natural log
)

FEATURE_FIELDS: dict[Modality, tuple[pa.Field, ...]] = {
    "rgb": RGB_FIELDS,
    "flow": FLOW_FIELDS,
    "logmel": LOGMEL_FIELDS,
}


def clips_schema(tasks: tuple[Task, ...]) -> pa.Schema:
    """``clips.arrow``: identity and labels from the manifest, then what was found."""
    return pa.schema([*IDENTITY_FIELDS, *label_fields(tasks), *PRESENCE_FIELDS], metadata=encode_tasks(tasks))


def feature_schema(modality: Modality, spec: FeatureSpec) -> pa.Schema:
    """``<modality>.arrow``, its spec in the metadata."""
    metadata = {SPEC_KEY: json.dumps(spec.describe(modality), sort_keys=True).encode()}
    return pa.schema(list(FEATURE_FIELDS[modality]), metadata=metadata)
