"""Arrow schemas and the documents beside them: the only thing the other packages share."""

from schemas.conform import require_schema
from schemas.features import MODALITIES, FeatureSpec, FlowSpec, LogmelSpec, Modality, RgbSpec
from schemas.layout import DatasetInfo, ShardDone, ShardEntry, feature_file, shard_name
from schemas.ledger import LEDGER_SCHEMA
from schemas.logmel import LogmelNumbers
from schemas.manifest import SPLITS, make_clip_id, manifest_schema
from schemas.shards import clips_schema, feature_schema
from schemas.task import Task, decode_tasks
from schemas.tensor import TensorSpec, tensor_schema

__all__ = [
    "LEDGER_SCHEMA",
    "MODALITIES",
    "SPLITS",
    "DatasetInfo",
    "FeatureSpec",
    "FlowSpec",
    "LogmelNumbers",
    "LogmelSpec",
    "Modality",
    "RgbSpec",
    "ShardDone",
    "ShardEntry",
    "Task",
    "TensorSpec",
    "clips_schema",
    "decode_tasks",
    "feature_file",
    "feature_schema",
    "make_clip_id",
    "manifest_schema",
    "require_schema",
    "shard_name",
    "tensor_schema",
]
