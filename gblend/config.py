"""Everything a run can be told, as frozen dataclasses; ``jobs/recipes.py`` holds named combinations.

A run is decided by a `TrainConfig`, a method and a seed. Where it computes (`ComputeConfig`) is kept apart: it is not
part of the question.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from schemas import Modality


@dataclass(frozen=True, kw_only=True, slots=True)
class InputConfig:
    """The aligned windows that a network sees."""

    frames: int = 8
    """Frames (and flow fields) in a window."""
    frame_step: int = 1
    """Distance between them, in stored frames."""
    scale_px: int | None = None
    """Frames are resized so that the short side has this length before cropping; none: as stored."""
    crop_px: int = 40
    """Side of the square crop: at random in training, central when measuring."""
    mel_frames: int = 100
    """Log-mel frames in a window."""
    mel_alignment: Literal["stretch", "exact"] = "stretch"
    """``stretch``: the log-mel under the visual window, resized to ``mel_frames`` (the authors' code). ``exact``:
    ``mel_frames`` true frames from the window's start."""
    flip: Literal["none", "horizontal"] = "none"
    """Mirror half of the training windows; wrong where left and right are labels, so off by default."""

    def __post_init__(self) -> None:
        for name in ("frames", "frame_step", "crop_px", "mel_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"input.{name} must be at least 1, got {getattr(self, name)}")
        if self.scale_px is not None and self.scale_px < self.crop_px:
            raise ValueError(f"input.scale_px ({self.scale_px}) must not be below input.crop_px ({self.crop_px})")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Size of the residual trunks and of the fused head."""

    visual_block: Literal["basic", "bottleneck"] = "basic"
    """Residual block of the 3D trunks (rgb, flow)."""
    visual_layers: tuple[int, ...] = (1, 1, 1)
    """Blocks per stage; every stage after the first halves time, height and width."""
    visual_width: int = 8
    """Channels of the first stage; doubled per stage."""
    audio_block: Literal["basic", "bottleneck"] = "basic"
    """Residual block of the 2D trunk (logmel)."""
    audio_layers: tuple[int, ...] = (1, 1, 1)
    """Blocks per stage."""
    audio_width: int = 8
    """Channels of the first stage."""
    fused_hidden: int = 64
    """Width of the fused head's two hidden layers."""
    fused_dropout: float = 0.0
    """Dropout on the concatenated features."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.fused_dropout < 1.0:
            raise ValueError(f"model.fused_dropout must be in [0, 1), got {self.fused_dropout}")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """Optimiser and learning-rate schedule; probes use the same at the same epoch, with fresh state."""

    name: Literal["sgd", "adamw"] = "sgd"
    """``sgd`` has momentum."""
    learning_rate: float = 0.01
    """Peak, for the whole batch of all workers together."""
    momentum: float = 0.9
    """Of ``sgd``."""
    weight_decay: float = 1e-4
    """L2 penalty (``sgd``) or decoupled decay (``adamw``)."""
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    """``step`` multiplies by 0.1 at each of ``milestones``."""
    milestones: tuple[int, ...] = ()
    """Epochs at which ``step`` drops."""
    warmup_epochs: float = 0.0
    """Linear rise from 0."""

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"optim.learning_rate must be positive, got {self.learning_rate}")


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendConfig:
    """The held-out part V and how weights are estimated."""

    holdout_share: float = 0.2
    """Share of the training clips held out as V; no run trains on them, whatever its method."""
    holdout_seed: int = 0
    """V depends on the data and on this, not on the run's seed, so that all runs can be compared."""
    first_epochs: int = 10
    """Length of the first super-epoch of ``online``."""
    next_epochs: int = 5
    """Length of the following ones; the last is what remains."""
    overfitting_floor: Literal["none", "standard-error"] = "none"
    """``none`` is the paper. ``standard-error`` replaces O^2 by max(O^2, SE^2)."""
    fixed_weights: tuple[float, ...] = ()
    """Weights of the method ``fixed``: one per modality, then the fused head; used as they are, whatever their sum."""

    def __post_init__(self) -> None:
        if not 0.0 < self.holdout_share < 0.5:
            raise ValueError(f"blend.holdout_share must be in (0, 0.5), got {self.holdout_share}")
        if min(self.first_epochs, self.next_epochs) < 1:
            raise ValueError("blend.first_epochs and blend.next_epochs must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One experiment, whatever its method and seed."""

    name: str
    """Name of the recipe."""
    modalities: tuple[Modality, ...] = ()
    """Modalities of the network; empty: all that the data set holds."""
    epochs: int = 12
    """Epochs of the main run, and of the full-length probes."""
    batch_size: int = 32
    """Clips per step, over all workers."""
    missing: Literal["drop", "zero"] = "drop"
    """Clips that lack a modality: left out and counted, or kept with zeros and a mask that the losses honour."""
    input: InputConfig = field(default_factory=InputConfig)
    """Windows."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Networks."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser."""
    blend: BlendConfig = field(default_factory=BlendConfig)
    """Weight estimation."""

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1:
            raise ValueError(f"epochs and batch_size must be at least 1, got {self.epochs} and {self.batch_size}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values for ``config.json``."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeConfig:
    """Where a run computes."""

    workers: int = 2
    """Training processes; the batch is shared among them."""
    gpus_per_worker: float = 0.0
    """GPUs each of them holds; 0 trains on the CPU."""
    cpus_per_worker: float = 1.0
    """CPU cores each of them holds; also its threads."""
    restarts: int = 2
    """How often the group is started again after a worker or node was lost; finished runs are kept."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")
