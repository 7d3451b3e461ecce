"""How parameters are updated."""

import math
from dataclasses import dataclass
from typing import Literal

from gblend.require import require, require_choices


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
    clip_norm: float | None = None
    """Gradients are scaled down to this norm where they are longer: the norm over all parameters that are trained
    together, those of a probe by themselves. None: never."""

    def __post_init__(self) -> None:
        require(0.0 < self.learning_rate < math.inf, "optim.learning_rate", "positive", self.learning_rate)
        require(0.0 <= (self.momentum or 0.0) < 1.0, "optim.momentum", "in [0, 1)", self.momentum)
        if self.momentum is not None and self.name != "sgd":
            raise ValueError(
                f"optim.momentum ({self.momentum}) is a setting of sgd, and {self.name} would ignore it; leave it out, "
                "or set it to None where the recipe gives it"
            )
        for name in ("weight_decay", "warmup_epochs"):
            require(0.0 <= getattr(self, name) < math.inf, f"optim.{name}", "at least 0", getattr(self, name))
        if self.clip_norm is not None:
            require(0.0 < self.clip_norm < math.inf, "optim.clip_norm", "positive", self.clip_norm)
        require(min(self.milestones, default=0) >= 0, "optim.milestones", "at least 0", list(self.milestones))
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError(
                f"optim.milestones are the drops of schedule step, and of no other; got schedule {self.schedule} with "
                f"milestones {list(self.milestones)}; give both or neither"
            )
        require_choices(self, "optim.")
