"""What a search draws for a recipe. A space is a function; a variant calls another one and draws what differs.

Whatever it draws is valid: it draws the length of following super-epochs only where there are any, settings of probes
only where there are probes, and nothing that the schedule at hand would not read.
"""

from collections.abc import Callable, Sequence
from typing import Any

from gblend.candidate import Candidate
from gblend.config import TrainConfig
from gblend.heads import branches_of, of_each_task
from gblend.schedule import super_epochs
from gblend.space import Draw

SpaceOf = Callable[[Draw, TrainConfig, Sequence[str]], Candidate]
"""From the recipe's configuration and the names of all heads to a candidate."""

CENTRES = ("optim.learning_rate", "optim.weight_decay")
"""Drawn around the recipe's value; of all else that a space draws, the recipe's value counts for nothing."""


def blends(draw: Draw, config: TrainConfig, heads: Sequence[str]) -> Candidate:
    """Schedules, estimators of weights and their rules, and the optimiser's settings."""
    method, settings = schedule(draw, config.epochs)
    lengths = super_epochs(config.epochs, settings["blend.first_epochs"], settings.get("blend.next_epochs", 1))
    if method == "online":
        settings |= probes(draw, lengths)
    # `tracked` makes no estimate for the first one; a probe is as long as its super-epoch, or shorter.
    estimated = lengths if method == "online" else lengths[:-1]
    longest = min(max(estimated), settings.get("blend.probe_epochs", max(estimated)))
    settings |= rules(draw, estimates=len(estimated), longest=longest, branches=len(branches_of(heads)))
    return Candidate(method=method, settings={**settings, **optimizer(draw, config)})


def schedules(draw: Draw, config: TrainConfig, heads: Sequence[str]) -> Candidate:
    """Super-epochs, estimators and probes alone: a small space, for few trials."""
    method, settings = schedule(draw, config.epochs)
    lengths = super_epochs(config.epochs, settings["blend.first_epochs"], settings.get("blend.next_epochs", 1))
    if method == "online":
        settings |= reuse(draw)
        settings |= probes(draw, lengths[1:] if settings["blend.reuse"] == "offline" else lengths)
    return Candidate(method=method, settings=settings)


def schedule(draw: Draw, epochs: int) -> tuple[str, dict[str, Any]]:
    """Estimator and super-epochs. `tracked` goes by the super-epoch before, so it needs two."""
    method = draw.choice("method", ("online", "tracked") if epochs > 1 else ("online",))
    last = epochs if method == "online" else epochs - 1
    first = draw.integer("blend.first_epochs", 1, last, scale="log", points=3)
    settings: dict[str, Any] = {"blend.first_epochs": first}
    if first < epochs:
        settings["blend.next_epochs"] = draw.integer("blend.next_epochs", 1, epochs - first, scale="log", points=3)
    return method, settings


def reuse(draw: Draw) -> dict[str, Any]:
    """First weights of `online`: full-length probes pay where trials share them, with one optimiser for all."""
    return {"blend.reuse": draw.choice("blend.reuse", ("none", "offline"))}


def probes(draw: Draw, probed: Sequence[int]) -> dict[str, Any]:
    """Settings of the probes of `online`.

    Args:
        draw: As everywhere.
        probed: Lengths of the super-epochs that have probes of their own.
    """
    settings: dict[str, Any] = {}
    if probed:
        settings["blend.probe_fraction"] = draw.choice("blend.probe_fraction", (0.25, 0.5, 1.0))
        if max(probed) > 1:
            settings["blend.probe_epochs"] = draw.integer("blend.probe_epochs", 1, max(probed), scale="log", points=2)
    return settings


def rules(draw: Draw, *, estimates: int, longest: int, branches: int) -> dict[str, Any]:
    """What turns O and G into weights beyond the paper's formula; ``longest`` is the longest probe, in epochs."""
    settings: dict[str, Any] = {}
    if longest > 1:
        settings["blend.probe_end"] = draw.choice("blend.probe_end", ("last", "best-v"))
    settings |= {
        "blend.overfitting_floor": draw.choice("blend.overfitting_floor", ("none", "standard-error")),
        "blend.shrinkage": draw.choice("blend.shrinkage", (0.0, 0.25, 0.5, "noise")),
    }
    if estimates > 1:
        settings["blend.smoothing"] = draw.choice("blend.smoothing", (0.0, 0.3, 0.6))
    caps = [cap for cap in (0.5, 0.7, 1.0) if cap * branches >= 1.0]
    settings["blend.weight_cap"] = draw.choice("blend.weight_cap", caps)
    settings["blend.scale"] = draw.choice("blend.scale", ("one", "heads"))
    return settings


def optimizer(draw: Draw, config: TrainConfig) -> dict[str, Any]:
    """Learning rate up to three times smaller or larger than the recipe's, weight decay up to ten times."""
    settings = learning_rate(draw, config)
    decay = config.optim.weight_decay
    if decay > 0:
        settings["optim.weight_decay"] = draw.real("optim.weight_decay", decay / 10, decay * 10, scale="log")
    return settings


def learning_rate(draw: Draw, config: TrainConfig) -> dict[str, Any]:
    """Up to three times smaller or larger than the recipe's."""
    rate = config.optim.learning_rate
    return {"optim.learning_rate": draw.real("optim.learning_rate", rate / 3, rate * 3, scale="log")}


def weights(draw: Draw, config: TrainConfig, heads: Sequence[str]) -> Candidate:
    """The loss weights themselves, of sum 1 in every task, and the learning rate: what a population can evolve."""
    drawn = {head: draw.real(f"weight.{head}", 0.02, 1.0, scale="log") for head in heads}
    settings = learning_rate(draw, config)
    shares = [drawn[head] / sum(drawn[each] for each in task) for task in of_each_task(heads).values() for head in task]
    return Candidate(method="fixed", settings={"blend.fixed_weights": tuple(shares), **settings})


SPACES: dict[str, SpaceOf] = {"blends": blends, "schedules": schedules, "weights": weights}
"""Name on the command line to space."""
