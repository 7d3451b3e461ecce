"""What is computed from a clip: one frozen spec per modality, shared by the writer and the reader.

A spec is written into the schema metadata of the modality's file and into ``dataset.json``. Its fingerprint decides
whether a finished shard can be kept: it covers everything the stored values depend on, nothing else.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

Modality = Literal["rgb", "flow", "logmel"]

MODALITIES: tuple[Modality, ...] = get_args(Modality)
"""In the order in which heads, columns and tables list them."""

FORMAT_VERSION = 2
"""Raised whenever the code writes other values or another layout for the same spec."""

SPEC_KEY = b"gblend.feature"
"""Schema metadata key of a modality's file: its spec and those it depends on, as JSON."""


def _require_number(name: str, value: Any, *, most: float) -> None:
    # Written so that NaN fails too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ValueError(f"{name} must be above 0 and at most {most:g}, got {value!r}")


def _require_whole(name: str, value: Any, *, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number in {least}..{most}, got {value!r}")


def _require_one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(allowed)}, got {value!r}")


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
        _require_number("rgb.fps", self.fps, most=240.0)
        _require_whole("rgb.short_side_px", self.short_side_px, least=16, most=8192)
        if self.fixed_size_px is not None:
            if len(self.fixed_size_px) != 2:
                raise ValueError(f"rgb.fixed_size_px must be height and width, got {self.fixed_size_px}")
            for side_px in self.fixed_size_px:
                _require_whole("rgb.fixed_size_px", side_px, least=16, most=8192)
        _require_one_of("rgb.codec", self.codec, ("jpeg", "raw"))
        _require_whole("rgb.jpeg_quality", self.jpeg_quality, least=1, most=100)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowSpec:
    """Optical flow between stored frames, quantised to 8 bits: N frames give N - stride fields."""

    algorithm: Literal["dis"] = "dis"
    """OpenCV's dense inverse search."""
    preset: Literal["ultrafast", "fast", "medium"] = "fast"
    """The algorithm's own speed setting."""
    stride: int = 1
    """Distance in stored frames between the two frames of a pair."""
    bound_px: float = 20.0
    """Displacements are clipped to [-bound_px, bound_px], in pixels of the stored frame, before quantising."""
    codec: Literal["jpeg", "raw"] = "jpeg"
    """One gray image a pair, the horizontal component above the vertical one: 2 height x width."""
    jpeg_quality: int = 95
    """1 to 100, for the codec ``jpeg``."""

    def __post_init__(self) -> None:
        _require_one_of("flow.algorithm", self.algorithm, ("dis",))
        _require_one_of("flow.preset", self.preset, ("ultrafast", "fast", "medium"))
        _require_whole("flow.stride", self.stride, least=1, most=1000)
        _require_number("flow.bound_px", self.bound_px, most=8192.0)
        _require_one_of("flow.codec", self.codec, ("jpeg", "raw"))
        _require_whole("flow.jpeg_quality", self.jpeg_quality, least=1, most=100)


@dataclass(frozen=True, kw_only=True, slots=True)
class LogmelSpec:
    """The paper's log-mel spectrogram (recipe ``gblend-40``), natural logarithm, float16."""

    recipe: Literal["gblend-40", "custom"] = "gblend-40"
    """Name of the numbers below. ``gblend-40``: as the released code of the paper's authors sets them, which are the
    defaults; ``custom``: any others."""
    sample_rate_hz: int = 16_000
    """Audio is mixed to mono and resampled to this rate."""
    window_s: float = 0.016
    """Length of the Hann window; also the length of the Fourier transform."""
    hop_s: float = 0.010
    """Frame i is centred at ``start_s + i * hop_s``."""
    mels: int = 40
    """Number of mel bands."""
    max_hz: float = 8_000.0
    """The bands cover 0 to ``max_hz``."""

    def __post_init__(self) -> None:
        _require_one_of("logmel.recipe", self.recipe, ("gblend-40", "custom"))
        _require_whole("logmel.sample_rate_hz", self.sample_rate_hz, least=1000, most=384_000)
        _require_number("logmel.window_s", self.window_s, most=1.0)
        _require_number("logmel.hop_s", self.hop_s, most=1.0)
        for name, samples, least in (("window_s", self.window_samples, 2), ("hop_s", self.hop_samples, 1)):
            if samples < least:
                raise ValueError(
                    f"logmel.{name} must be at least {least} samples at {self.sample_rate_hz} Hz, "
                    f"got {getattr(self, name)}"
                )
        _require_whole("logmel.mels", self.mels, least=1, most=1000)
        _require_number("logmel.max_hz", self.max_hz, most=self.sample_rate_hz / 2)
        if self.recipe == "gblend-40":
            for part in fields(self):
                value = getattr(self, part.name)
                if value != part.default:
                    raise ValueError(
                        f"logmel.{part.name} must be {part.default} in the recipe gblend-40, got {value}; "
                        "set logmel.recipe to custom for other numbers"
                    )

    @property
    def window_samples(self) -> int:
        """Window length in samples."""
        return round(self.window_s * self.sample_rate_hz)

    @property
    def hop_samples(self) -> int:
        """Hop in samples."""
        return round(self.hop_s * self.sample_rate_hz)


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
        used = {"rgb": ("rgb",), "flow": ("rgb", "flow"), "logmel": ("logmel",)}[modality]
        described: dict[str, Any] = {name: asdict(getattr(self, name)) for name in used}
        if modality == "flow":
            # Flow is computed before frames are encoded: how rgb.arrow stores them does not matter.
            described["rgb"] = {k: described["rgb"][k] for k in ("fps", "short_side_px", "fixed_size_px")}
        return json.loads(json.dumps({"format_version": FORMAT_VERSION, **described}))

    def describe_clips(self) -> dict[str, Any]:
        """The specs that decide what ``clips.arrow`` says of a clip, as plain JSON values."""
        rgb = {"fps": self.rgb.fps, "short_side_px": self.rgb.short_side_px, "fixed_size_px": self.rgb.fixed_size_px}
        return json.loads(json.dumps({"format_version": FORMAT_VERSION, "rgb": rgb}))

    def fingerprint(self, modality: Modality) -> str:
        """SHA-256 of `describe`: equal fingerprints mean interchangeable files."""
        return hashlib.sha256(json.dumps(self.describe(modality), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by `from_json`."""
        return json.loads(json.dumps(asdict(self)))

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
            logmel=LogmelSpec(**values["logmel"]),
        )
