"""What a run will cost, counted before it is spent: in branch-epochs, and while it trains in seconds.

A branch-epoch is one epoch of one training: of the run, or of one branch in a probe, which is less where probes train
on part of the clips. Time is told from the steps so far. Steps differ, so they are counted in steps of the whole
network: all probes side by side go through every trunk twice, once alone and once in the fused branch, and a refitted
head only reads the trunks.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gblend.config import TrainConfig
from gblend.methods import BLENDS, ENSEMBLES
from gblend.schedule import super_epochs

PROBES_STEP = 2.0
"""Steps of the whole network that one step of all probes takes, side by side or one after another."""

REFIT_STEP = 1 / 3
"""Those that a step of the refitted head takes: a forward pass, of about a third of a step's work."""

BRANCH_EPOCH = "each is one network, or one branch of it in a probe, trained for one epoch"
"""The unit, in words."""

SAY_EVERY_S = 60.0
"""Between two lines about where a run is."""

STEP_EVERY_S = 1.0
"""Between two numbers about that, for a bar."""


def probed_epochs(method: str, config: TrainConfig, *, start_epoch: int = 0) -> int:
    """Epochs of the probes that decide the weights of the super-epochs from ``start_epoch`` on.

    With exact weights they are as long as the super-epoch, with stale ones as the one before it, but for the first two,
    which share those of the first; and never longer than ``blend.probe_epochs``.

    >>> config = TrainConfig(name="doc", epochs=18)  # super-epochs of 10, 5 and 3
    >>> [probed_epochs("online", config, start_epoch=epoch) for epoch in (0, 10, 15, 18)]
    [18, 8, 3, 0]
    >>> probed_epochs("equal", config)
    0
    >>> from dataclasses import replace
    >>> probed_epochs("online", replace(config, blend=replace(config.blend, probe_epochs=4)))
    11
    >>> stale = replace(config, blend=replace(config.blend, staleness=1))
    >>> [probed_epochs("online", stale, start_epoch=epoch) for epoch in (0, 10, 15)]
    [15, 5, 5]
    """
    if method != "online":
        return 0
    blend = config.blend
    lengths = super_epochs(config.epochs, blend.first_epochs, blend.next_epochs)
    probes = [lengths[0], 0, *lengths[1:-1]] if blend.staleness and len(lengths) > 1 else list(lengths)
    if blend.reuse == "offline":
        probes[0] = 0
        if blend.staleness and len(lengths) > 1:
            probes[1] = lengths[0]
    probes = [blend.probe_length(length) for length in probes]
    starts = [sum(lengths[:at]) for at in range(len(lengths))]
    return sum(length for start, length in zip(starts, probes, strict=True) if start >= start_epoch)


def branch_epochs(method: str, config: TrainConfig, *, modalities: int, probe_share: float = 1.0) -> float:
    """Of a run from its start, without those of runs it builds on.

    Args:
        method: Of `gblend.methods`.
        config: Epochs and super-epochs.
        modalities: Of the joint network.
        probe_share: Share of the training clips that probes train on.

    >>> config = TrainConfig(name="doc", epochs=12)
    >>> [branch_epochs(method, config, modalities=2) for method in ("naive", "online", "ensemble")]
    [12.0, 48.0, 0.0]
    """
    if method in ENSEMBLES:
        return 0.0
    return config.epochs + (modalities + 1) * probe_share * probed_epochs(method, config)


def network_epochs(method: str, config: TrainConfig, *, modalities: int, probe_share: float = 1.0) -> float:
    """How long such a run takes, in epochs of the joint network; modalities count as alike. Arguments as above.

    Probes that train elsewhere, side by side, are waited for as long as one of them trains.

    >>> config = TrainConfig(name="doc", epochs=12)
    >>> methods = ("uni:rgb", "naive", "equal", "online", "ensemble")
    >>> [round(network_epochs(method, config, modalities=3), 2) for method in methods]
    [4.0, 12.0, 12.67, 36.67, 0.0]
    """
    if method in ENSEMBLES:
        return 0.0
    if method.startswith("uni:"):
        return config.epochs / modalities
    refitted = config.blend.refit_epochs if method in BLENDS else 0
    each = 1.0 if config.blend.probes == "spread" else PROBES_STEP
    return config.epochs + each * probe_share * probed_epochs(method, config) + REFIT_STEP * refitted


@dataclass(kw_only=True)
class Pace:
    """How fast a run goes in this process: on the one worker that says so."""

    say: Callable[[str], object]
    """Told a line."""
    step: Callable[[float, str], object] | None = None
    """Told in place of lines, once a second, the share of the run that is done, and where that is."""
    whole: float = 0.0
    """Steps of the whole run."""
    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    steps: float = 0.0
    """Done since the first one ended, in steps of the whole network; the first one may have compiled something."""
    first_s: float | None = None
    """When it ended."""
    said_s: float = field(init=False)
    """When a line was said last."""

    def __post_init__(self) -> None:
        self.said_s = self.clock()

    def count(self, steps: float) -> bool:
        """Count a step that is done; whether it is time to tell where the run is."""
        now = self.clock()
        if self.first_s is None:
            self.first_s = now
        else:
            self.steps += steps
        due = now - self.said_s >= (SAY_EVERY_S if self.step is None else STEP_EVERY_S)
        if due:
            self.said_s = now
        return due

    def in_words(self, steps: float) -> str:
        """How long so many steps will take, with the measuring and saving between them."""
        if self.first_s is None or self.steps == 0.0:
            return "an unknown time"
        return f"about {duration((self.clock() - self.first_s) / self.steps * steps)}"


def rest_in_words(*, seconds: float, done: float, whole: float) -> str:
    """How long a list of runs will go on, to be said behind one that has finished; nothing where that is not known.

    Args:
        seconds: What the finished runs took, in whatever process.
        done: Epochs of the network that they took (`network_epochs`).
        whole: Of the whole list.

    >>> rest_in_words(seconds=60.0, done=20.0, whole=120.0)
    '; all that is left: about 5 min'
    >>> rest_in_words(seconds=60.0, done=120.0, whole=120.0), rest_in_words(seconds=0.0, done=0.0, whole=120.0)
    ('', '')
    >>> rest_in_words(seconds=60.0, done=0.1 + 0.2, whole=0.3), rest_in_words(seconds=60.0, done=0.3, whole=0.1 + 0.2)
    ('', '')
    """
    if done <= 0.0 or whole - done < 1e-6 * whole:  # they are added up in different orders
        return ""
    return f"; all that is left: about {duration(seconds / done * (whole - done))}"


def duration(seconds: float) -> str:
    """In the largest unit of which there are two or more.

    >>> duration(3.2), duration(119.0), duration(121.0), duration(7300.0), duration(2e5)
    ('3 s', '119 s', '2 min', '2.0 h', '2.3 days')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"
