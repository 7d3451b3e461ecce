"""What the rest of a run depends on, as plain values: tensors, numbers, text, lists and dictionaries by name.

Reading such values back runs no code (`torch.load` with ``weights_only``). A state is flat: names of parts, joined by
dots, all of them ours; names that users give are found inside the values only. Parameters, optimisers and records are
the same on every worker. Buffers (BatchNorm's statistics, which are averaged at the ends of epochs only) and random
generators are not: each worker keeps its own, told from the others by `OWN`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gblend.loop import Learner, Progress
from gblend.loss import LearnedWeights
from gblend.moments import Measured, from_arrays, to_arrays

State = dict[str, Any]
"""Values by dotted name. Tensors are those of the run, not copies: write it before the next step."""

OWN = ("buffers", "generators")
"""Last parts of the names of what each worker has for itself."""


@dataclass(kw_only=True)
class Lesson:
    """Networks that train side by side, and how far they are."""

    learners: Sequence[Learner]
    """On their devices."""
    progress: Progress
    """Moved on by `gblend.loop.train_together`."""

    def state(self) -> State:
        """All that the rest of their training depends on, besides the settings."""
        progress = self.progress
        found: State = {"position": [progress.epoch, progress.step], "generators": progress.generators}
        for at, learner in enumerate(self.learners):
            found[f"{at}.parameters"] = _values(learner.model.named_parameters())
            found[f"{at}.buffers"] = _values(learner.model.named_buffers())
            found[f"{at}.optimizer"] = learner.optimizer.state_dict()
            if isinstance(learner.weights, LearnedWeights):
                found[f"{at}.learned"] = _values(learner.weights.named_parameters())
        return found

    def restore(self, state: State) -> None:
        """Go back to where `state` was taken, in place. The learners are made as they were then.

        Raises:
            ValueError: They are other networks.
        """
        self.progress.epoch, self.progress.step = state["position"]
        self.progress.generators = state["generators"]
        for at, learner in enumerate(self.learners):
            _fill(learner.model.named_parameters(), state[f"{at}.parameters"])
            _fill(learner.model.named_buffers(), state[f"{at}.buffers"])
            learner.optimizer.load_state_dict(state[f"{at}.optimizer"])
            if isinstance(learner.weights, LearnedWeights):
                _fill(learner.weights.named_parameters(), state[f"{at}.learned"])


def how_far(progress: Progress, start_epoch: int, epochs: int) -> str:
    """In words.

    >>> how_far(Progress(epoch=5, step=40), 4, 3)
    '1 of 3 epochs and 40 steps'
    >>> how_far(Progress(epoch=5, step=1), 4, 3)
    '1 of 3 epochs and 1 step'
    """
    steps = f" and {progress.step} step{'s' if progress.step > 1 else ''}" if progress.step else ""
    return f"{progress.epoch - start_epoch} of {epochs} epochs{steps}"


def within(name: str, state: State) -> State:
    """The state as a part of a larger one.

    >>> within("run", {"position": [2, 0]})
    {'run.position': [2, 0]}
    """
    return {f"{name}.{key}": value for key, value in state.items()}


def part_of(state: State, name: str) -> State:
    """The inverse of `within`; empty when there is no such part.

    >>> part_of({"run.position": [2, 0], "refit.position": [0, 1]}, "run")
    {'position': [2, 0]}
    """
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}


def split(state: State) -> tuple[State, State]:
    """What all workers share, and what is this worker's own.

    >>> split({"run.0.parameters": 1, "run.0.buffers": 2, "run.generators": 3})
    ({'run.0.parameters': 1}, {'run.0.buffers': 2, 'run.generators': 3})
    """
    own = {key: value for key, value in state.items() if key.rpartition(".")[2] in OWN}
    return {key: value for key, value in state.items() if key not in own}, own


def for_any_worker(own: Sequence[State]) -> State:
    """What each worker of a group of another size has for itself when it goes on.

    Args:
        own: Of every worker that saved the state, what was its own.

    Returns:
        Statistics are the mean over the workers, as at the end of an epoch; counters are worker 0's. Generators are
        none: they begin anew where the epoch is (`gblend.loop.train_together`).

    >>> each = [{"0.buffers": {"mean": torch.tensor([x])}, "generators": [[torch.tensor([7])]]} for x in (1.0, 4.0)]
    >>> for_any_worker(each)
    {'0.buffers': {'mean': tensor([2.5000])}, 'generators': []}
    """
    return {
        key: []
        if key.rpartition(".")[2] == "generators"
        else {
            name: torch.stack([part[key][name] for part in own]).mean(dim=0) if value.is_floating_point() else value
            for name, value in values.items()
        }
        for key, values in own[0].items()
    }


def moments_state(moments: Sequence[Measured]) -> State:
    """Measurements of one network; none at all are an empty state."""
    arrays = to_arrays(moments) if moments else {}
    return {
        name: values.tolist() if name == "heads" else torch.from_numpy(np.ascontiguousarray(values))
        for name, values in arrays.items()
    }


def moments_of(state: State) -> list[Measured]:
    """The inverse of `moments_state`."""
    return from_arrays({name: np.asarray(values) for name, values in state.items()}) if state else []


def _values(named: Any) -> dict[str, Tensor]:
    return {name: values.detach() for name, values in named}


def _fill(named: Any, values: Mapping[str, Tensor]) -> None:
    """Copy values into the tensors of a network."""
    tensors = dict(named)
    shapes, wanted = ({name: tuple(t.shape) for name, t in each.items()} for each in (values, tensors))
    if shapes != wanted:
        others = sorted(dict(set(shapes.items()) ^ set(wanted.items())))
        raise ValueError(
            f"a saved state is of another network than the run's: they differ in {', '.join(others[:5])}; has the code "
            "of a network of your own changed? Delete the directory of the states to train from the start"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])
