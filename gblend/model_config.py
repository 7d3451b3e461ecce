"""Which networks: trunks of our family or of the user's own, fusion, fused head."""

from dataclasses import dataclass, field
from typing import Literal

from gblend.require import require, require_choices
from schemas import MODALITIES

Residual = Literal["basic", "bottleneck"]
"""Two spatial convolutions, or one between two pointwise ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodersConfig:
    """Networks of your own in place of the trunks, each as ``module:callable``.

    The callable takes the number of input channels and returns a ``torch.nn.Module`` with an attribute ``output_dim``
    that maps (batch, channels, ...) to (batch, output_dim).
    """

    rgb: str | None = None
    """For frames: (batch, 3, time, height, width)."""
    flow: str | None = None
    """For flow: (batch, 2, time, height, width)."""
    logmel: str | None = None
    """For sound: (batch, 1, time, mel)."""
    other: dict[str, str] = field(default_factory=dict)
    """For a modality of your own: its name, then ``module:callable``."""

    def __post_init__(self) -> None:
        for name, place in self.places().items():
            module, _, attribute = place.partition(":")
            if not (module and attribute.isidentifier()):
                raise ValueError(f"model.encoders.{name} must be module:callable, got {place!r}")
        for name in self.other:
            # A name becomes part of parameter names and file names.
            if not name.isidentifier() or name in (*MODALITIES, "fused"):
                raise ValueError(
                    f"model.encoders.other names modalities of your own, by letters, digits and underscores and none "
                    f"of {', '.join(MODALITIES)}, fused; got {name!r}"
                )

    def places(self) -> dict[str, str]:
        """Modality to ``module:callable``, of those that are set."""
        known = {name: getattr(self, name) for name in MODALITIES}
        return {name: place for name, place in {**known, **self.other}.items() if place is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Trunks, fusion and fused head."""

    visual_block: Literal["r3d", "r2plus1d", "ip_csn", "ir_csn", "mc3"] = "r3d"
    """Convolutions of the 3D trunks (rgb, flow); see ``gblend.resnet3d``."""
    visual_depth: Literal[18, 34, 50, 101, 152] | None = None
    """A published number of residual blocks in every stage: basic ones at 18 and 34, bottlenecks above."""
    visual_layers: tuple[int, ...] = ()
    """Blocks in every stage, in place of a depth; without either, 1 in each of three stages. Every stage after the
    first halves time, height and width."""
    visual_residual: Residual | None = None
    """Kind of the residual blocks; none: that of the depth, basic without one."""
    visual_width: int = 8
    """Channels of the first stage (64 in every published network); doubled per stage."""
    visual_grid: int = 1
    """A 3D trunk's last features are averaged over the cells of a square grid with so many cells a side. 1 is global
    pooling, as in the paper; more keeps where in a small picture something was."""
    visual_weights: str | None = None
    """Pre-trained weights of the 3D trunks: path or URL of a state dict with torchvision's names."""
    r2plus1d_middle: Literal["convolution", "block"] = "convolution"
    """Channels inside the second (2+1)D convolution of a basic block: matched to that ``convolution``, as published, or
    those of the ``block``'s first one, as in torchvision's r2plus1d_18, whose weights need it."""
    audio_stem: Literal["small", "authors", "imagenet"] = "small"
    """First layers, strides and pooling of the 2D trunk (logmel); see ``gblend.resnet2d``."""
    audio_depth: Literal[18, 50, 101, 152] | None = None
    """A published number of residual blocks in every stage: basic ones at 18, bottlenecks above."""
    audio_layers: tuple[int, ...] = ()
    """Blocks in every stage, in place of a depth; without either, 1 in each of three stages."""
    audio_residual: Residual | None = None
    """Kind of the residual blocks; none: that of the depth, basic without one."""
    audio_width: int = 8
    """Channels of the first stage (64 in every published network); doubled per stage."""
    audio_weights: str | None = None
    """Pre-trained weights of the 2D trunk: path or URL of a state dict with torchvision's names."""
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    """Networks of your own in place of the trunks."""
    fusion: Literal["concat", "mid", "se-gate", "nl-gate", "lmf"] = "concat"
    """How features meet: see ``gblend.fusion``. All but ``mid`` meet as vectors, at the end of the trunks."""
    mid_stages: int = 2
    """For ``mid``: stages that every modality goes through alone."""
    se_reduction: int = 16
    """For ``se-gate``: how much narrower than the features its hidden layer is."""
    nl_reduction: int = 2
    """For ``nl-gate``: how much narrower than the longest feature vector the space is in which modalities attend."""
    lmf_rank: int = 4
    """For ``lmf``: rank of the decomposition."""
    fused_hidden: int = 64
    """Width of the fused head's two hidden layers, and of what ``lmf`` gives them."""
    fused_dropout: float = 0.0
    """Dropout on the fused (concatenated) features."""

    def __post_init__(self) -> None:
        positive = ("visual_width", "visual_grid", "audio_width", "fused_hidden")
        for name in (*positive, "mid_stages", "se_reduction", "nl_reduction", "lmf_rank"):
            require(getattr(self, name) >= 1, f"model.{name}", "at least 1", getattr(self, name))
        for name in ("visual_layers", "audio_layers"):
            layers = getattr(self, name)
            require(min(layers, default=1) >= 1, f"model.{name}", "at least one block in every stage", list(layers))
        for kind, depth, layers in (
            ("visual", self.visual_depth, self.visual_layers),
            ("audio", self.audio_depth, self.audio_layers),
        ):
            if depth is not None and layers:
                raise ValueError(
                    f"model.{kind}_depth ({depth}) and model.{kind}_layers ({list(layers)}) both say how many blocks a "
                    f"stage has; give one of them and take the other back (--model.{kind}-depth None, or "
                    f"--model.{kind}-layers with nothing after it)"
                )
        require(0.0 <= self.fused_dropout < 1.0, "model.fused_dropout", "in [0, 1)", self.fused_dropout)
        require_choices(self, "model.")
        if self.audio_stem == "authors":
            require(self.audio_width % 4 == 0, "model.audio_width", "a multiple of 4 (stem authors)", self.audio_width)
        if self.r2plus1d_middle == "block" and (self.visual_block != "r2plus1d" or self.visual_kind != "basic"):
            raise ValueError(
                f"model.r2plus1d_middle block is of the basic blocks of r2plus1d, as at depth 18 and 34; got the "
                f"{self.visual_kind} blocks of {self.visual_block}"
            )

    @property
    def visual_kind(self) -> Residual:
        """Kind of the 3D trunks' residual blocks.

        >>> ModelConfig().visual_kind, ModelConfig(visual_depth=50).visual_kind
        ('basic', 'bottleneck')
        """
        return self.visual_residual or _kind_of(self.visual_depth)

    @property
    def audio_kind(self) -> Residual:
        """Kind of the 2D trunk's."""
        return self.audio_residual or _kind_of(self.audio_depth)


def _kind_of(depth: int | None) -> Residual:
    return "basic" if depth is None or depth < 50 else "bottleneck"
