"""What is computed from a clip: one frozen spec per modality, shared by the writer and the reader.

A spec is written into the schema metadata of the modality's file and into ``dataset.json``. Its fingerprint decides
whether a finished shard can be kept: it covers everything the stored values depend on, nothing else.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from schemas.checks import require_number, require_one_of, require_whole
from schemas.flow import FlowSpec
from schemas.logmel import LogmelSpec

Modality = Literal["rgb", "flow", "logmel"]

MODALITIES: tuple[Modality, ...] = get_args(Modality)
"""In the order in which heads, columns and tables list them."""

FORMAT_VERSION = 3
"""Raised whenever the code writes other values or another layout for the same spec."""

SPEC_KEY = b"gblend.feature"
"""Schema metadata key of a modality's file: its spec and those it depends on, as JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RgbSpec:
    """Frames at a fixed rate, picked by presentation time."""

    fps: float = 15.0
    """Stored frames per second. Frame i shows what was on screen at ``start_s + i / fps``."""
    short_side_px: int = 128
    """Frames are scaled so that the shorter side has this length; the other keeps the aspect ratio (even)."""
    fixed_size_px: tuple[int, int] | None = None
    """(height, width) to scale to whatever the aspect ratio; overrides ``short_side_px``."""
    codec: Literal["jpeg", "raw"] = "jpeg"
    """How a frame's bytes are stored; ``raw`` is uint8 RGB, height x width x 3."""
    jpeg_quality: int = 90
    """1 to 100, for the codec ``jpeg``."""

    def __post_init__(self) -> None:
        require_number("rgb.fps", self.fps, most=240.0)
        require_whole("rgb.short_side_px", self.short_side_px, least=16, most=8192)
        if self.fixed_size_px is not None:
            if len(self.fixed_size_px) != 2:
                raise ValueError(f"rgb.fixed_size_px must be height and width, got {self.fixed_size_px}")
            for side_px in self.fixed_size_px:
                require_whole("rgb.fixed_size_px", side_px, least=16, most=8192)
        require_one_of("rgb.codec", self.codec, ("jpeg", "raw"))
        require_whole("rgb.jpeg_quality", self.jpeg_quality, least=1, most=100)


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSpec:
    """Everything a dataset directory's feature files depend on besides the manifest."""

    modalities: tuple[Modality, ...] = MODALITIES
    """What is stored."""
    rgb: RgbSpec = field(default_factory=RgbSpec)
    """Frame sampling; flow is computed on the same frames, stored or not."""
    flow: FlowSpec = field(default_factory=FlowSpec)
    """Optical flow."""
    logmel: LogmelSpec = field(default_factory=LogmelSpec)
    """Log-mel spectrogram."""

    def __post_init__(self) -> None:
        for name in self.modalities:
            if name not in MODALITIES:
                raise ValueError(f"unknown modality {name!r}; allowed: {', '.join(MODALITIES)}")
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"modalities must be distinct and at least one, got {list(self.modalities)}")

    def describe(self, modality: Modality) -> dict[str, Any]:
        """The specs that decide the stored values of one modality, as plain JSON values.

        >>> sorted(FeatureSpec().describe("logmel"))
        ['format_version', 'logmel']
        """
        described: dict[str, Any] = {"format_version": FORMAT_VERSION}
        if modality == "rgb":
            described["rgb"] = asdict(self.rgb)
        elif modality == "flow":
            # Flow is computed before frames are encoded: how rgb.arrow stores them does not matter.
            described["rgb"] = {name: getattr(self.rgb, name) for name in ("fps", "short_side_px", "fixed_size_px")}
            described["flow"] = self.flow.describe()
        else:
            described["logmel"] = self.logmel.describe()
        return json.loads(json.dumps(described))

    def describe_clips(self) -> dict[str, Any]:
        """The specs that decide what ``clips.arrow`` says of a clip, as plain JSON values."""
        rgb = {"fps": self.rgb.fps, "short_side_px": self.rgb.short_side_px, "fixed_size_px": self.rgb.fixed_size_px}
        return json.loads(json.dumps({"format_version": FORMAT_VERSION, "rgb": rgb}))

    def fingerprint(self, modality: Modality) -> str:
        """SHA-256 of `describe`: equal fingerprints mean interchangeable files."""
        return hashlib.sha256(json.dumps(self.describe(modality), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by `from_json`."""
        values = {
            "modalities": self.modalities,
            "rgb": asdict(self.rgb),
            "flow": self.flow.to_json(),
            "logmel": self.logmel.to_json(),
        }
        return json.loads(json.dumps(values))

    def without_places(self) -> "FeatureSpec":
        """The same spec, without where the job that used it found its weights: what a dataset publishes of it."""
        return replace(self, flow=replace(self.flow, raft_weights=None))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "FeatureSpec":
        """The inverse of `to_json`; an unknown key is an error.

        >>> spec = FeatureSpec(rgb=RgbSpec(fps=8.0, fixed_size_px=(48, 48)), modalities=("rgb",))
        >>> FeatureSpec.from_json(spec.to_json()) == spec
        True
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"feature spec has unknown keys {unknown}; it was written by another version")
        rgb = dict(values["rgb"])
        if rgb["fixed_size_px"] is not None:
            rgb["fixed_size_px"] = tuple(rgb["fixed_size_px"])
        return cls(
            modalities=tuple(values["modalities"]),
            rgb=RgbSpec(**rgb),
            flow=FlowSpec(**values["flow"]),
            logmel=LogmelSpec.from_json(values["logmel"]),
        )
