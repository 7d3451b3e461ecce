"""What is minimised."""

import math
from dataclasses import dataclass
from typing import Literal

from gblend.require import require


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """What is trained on: cross-entropy, or a loss of your own. Smoothing and class weights change training only."""

    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes; of several labels a clip, over yes and no."""
    class_weights: Literal["equal", "balanced"] | tuple[float, ...] = "equal"
    """What a clip of each class counts. ``balanced``: in inverse proportion to the class's clips in T, 1 on average
    over the clips; of several labels a clip 1 on average over the classes, whose losses are weighed. Or a number per
    class, in the order of the data set's classes, where there is one task: only their proportions count."""
    callable: str | None = None
    """A loss of your own in place of cross-entropy, as ``module:callable``: from logits, float32 (batch, classes), and
    labels, int64 (batch), or of several labels a clip float32 (batch, classes), to a loss per clip (batch). Training,
    T', V, O and G use it alike; the tables' losses, of predicted probabilities, stay cross-entropy."""

    def __post_init__(self) -> None:
        require(0.0 <= self.label_smoothing < 1.0, "loss.label_smoothing", "in [0, 1)", self.label_smoothing)
        given = self.class_weights
        if isinstance(given, str):
            require(given in ("equal", "balanced"), "loss.class_weights", "equal, balanced or numbers", repr(given))
        else:
            valid = len(given) > 0 and all(0.0 < weight < math.inf for weight in given)
            require(valid, "loss.class_weights", "a positive number for every class", list(given))
        if self.callable is not None:
            module, _, attribute = self.callable.partition(":")
            if not (module and attribute.isidentifier()):
                raise ValueError(f"loss.callable must be module:callable, got {self.callable!r}")
            if self.label_smoothing > 0.0 or given != "equal":
                raise ValueError(
                    f"loss.label_smoothing and loss.class_weights are settings of cross-entropy, which loss.callable "
                    f"({self.callable}) replaces; leave them out, or do it inside the callable"
                )
