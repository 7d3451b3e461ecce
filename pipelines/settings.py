"""What a preprocessing job is told, and what it tells."""

from dataclasses import dataclass, field
from typing import Literal

from pipelines.source import DecodeLimits
from schemas.features import FeatureSpec, Modality
from schemas.store_errors import refuse_credentials


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessConfig:
    """What to preprocess, and how."""

    manifest: str
    """Path of the clip manifest (Parquet)."""
    videos: str
    """Root of the media files: local path or fsspec URL."""
    out: str
    """Dataset directory to write: local path or fsspec URL."""
    features: FeatureSpec = field(default_factory=FeatureSpec)
    """What to store."""
    max_error_rate: float = 0.05
    """The job stops and fails once more than this share of all clips has failed."""
    clips_per_shard: int = 256
    """Manifest rows per shard, the unit of work and of resuming."""
    on_change: Literal["refuse", "redo"] = "refuse"
    """What to do with finished shards made from other rows or with other settings."""
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    """What one clip may cost."""

    def __post_init__(self) -> None:
        for url in (self.manifest, self.videos, self.out):
            refuse_credentials(url)
        if not 0 <= self.max_error_rate <= 1:
            raise ValueError(f"max_error_rate must be in [0, 1], got {self.max_error_rate}")
        if self.clips_per_shard < 1:
            raise ValueError(f"clips_per_shard must be at least 1, got {self.clips_per_shard}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessSummary:
    """What came of it."""

    out: str
    """The dataset directory."""
    ok: int
    """Clips stored."""
    failed: int
    """Clips that could not be."""
    reasons: dict[str, int]
    """Failed clips by reason."""
    present: dict[Modality, int]
    """Clips that have a modality, by modality of the dataset."""
    lost_columns: tuple[str, ...]
    """Modalities of the user's own that only some of the shards still hold: the dataset is without them."""
    shards: int
    """Shards of the dataset."""
    kept_shards: int
    """Of these, finished by an earlier run."""
    wall_s: float
    """How long this run took."""
