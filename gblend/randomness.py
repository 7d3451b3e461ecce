"""Random numbers as a function of what they are for, never of what was drawn before.

PyTorch's dropout draws from one global generator per device. A learner gets a state of it that is its own, so that
networks which train side by side draw what each would draw alone, and the program around them notices nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


def seed_of(entropy: tuple[int, ...]) -> int:
    """A seed for one purpose, from whatever tells it from others.

    >>> seed_of((0, 1)) == seed_of((0, 1)), seed_of((0, 1)) == seed_of((1, 0))
    (True, False)
    """
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


@dataclass(kw_only=True)
class Randomness:
    """The global generators of the CPU and of a device, as one learner sees them."""

    device: torch.device
    """Where it computes."""
    entropy: tuple[int, ...]
    """Decides where they start."""
    states: list[Tensor] = field(default_factory=list)
    """Where this learner left them; empty before the first use."""

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The generators go on where this learner left them; afterwards they are as they were before."""
        generators = [torch.default_generator]  # torch.manual_seed would seed the other devices as well
        if self.device.type == "cuda":
            generators.append(torch.cuda.default_generators[self.device.index])
        before = [generator.get_state() for generator in generators]
        if self.states:
            for generator, state in zip(generators, self.states, strict=True):
                generator.set_state(state)
        else:
            for generator in generators:
                generator.manual_seed(seed_of(self.entropy))
        try:
            yield
        finally:
            self.states = [generator.get_state() for generator in generators]
            for generator, state in zip(generators, before, strict=True):
                generator.set_state(state)
