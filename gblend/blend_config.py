"""V, and how loss weights are estimated and ruled."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from gblend.require import require, require_choices

ROBUST: dict[str, Any] = {"probe_end": "best-v", "overfitting_floor": "standard-error", "shrinkage": "noise"}
"""Rules against noise that have no number to choose; few clips in V give equal weights (docs/method.md: how they
compare)."""

PAPER: dict[str, Any] = {"probe_end": "last", "overfitting_floor": "none", "shrinkage": 0.0}
"""The same settings as the paper has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendConfig:
    """The held-out part V and how weights are estimated: unless told otherwise as the paper does."""

    holdout_share: float = 0.2
    """Share of the training clips held out as V; no run trains on them, whatever its method."""
    holdout_seed: int = 0
    """V depends on the data and on this, not on the run's seed, so that all runs can be compared."""
    first_epochs: int = 10
    """Length of the first super-epoch of ``online`` and ``tracked``."""
    next_epochs: int = 5
    """Length of the following ones; the last is what remains."""
    measure: Literal["loss", "accuracy"] = "loss"
    """What O and G are changes of: the loss in nats (the paper's tables), or the error rate, 1 - accuracy (of several
    labels a clip 1 - LRAP), in its place: the paper allows a metric. It is the same for all heads and at both ends."""
    probe_end: Literal["last", "best-v"] = "last"
    """Where a probe ends. ``last`` is the paper. ``best-v``: after the epoch with the lowest ``measure`` on V, never
    before the first; a short probe then measures after every epoch, not only at its ends."""
    generalization_discount: Literal["none", "standard-error"] = "none"
    """``none`` is the paper. ``standard-error`` takes G minus its standard error for G."""
    overfitting_floor: Literal["none", "standard-error"] = "none"
    """``none`` is the paper. ``standard-error`` replaces O^2 by max(O^2, SE^2)."""
    shrinkage: float | Literal["noise"] = 0.0
    """Share s of equal weights in the weights: (1 - s) w + s / (k + 1). 0 is the paper. ``noise``: the share of the
    weights' distance to equal weights that the choice of V and T' alone explains (`gblend.rules.noise_share`)."""
    smoothing: float = 0.0
    """Share of the previous estimate's final weights in the weights of ``online`` and ``tracked``. 0 is the paper."""
    weight_cap: float = 1.0
    """No weight above this; what is cut off goes to the others in equal parts. At least 1 / (k + 1); 1 is the paper."""
    fused_floor: float = 0.0
    """No weight of the fused head below this, for where it is the one that predicts; the others make room in
    proportion. 0 is the paper."""
    scale: Literal["one", "heads"] = "one"
    """What the loss weights of a task's heads add up to: 1, or the number of its heads; ``uncertainty`` starts from
    that sum, ``fixed`` has its own. The sum is a step size: with SGD, ``heads`` moves a uni-modal head of an equal
    blend as far as training it alone does."""
    fixed_weights: tuple[float, ...] = ()
    """Weights of the method ``fixed``: one per modality, then the fused head, and so for every further task; used as
    they are, whatever their sum."""
    probes: Literal["shared", "sequential", "spread"] = "shared"
    """Where the k+1 probes of a super-epoch train. ``shared``: on the run's workers, all on the same batches, each
    decoded once. ``sequential``: there, one after another, which holds one network at a time in memory. ``spread``:
    each on a group of workers of its own, as many as the run's, while the run waits. The weights are the same."""
    staleness: Literal[0, 1] = 0
    """How many super-epochs old the checkpoint is whose probes give the weights of ``online``. 0 is the paper. 1: the
    start of the super-epoch before, so that its probes can train while the run does; the first two super-epochs share
    the probes from the run's start."""
    probe_epochs: int = 0
    """Length of the probes of ``online`` where a super-epoch is longer. 0 is the paper: as long as the super-epoch."""
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
        require(0.0 < self.holdout_share < 0.5, "blend.holdout_share", "in (0, 0.5)", self.holdout_share)
        for name, least in (("holdout_seed", 0), ("first_epochs", 1), ("next_epochs", 1)):
            require(getattr(self, name) >= least, f"blend.{name}", f"at least {least}", getattr(self, name))
        valid = all(0.0 <= weight < math.inf for weight in self.fixed_weights)
        require(valid, "blend.fixed_weights", "finite and not negative", list(self.fixed_weights))
        share = 0.0 if self.shrinkage == "noise" else self.shrinkage
        valid = not isinstance(share, str) and 0.0 <= share <= 1.0
        require(valid, "blend.shrinkage", "in [0, 1], or noise", self.shrinkage)
        require(0.0 <= self.smoothing < 1.0, "blend.smoothing", "in [0, 1)", self.smoothing)
        require(0.0 < self.weight_cap <= 1.0, "blend.weight_cap", "in (0, 1]", self.weight_cap)
        require(0.0 <= self.fused_floor < 1.0, "blend.fused_floor", "in [0, 1)", self.fused_floor)
        if self.fused_floor > self.weight_cap:
            raise ValueError(
                f"blend.fused_floor ({self.fused_floor}) must not be above blend.weight_cap ({self.weight_cap}); "
                "lower the floor or raise the cap"
            )
        require(self.probe_epochs >= 0, "blend.probe_epochs", "at least 0", self.probe_epochs)
        require(0.0 < self.probe_fraction <= 1.0, "blend.probe_fraction", "in (0, 1]", self.probe_fraction)
        require(self.refit_epochs >= 0, "blend.refit_epochs", "at least 0", self.refit_epochs)
        require(0.0 < self.ogm_alpha < math.inf, "blend.ogm_alpha", "positive", self.ogm_alpha)
        require_choices(self, "blend.")

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

    def probe_length(self, super_epoch: int) -> int:
        """Epochs of the probes of a super-epoch of so many.

        >>> BlendConfig().probe_length(5), BlendConfig(probe_epochs=2).probe_length(5)
        (5, 2)
        """
        return min(self.probe_epochs or super_epoch, super_epoch)
