"""Loss weights of a run's super-epochs, one after another: by its method, and from estimates where it makes some.

``online`` with exact weights waits for probes before every super-epoch. With stale ones (``blend.staleness`` 1) it
waits once; then the probes from the start of a super-epoch train while the run does, or when their weights are due:

    exact    P0 [ weights from P0 ] P1 [ weights from P1 ] P2 [ weights from P2 ]
    stale    P0 [ weights from P0 ]    [ weights from P0 ]    [ weights from P1 ]
                                       P1 -------------->

Which weights hold when follows from the settings alone, never from when a probe was finished.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from gblend.config import TrainConfig
from gblend.data import RunData
from gblend.estimate import ProbeLosses, estimate
from gblend.heads import branch_of, of_each_task
from gblend.later import change_epochs, config_at
from gblend.loop import Position
from gblend.methods import RunSpec
from gblend.model import BlendModel
from gblend.moments import Measured, load_moments
from gblend.probe_task import Elsewhere
from gblend.probes import Probes, losses_of
from gblend.records import EstimateRecord, estimate_record
from gblend.run_files import LOSSES_FILE
from gblend.run_state import State, part_of, within
from gblend.schedule import super_epoch_at, super_epochs


@dataclass(frozen=True, kw_only=True, slots=True)
class _Probed:
    """What an estimate is made of."""

    losses: Mapping[str, ProbeLosses]
    """Per head."""
    epochs: int
    """Length of the probes."""
    stale_epochs: int = 0
    """As in `EstimateRecord`."""


@dataclass(kw_only=True)
class WeightsAhead:
    """The weights of one run, and the probes they come from."""

    model: BlendModel
    """The run's network."""
    data: RunData
    """Clips."""
    config: TrainConfig
    """Of the run."""
    spec: RunSpec
    """Of the run."""
    needed: Mapping[str, str]
    """Directories of runs that it builds on, by head."""
    elsewhere: Elsewhere | None = None
    """Worker 0: where ``spread`` probes train."""
    announce: Callable[[Position], object] | None = None
    """Told of probes of a super-epoch's length before they begin."""
    probes: Probes | None = None
    """Those that the next estimate is made of, under way or finished."""
    estimates: list[EstimateRecord] = field(default_factory=list)
    """So far."""
    probe_epochs: float = 0.0
    """Training epochs of all networks in probes that are done with, on as many clips as the run trains on."""

    @property
    def lengths(self) -> list[int]:
        """Of the super-epochs, in epochs; the weights are decided anew at the start of each."""
        blend = self.config.blend
        if self.spec.method in ("online", "tracked"):
            return super_epochs(self.config.epochs, blend.first_epochs, blend.next_epochs)
        if self.spec.method == "fixed":
            ends = [*change_epochs(self.config), self.config.epochs]
            return [end - start for start, end in zip([0, *ends], ends, strict=False)]
        return [self.config.epochs]

    def super_epoch(self, epoch: int) -> Position:
        """The one under way after ``epoch`` finished epochs, or next."""
        start, length = super_epoch_at(self.lengths, epoch)
        return Position(start_epoch=start, epochs=length)

    def decide(
        self,
        ahead: Position,
        moments: Sequence[Measured],
        *,
        after_step: Callable[[], object] | None = None,
        after_epoch: Callable[[], object] | None = None,
    ) -> dict[str, float]:
        """Loss weights of the epochs ahead; those of every task's heads are decided by themselves.

        Args:
            ahead: A super-epoch, at whose start the run is.
            moments: The network before training and after every epoch so far.
            after_step: As for `Probes.run`.
            after_epoch: Likewise.
        """
        heads, branches, method = self.model.head_names, self.model.branches, self.spec.method
        blend = config_at(self.config, ahead.start_epoch).blend
        total = blend.total(len(branches))
        first = ahead.start_epoch == 0
        if len(branches) == 1:
            return dict.fromkeys(heads, 1.0)
        if method == "fixed":
            return dict(zip(heads, blend.fixed_weights, strict=True))
        if method == "equal" or (method == "tracked" and first):
            return dict.fromkeys(heads, total / len(branches))
        if method == "tracked":
            found = self._tracked(ahead, moments)
        elif method == "offline" or (first and blend.reuse == "offline"):
            found = self._offline()
        else:
            found = self._from_probes(ahead, moments, after_step, after_epoch)
        weights = self._estimated(found, ahead)
        if method == "online":
            self._look_ahead(ahead)
        return weights

    def state(self) -> State:
        """All that the weights to come depend on, besides the run's own state."""
        records = {
            "estimates": [asdict(record) for record in self.estimates],
            "probe_epochs": self.probe_epochs,
            "probes": None if self.probes is None else asdict(self.probes.ahead),
        }
        found: State = {"records": json.dumps(records)}
        if self.probes is None:
            return found
        if self.probes.model is not self.model and self.probes.missing:
            found["checkpoint"] = self.probes.model.state_dict()
        return found | within("probes", self.probes.state())

    def restore(self, state: State) -> None:
        """Go back to where `state` was taken."""
        records = json.loads(state["records"])
        self.estimates = [estimate_record(values) for values in records["estimates"]]
        self.probe_epochs = records["probe_epochs"]
        if records["probes"] is not None:
            model = self.model
            if "checkpoint" in state:
                model = copy.deepcopy(self.model)
                model.load_state_dict(state["checkpoint"])
            self.probes = self._make_probes(Position(**records["probes"]), model)
            self.probes.restore(part_of(state, "probes"))
            if model is not self.model:
                self.probes.begin()

    def _tracked(self, ahead: Position, moments: Sequence[Measured]) -> _Probed:
        """The run's own heads in its last super-epoch."""
        blend = self.config.blend
        epochs = blend.next_epochs if self.estimates else blend.first_epochs
        own = moments[ahead.start_epoch - epochs : ahead.start_epoch + 1]
        return _Probed(losses={head: losses_of(own, head, blend) for head in self.model.head_names}, epochs=epochs)

    def _offline(self) -> _Probed:
        """Full-length probes, which are other runs."""
        kept = {name: load_moments(f"{self.needed[name]}/{LOSSES_FILE}") for name in self.model.branches}
        losses = {head: losses_of(kept[branch_of(head)], head, self.config.blend) for head in self.model.head_names}
        return _Probed(losses=losses, epochs=self.config.epochs)

    def _from_probes(
        self,
        ahead: Position,
        moments: Sequence[Measured],
        after_step: Callable[[], object] | None,
        after_epoch: Callable[[], object] | None,
    ) -> _Probed:
        """Probes from where the run is, or from an earlier super-epoch's start, finished now."""
        if self.probes is None:
            self.probes = self._new_probes(ahead, self.model)
        probes = self.probes
        probes.run(after_step=after_step, after_epoch=after_epoch)
        start = probes.ahead.start_epoch
        return _Probed(
            losses=probes.losses(moments[start]),
            epochs=probes.ahead.epochs,
            stale_epochs=ahead.start_epoch - start,
        )

    def _look_ahead(self, ahead: Position) -> None:
        """Keep the probes that the next super-epoch's weights come from, or begin them."""
        stale = self.config.blend.staleness == 1 and ahead.end_epoch < self.config.epochs
        if stale and self.probes is not None and self.probes.ahead.start_epoch == ahead.start_epoch:
            return
        if self.probes is not None:
            part = 1.0 if self.data.probe_part is None else len(self.data.probe_part) / len(self.data.train)
            self.probe_epochs += len(self.model.branches) * self.probes.ahead.epochs * part
            self.probes = None
        if stale:
            self.probes = self._new_probes(ahead, copy.deepcopy(self.model))
            self.probes.begin()

    def _new_probes(self, ahead: Position, model: BlendModel) -> Probes:
        ahead = replace(ahead, epochs=self.config.blend.probe_length(ahead.epochs))
        if self.announce is not None:
            self.announce(ahead)
        return self._make_probes(ahead, model)

    def _make_probes(self, ahead: Position, model: BlendModel) -> Probes:
        return Probes(
            model=model,
            data=self.data,
            config=config_at(self.config, ahead.start_epoch),
            ahead=ahead,
            seed=self.spec.seed,
            run_name=self.spec.name,
            elsewhere=self.elsewhere,
        )

    def _estimated(self, probed: _Probed, ahead: Position) -> dict[str, float]:
        blend = config_at(self.config, ahead.start_epoch).blend
        total = blend.total(len(self.model.branches))
        weights: dict[str, float] = {}
        for names in of_each_task(self.model.head_names).values():
            previous = [record.weights for record in self.estimates if record.heads == names]
            found = estimate(
                {head: probed.losses[head] for head in names},
                blend,
                epoch=ahead.start_epoch,
                probe_epochs=probed.epochs,
                stale_epochs=probed.stale_epochs,
                previous=previous[-1] if previous else (),
            )
            self.estimates.append(found)
            weights |= {head: total * weight for head, weight in zip(names, found.weights, strict=True)}
        return weights
