"""Probes as values that can be sent to other workers, and what comes back: neither networks nor code.

Probes are functions of their data, settings and checkpoint alone. So they can train anywhere, at any time after the
checkpoint, and be tried again when a machine is lost.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from gblend.config import TrainConfig
from gblend.loop import Position
from gblend.records import to_json
from gblend.run_state import State


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeTask:
    """Probes from one checkpoint: with the data set, all that they depend on."""

    run: str
    """Name of the run, which tells it from others of the same list."""
    branches: tuple[str, ...]
    """Those to train."""
    config: TrainConfig
    """Of the run."""
    seed: int
    """Of the run."""
    ahead: Position
    """Epochs to train."""
    checkpoint: Mapping[str, Tensor]
    """Parameters and buffers of the joint network, on the CPU."""
    workers: int
    """Those of the run, and of every group that trains a probe."""

    @property
    def name(self) -> str:
        """Of these probes, in lines about them."""
        return f"{self.run} from epoch {self.ahead.start_epoch}"

    @property
    def key(self) -> str:
        """Tells these probes from all others: a run of the same name may have other settings in another list, and one
        that goes on with another number of workers asks for other ones.
        """
        settings = json.dumps([to_json(self.config), self.seed], sort_keys=True)
        return f"{self.name} on {self.workers} workers, {hashlib.sha256(settings.encode()).hexdigest()[:16]}"


Arrivals = Callable[[], Mapping[str, State]]
"""Waits a moment. Then per branch, for the probes that have become finished since the last call, what was measured
after their epochs (`gblend.run_state.moments_state`)."""

Elsewhere = Callable[[ProbeTask], Arrivals]
"""Begins to train probes on other workers than the run's. Asked again for the same probes, it goes on with them."""
