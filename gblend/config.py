"""Everything a run can be told, as frozen dataclasses; ``jobs/recipes.py`` holds named combinations.

A run is decided by a `TrainConfig`, a method and a seed. Where it computes (`ComputeConfig`) is kept apart: it is not
part of the question.
"""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from schemas import MODALITIES, Modality

Residual = Literal["basic", "bottleneck"]
"""Two spatial convolutions, or one between two pointwise ones."""


def _require(holds: bool, name: str, rule: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"{name} must be {rule}, got {value}")


def _require_choices(config: Any, section: str) -> None:
    """The command line checks a ``Literal``, a recipe in Python does not: a misspelt choice must not mean another."""
    for item in fields(config):
        value, parts = getattr(config, item.name), get_args(item.type)
        optional = len(parts) == 2 and parts[1] is NoneType
        choices = parts[0] if optional else item.type
        if get_origin(choices) is Literal and not (optional and value is None):
            allowed = get_args(choices)
            _require(value in allowed, section + item.name, f"one of {', '.join(map(str, allowed))}", repr(value))


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
            _require(getattr(self, name) >= 1, f"input.{name}", "at least 1", getattr(self, name))
        if self.scale_px is not None and self.scale_px < self.crop_px:
            raise ValueError(f"input.scale_px ({self.scale_px}) must not be below input.crop_px ({self.crop_px})")
        _require_choices(self, "input.")


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
            _require(getattr(self, name) >= 1, f"model.{name}", "at least 1", getattr(self, name))
        for name in ("visual_layers", "audio_layers"):
            layers = getattr(self, name)
            _require(min(layers, default=1) >= 1, f"model.{name}", "at least one block in every stage", list(layers))
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
        _require(0.0 <= self.fused_dropout < 1.0, "model.fused_dropout", "in [0, 1)", self.fused_dropout)
        _require_choices(self, "model.")
        if self.audio_stem == "authors":
            _require(self.audio_width % 4 == 0, "model.audio_width", "a multiple of 4 (stem authors)", self.audio_width)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """Optimiser and learning-rate schedule; probes use the same at the same epoch, with fresh state."""

    name: Literal["sgd", "adamw", "adam", "adagrad"] = "sgd"
    """``sgd`` has momentum."""
    learning_rate: float = 0.01
    """Peak, for the whole batch of all workers together: their number does not change it."""
    momentum: float | None = None
    """Of ``sgd``; none: 0.9. The others have none to set."""
    weight_decay: float = 1e-4
    """Decoupled decay (``adamw``) or L2 penalty (the others)."""
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    """``step`` multiplies by 0.1 at each of ``milestones``."""
    milestones: tuple[int, ...] = ()
    """Epochs at which ``step`` drops."""
    warmup_epochs: float = 0.0
    """Linear rise from 0."""

    def __post_init__(self) -> None:
        _require(0.0 < self.learning_rate < math.inf, "optim.learning_rate", "positive", self.learning_rate)
        _require(0.0 <= (self.momentum or 0.0) < 1.0, "optim.momentum", "in [0, 1)", self.momentum)
        if self.momentum is not None and self.name != "sgd":
            raise ValueError(
                f"optim.momentum ({self.momentum}) is a setting of sgd, and {self.name} would ignore it; leave it out, "
                "or set it to None where the recipe gives it"
            )
        for name in ("weight_decay", "warmup_epochs"):
            _require(0.0 <= getattr(self, name) < math.inf, f"optim.{name}", "at least 0", getattr(self, name))
        _require(min(self.milestones, default=0) >= 0, "optim.milestones", "at least 0", list(self.milestones))
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError(
                f"optim.milestones are the drops of schedule step, and of no other; got schedule {self.schedule} with "
                f"milestones {list(self.milestones)}; give both or neither"
            )
        _require_choices(self, "optim.")


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """What is trained on: cross-entropy, or a loss of your own. Smoothing and class weights change training only."""

    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes."""
    class_weights: Literal["equal", "balanced"] | tuple[float, ...] = "equal"
    """What a clip of each class counts. ``balanced``: in inverse proportion to the class's clips in T, 1 on average
    over the clips. Or a number per class, in the order of the data set's classes."""
    callable: str | None = None
    """A loss of your own in place of cross-entropy, as ``module:callable``: from logits, float32 (batch, classes), and
    labels, int64 (batch), to a loss per clip (batch). Training, T', V, O and G use it alike; the tables' losses, of
    predicted probabilities, stay cross-entropy."""

    def __post_init__(self) -> None:
        _require(0.0 <= self.label_smoothing < 1.0, "loss.label_smoothing", "in [0, 1)", self.label_smoothing)
        given = self.class_weights
        if isinstance(given, str):
            _require(given in ("equal", "balanced"), "loss.class_weights", "equal, balanced or numbers", repr(given))
        else:
            valid = len(given) > 0 and all(0.0 < weight < math.inf for weight in given)
            _require(valid, "loss.class_weights", "a positive number for every class", list(given))
        if self.callable is not None:
            module, _, attribute = self.callable.partition(":")
            if not (module and attribute.isidentifier()):
                raise ValueError(f"loss.callable must be module:callable, got {self.callable!r}")
            if self.label_smoothing > 0.0 or given != "equal":
                raise ValueError(
                    f"loss.label_smoothing and loss.class_weights are settings of cross-entropy, which loss.callable "
                    f"({self.callable}) replaces; leave them out, or do it inside the callable"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendConfig:
    """The held-out part V and how weights are estimated."""

    holdout_share: float = 0.2
    """Share of the training clips held out as V; no run trains on them, whatever its method."""
    holdout_seed: int = 0
    """V depends on the data and on this, not on the run's seed, so that all runs can be compared."""
    first_epochs: int = 10
    """Length of the first super-epoch of ``online`` and ``tracked``."""
    next_epochs: int = 5
    """Length of the following ones; the last is what remains."""
    measure: Literal["loss", "accuracy"] = "loss"
    """What O and G are changes of: the loss in nats (the paper's tables), or the error rate, 1 - accuracy, in its place
    (the paper allows a metric). It is the same for all heads and at both ends."""
    probe_end: Literal["last", "best-v"] = "last"
    """Where a probe ends. ``last`` is the paper. ``best-v``: after the epoch with the lowest ``measure`` on V, never
    before the first; a short probe then measures after every epoch, not only at its ends."""
    generalization_discount: Literal["none", "standard-error"] = "none"
    """``none`` is the paper. ``standard-error`` takes G minus its standard error for G."""
    overfitting_floor: Literal["none", "standard-error"] = "none"
    """``none`` is the paper. ``standard-error`` replaces O^2 by max(O^2, SE^2)."""
    shrinkage: float = 0.0
    """Share s of equal weights in the weights: (1 - s) w + s / (k + 1). 0 is the paper."""
    smoothing: float = 0.0
    """Share of the previous estimate's final weights in the weights of ``online`` and ``tracked``. 0 is the paper."""
    weight_cap: float = 1.0
    """No weight above this; what is cut off goes to the others in equal parts. At least 1 / (k + 1); 1 is the paper."""
    fused_floor: float = 0.0
    """No weight of the fused head below this, because it is the one that predicts; the others make room in
    proportion. 0 is the paper."""
    scale: Literal["one", "heads"] = "one"
    """What the loss weights of all heads add up to: 1, or the number of heads; ``uncertainty`` starts from that sum,
    ``fixed`` has its own. The sum is a step size: with SGD, ``heads`` moves a uni-modal head of an equal blend as far
    as training it alone does."""
    fixed_weights: tuple[float, ...] = ()
    """Weights of the method ``fixed``: one per modality, then the fused head; used as they are, whatever their sum."""
    probe_pass: Literal["shared", "sequential"] = "shared"
    """The k+1 probes of a super-epoch train on the same batches, each decoded once; or one probe after another, which
    holds one network at a time in memory. The weights are the same."""
    probe_fraction: float = 1.0
    """Share of T that the probes of ``online`` train on: stratified, whole groups, seeded. T' lies in it."""
    reuse: Literal["none", "offline"] = "none"
    """``offline``: the first super-epoch of ``online`` takes its weights from the estimate of ``offline``, whose
    full-length probes are runs of the comparison anyway."""
    refit_epochs: int = 2
    """After a run of all heads, train a new fused head on its frozen trunks for so long and score it too; 0: do not."""
    ogm_alpha: float = 0.5
    """How strongly ``ogm-ge`` slows the modality that is ahead: its gradient is multiplied by 1 - tanh(alpha ratio)."""

    def __post_init__(self) -> None:
        _require(0.0 < self.holdout_share < 0.5, "blend.holdout_share", "in (0, 0.5)", self.holdout_share)
        for name, least in (("holdout_seed", 0), ("first_epochs", 1), ("next_epochs", 1)):
            _require(getattr(self, name) >= least, f"blend.{name}", f"at least {least}", getattr(self, name))
        valid = all(0.0 <= weight < math.inf for weight in self.fixed_weights)
        _require(valid, "blend.fixed_weights", "finite and not negative", list(self.fixed_weights))
        _require(0.0 <= self.shrinkage <= 1.0, "blend.shrinkage", "in [0, 1]", self.shrinkage)
        _require(0.0 <= self.smoothing < 1.0, "blend.smoothing", "in [0, 1)", self.smoothing)
        _require(0.0 < self.weight_cap <= 1.0, "blend.weight_cap", "in (0, 1]", self.weight_cap)
        _require(0.0 <= self.fused_floor < 1.0, "blend.fused_floor", "in [0, 1)", self.fused_floor)
        if self.fused_floor > self.weight_cap:
            raise ValueError(
                f"blend.fused_floor ({self.fused_floor}) must not be above blend.weight_cap ({self.weight_cap}); "
                "lower the floor or raise the cap"
            )
        _require(0.0 < self.probe_fraction <= 1.0, "blend.probe_fraction", "in (0, 1]", self.probe_fraction)
        _require(self.refit_epochs >= 0, "blend.refit_epochs", "at least 0", self.refit_epochs)
        _require(0.0 < self.ogm_alpha < math.inf, "blend.ogm_alpha", "positive", self.ogm_alpha)
        _require_choices(self, "blend.")

    def check_heads(self, count: int) -> None:
        """Raise ``ValueError`` unless ``count`` weights under the cap can add up to 1."""
        if self.weight_cap * count < 1.0 - 1e-9:
            raise ValueError(
                f"blend.weight_cap ({self.weight_cap}) must be at least 1 / {count} for {count} heads, or the weights "
                "cannot add up to 1"
            )

    def total(self, heads: int) -> float:
        """What the loss weights add up to.

        >>> BlendConfig().total(3), BlendConfig(scale="heads").total(3)
        (1.0, 3.0)
        """
        return float(heads) if self.scale == "heads" else 1.0


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
    loss: LossConfig = field(default_factory=LossConfig)
    """Training loss."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in self.modalities:
            _require(name in MODALITIES, "modalities", f"among {', '.join(MODALITIES)}", repr(name))
        _require_choices(self, "")

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
        _require(self.workers >= 1, "workers", "at least 1", self.workers)
        _require(0.0 <= self.gpus_per_worker < math.inf, "gpus_per_worker", "at least 0", self.gpus_per_worker)
        _require(0.0 < self.cpus_per_worker < math.inf, "cpus_per_worker", "positive", self.cpus_per_worker)
        _require(self.restarts >= 0, "restarts", "at least 0", self.restarts)
