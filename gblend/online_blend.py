"""Online Gradient-Blending (Algorithm 3) for a training loop of the user's own: it asks for weights, epoch by epoch.

At the first epoch of every super-epoch each head is trained alone, on a copy of the network and by the user's own
function, and measured before and after; O, G and the weights follow (Algorithm 1, Eq. 3, Proposition 1). All that is
known about the network is that it answers with logits per head. The run notices nothing: its parameters, its optimiser
and all random generators are as they were, so weights given by hand lead to the same bits.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from gblend.config import BlendConfig
from gblend.loss import clip_losses
from gblend.own_network import Forward, MeasuredHead, SampleLoss, answer, copy_branch, measure_samples, versions
from gblend.randomness import seed_of, start_at, undisturbed
from gblend.records import EstimateRecord, estimate_record, to_json
from gblend.require import require
from gblend.sample_losses import PAPER_RULES, Part, SampleLosses, gb_estimate, require_meant
from gblend.schedule import super_epoch_at, super_epochs


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What a probe is to do: train one head alone, as the run would train it from where it is."""

    head: str
    """The only head whose loss counts."""
    start_epoch: int
    """Finished epochs of the run: where the learning rate's schedule begins for the probe."""
    epochs: int
    """How many to train."""

    @property
    def weights(self) -> dict[str, float]:
        """Loss weights of this training, for a function that trains the run as well: 1 for the head."""
        return {self.head: 1.0}


@dataclass(kw_only=True)
class OnlineBlend:
    """Loss weights for the epochs of a user's own training of one task (Algorithm 3).

    One is for one training: it keeps its estimates, so another training, with another seed say, needs another one. In
    several processes ask in one of them, and send the others its answer: it knows of no other process.

    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.sound, self.picture = nn.Linear(4, 2), nn.Linear(4, 2)
    ...
    ...     def forward(self, x):
    ...         return {"sound": self.sound(x), "picture": self.picture(x)}
    >>> def batches(count):
    ...     return [(torch.randn(20, 4), torch.randint(2, (20,))) for _ in range(count)]
    >>> training, heldout = batches(3), batches(2)
    >>> def train(network, probe):  # a step an epoch, for short
    ...     optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    ...     for x, labels in training[: probe.epochs]:
    ...         optimizer.zero_grad()
    ...         nn.functional.cross_entropy(network(x)[probe.head], labels).backward()
    ...         optimizer.step()
    >>> blend = OnlineBlend(epochs=6, train=train, train_batches=training, valid_batches=heldout,
    ...     blend=BlendConfig(first_epochs=3, next_epochs=2))
    >>> network = Net()
    >>> for epoch in range(6):
    ...     weights = blend.weights_at(epoch, network)  # then an epoch of the run with these
    >>> list(weights), round(sum(weights.values()), 6)
    (['sound', 'picture'], 1.0)
    >>> [(found.epoch, found.probe_epochs) for found in blend.estimates]
    [(0, 3), (3, 2), (5, 1)]
    """

    epochs: int
    """Of the whole run, so that the last super-epoch is what remains."""
    train: Callable[[nn.Module, Probe], object]
    """The user's: train the network it is given, a copy of a branch, for ``probe.epochs`` epochs on the loss of
    ``probe.head`` alone, with a fresh optimiser. It may train in any way, on the training samples."""
    train_batches: Iterable[Any]
    """Training samples to measure, all of them or some, always in the same order and without augmentation."""
    valid_batches: Iterable[Any]
    """V, held-out samples that neither run nor probe trains on, likewise."""
    blend: BlendConfig = PAPER_RULES
    """Lengths of super-epochs (``first_epochs``, ``next_epochs``) and probes, and rules for the weights; settings of
    our own training are refused."""
    forward: Forward = answer
    """From a network and a batch to logits and labels; by default batches are ``(*inputs, labels)``. Labels are int64
    (batch), -1 for a sample to leave out, or float32 (batch, classes) of several labels; they may be given for each
    head by its name, where heads leave out different samples."""
    loss: SampleLoss = clip_losses
    """From logits and labels to the loss of every sample, float (batch), of which O and G are made: cross-entropy, with
    several labels binary cross-entropy. One that is 1 for a wrong answer makes O and G of error rates."""
    branch: Callable[[nn.Module, str], nn.Module] | None = None
    """From the network and a head to a deep copy of what that head needs, which must answer at least for it. None: that
    of `BlendModel`, and of any other network a copy of all of it."""
    generators: Sequence[torch.Generator] = ()
    """Generators of the user's own that probes draw from as the run does (a loader's): put back with the global ones.
    """
    seed: int = 0
    """Where the global generators start in probes; all heads of an estimate have the same."""
    estimates: list[EstimateRecord] = field(default_factory=list)
    """All so far, with O, G, OGR, standard errors and warnings."""

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        require_meant(self.blend)

    def weights_at(self, epoch: int, network: nn.Module) -> dict[str, float]:
        """What each head's loss is to be multiplied by in an epoch (Eq. 7); estimated where a super-epoch begins.

        Args:
            epoch: Finished epochs, from 0; every one is asked for in turn.
            network: As it is then. It is copied, and neither changed nor kept.

        Raises:
            ValueError: The super-epoch's estimate is not there, ``train`` trained the run's network, or what was
                measured is of other samples than before.
        """
        if not 0 <= epoch < self.epochs:
            raise ValueError(f"epoch must be in 0 to {self.epochs - 1}, one of {self.epochs} epochs, got {epoch}")
        lengths = super_epochs(self.epochs, self.blend.first_epochs, self.blend.next_epochs)
        start, length = super_epoch_at(lengths, epoch)
        found = next((record for record in self.estimates if record.epoch == start), None)
        if found is None and epoch != start:
            raise ValueError(
                f"epoch {epoch} is within the super-epoch that began at {start}, whose estimate is not there; ask at "
                "every epoch from the first, and after a restart call load_state_dict before"
            )
        if found is None:
            found = self._estimate(network, epoch=epoch, probe_epochs=self.blend.probe_length(length))
            self.estimates.append(found)
        return found.loss_weights

    def state_dict(self) -> dict[str, Any]:
        """All that a restart needs, plain values only: to be kept with each checkpoint."""
        return {"estimates": [to_json(record) for record in self.estimates]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state_dict` was called."""
        self.estimates = [estimate_record(values) for values in state["estimates"]]

    def _estimate(self, network: nn.Module, *, epoch: int, probe_epochs: int) -> EstimateRecord:
        """Algorithm 1 from the network as it is."""
        untouched = versions(network)
        with undisturbed(self.generators):
            start = self._measure(copy.deepcopy(network))
            end = {
                head: self._probe(network, Probe(head=head, start_epoch=epoch, epochs=probe_epochs), start)
                for head in start["valid"]
            }
        if versions(network) != untouched:
            raise ValueError(
                "train changed the run's own network; it must train the network that it is given, by an optimiser of "
                "that one's parameters"
            )
        return gb_estimate(
            SampleLosses(
                **{part: {head: found.losses for head, found in heads.items()} for part, heads in start.items()}
            ),
            SampleLosses(**{part: {head: found[part].losses for head, found in end.items()} for part in start}),
            blend=self.blend,
            epoch=epoch,
            probe_epochs=probe_epochs,
            previous=self.estimates[-1].weights if self.estimates else (),
        )

    def _probe(
        self, network: nn.Module, probe: Probe, start: Mapping[Part, Mapping[str, MeasuredHead]]
    ) -> dict[Part, MeasuredHead]:
        """One head after its probe; all heads begin with the same random numbers."""
        with undisturbed(self.generators):
            start_at(seed_of((self.seed, probe.start_epoch)))
            branch = copy_branch(network, probe.head, branch=self.branch)
            devices = {parameter.device for parameter in branch.parameters()}
            self.train(branch, probe)
            if len(devices) == 1:
                branch.to(devices.pop())  # a trainer may leave what it trained on the CPU, as Lightning's does
            end = self._measure(branch)
        for part, heads in end.items():
            if probe.head not in heads:
                raise ValueError(f"the branch of {probe.head} does not answer for it, only for {', '.join(heads)}")
            if not np.array_equal(heads[probe.head].labels, start[part][probe.head].labels):
                raise ValueError(
                    f"{part}_batches brought other samples after the probe of {probe.head} than before; they must "
                    "be the same in the same order each time they are iterated over (no shuffling, no generator)"
                )
        return {part: heads[probe.head] for part, heads in end.items()}

    def _measure(self, network: nn.Module) -> dict[Part, dict[str, MeasuredHead]]:
        parts: dict[Part, Iterable[Any]] = {"train": self.train_batches, "valid": self.valid_batches}
        return {
            part: measure_samples(network, batches, forward=self.forward, loss=self.loss)
            for part, batches in parts.items()
        }
