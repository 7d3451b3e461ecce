"""Random numbers as a function of what they are for, never of what was drawn before.

PyTorch's dropout draws from one global generator per device. A learner gets a state of it that is its own, so that
networks which train side by side draw what each would draw alone, and the program around them notices nothing.
"""

import random
from collections.abc import Iterator, Sequence
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


@contextmanager
def undisturbed(own: Sequence[torch.Generator] = ()) -> Iterator[None]:
    """Whatever is drawn inside, all global generators (PyTorch's, NumPy's, Python's) are afterwards as they were.

    Args:
        own: Further generators to put back, such as a loader's.
    """
    generators = [*_of_torch(), *own]
    states = [generator.get_state() for generator in generators]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - a user's code may draw from it
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def start_at(seed: int) -> None:
    """Start all global generators from a seed of 32 bits; only inside `undisturbed`."""
    for generator in _of_torch():
        generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


def _of_torch() -> list[torch.Generator]:
    """Of the CPU, and of every CUDA device once CUDA is in use: before, nothing can have been drawn there."""
    return [torch.default_generator, *(torch.cuda.default_generators if torch.cuda.is_initialized() else ())]
