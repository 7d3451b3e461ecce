"""Weights from losses that a user measured: arrays in, neither a network nor a data set of ours.

The same arithmetic as in our own training (`gblend.estimate`: Eq. 3 and Proposition 1, standard errors, the rules of
robust mode) and the same record of it. `gblend.ogr.blend_weights` does with means alone what needs no samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from gblend.config import BlendConfig
from gblend.estimate import ProbeLosses, estimate
from gblend.measure import HeadLosses
from gblend.records import EstimateRecord

Part = Literal["train", "valid"]

MEANT = (
    "first_epochs",
    "next_epochs",
    "probe_epochs",
    "generalization_discount",
    "overfitting_floor",
    "shrinkage",
    "smoothing",
    "weight_cap",
    "fused_floor",
    "scale",
    "holdout_seed",
)
"""Settings of `BlendConfig` that mean something outside our own training; ``holdout_seed`` decides the bootstrap."""


PAPER_RULES = BlendConfig()
"""The formula alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleLosses:
    """Every head at one moment, sample by sample, in eval mode; all heads on the same samples in the same order.

    A sample that a head has no answer for (its modality is missing) is masked, ``np.ma.masked_array``; NaN is a network
    that has diverged.
    """

    train: Mapping[str, np.ndarray]
    """Per head, the fused one last: float (samples), the loss of each training sample, in nats or any one unit."""
    valid: Mapping[str, np.ndarray]
    """The same of each held-out sample, which nothing was trained on."""


def gb_estimate(
    start: SampleLosses,
    end: SampleLosses,
    *,
    blend: BlendConfig = PAPER_RULES,
    epoch: int = 0,
    probe_epochs: int = 0,
    previous: tuple[float, ...] = (),
) -> EstimateRecord:
    """Loss weights from both ends of the probes (Algorithm 1): w = (G / O^2) / sum(G / O^2), and how sure they are.

    Args:
        start: Losses before the probes.
        end: Losses after them, each head's from the branch that was trained alone.
        blend: Rules for the weights; by default the paper's formula alone.
        epoch: Finished epochs of the run; with ``blend.holdout_seed`` it decides the bootstrap's random numbers.
        probe_epochs: Length of the probes, for the record.
        previous: ``weights`` of the estimate before, for ``blend.smoothing``.

    Returns:
        ``loss_weights`` per head; G, O and OGR with their standard errors, the weights' 95 % intervals, and in
        ``warnings`` whether the held-out samples are too few.

    Raises:
        ValueError: Heads, samples or masks differ between the ends, or ``blend`` asks for what only our own training
            can do.

    >>> rng = np.random.default_rng(0)
    >>> def around(mean):
    ...     return rng.normal(mean, 0.1, 200)
    >>> start = SampleLosses(
    ...     train={"audio": around(1.8), "video": around(1.8)}, valid={"audio": around(1.8), "video": around(1.8)})
    >>> end = SampleLosses(  # video overfits: it learned .2 that holds, and 1.1 that does not
    ...     train={"audio": around(0.9), "video": around(0.5)}, valid={"audio": around(1.1), "video": around(1.6)})
    >>> found = gb_estimate(start, end)
    >>> {head: round(weight, 2) for head, weight in found.loss_weights.items()}
    {'audio': 0.99, 'video': 0.01}
    >>> [round(ogr, 1) for ogr in found.ogr], found.warnings
    ([0.3, 5.8], ())
    """
    require_meant(blend)
    heads = tuple(start.valid)
    for when, losses in (("start", start), ("end", end)):
        for part in ("train", "valid"):
            if set(getattr(losses, part)) != set(heads) or not heads:
                raise ValueError(
                    f"{when}.{part} has the heads {', '.join(getattr(losses, part)) or 'none'}, and start.valid has "
                    f"{', '.join(heads) or 'none'}; give the losses of every head before and after, on both parts"
                )
    train, valid = (_both_ends(start, end, part) for part in ("train", "valid"))
    probes = {
        head: ProbeLosses(
            start_train=train[head][0], start_valid=valid[head][0], end_train=train[head][1], end_valid=valid[head][1]
        )
        for head in heads
    }
    return estimate(probes, blend, epoch=epoch, probe_epochs=probe_epochs, previous=previous)


def require_meant(blend: BlendConfig) -> None:
    """Raise ``ValueError`` for a setting that would do nothing outside our own training."""
    for item in fields(blend):
        if item.name not in MEANT and getattr(blend, item.name) != item.default:
            raise ValueError(
                f"blend.{item.name} is for gblend's own training, and here it would do nothing; leave it at "
                f"{item.default!r}"
            )


def _both_ends(start: SampleLosses, end: SampleLosses, part: Part) -> dict[str, list[HeadLosses]]:
    """Per head, before and after; which samples count is a mask beside the losses there."""
    found = {}
    samples = np.shape(next(iter(getattr(start, part).values())))
    for head in getattr(start, part):
        both = [np.ma.asarray(getattr(losses, part)[head], dtype=np.float64) for losses in (start, end)]
        masks = [np.ma.getmaskarray(losses) for losses in both]
        if (
            len(samples) != 1
            or {losses.shape for losses in both} != {samples}
            or not np.array_equal(masks[0], masks[1])
        ):
            raise ValueError(
                f"{part} losses must be one number a sample, of the same samples for all heads before and after the "
                f"probes; those of {head} have the shapes {both[0].shape} and {both[1].shape}, with {masks[0].sum()} "
                f"and {masks[1].sum()} masked, and the first head has {samples}"
            )
        found[head] = [
            HeadLosses(loss_nats=losses.filled(0.0), correct=np.zeros(losses.size, dtype=bool), counted=~mask)
            for losses, mask in zip(both, masks, strict=True)
        ]
    return found
