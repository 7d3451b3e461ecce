"""A network of the user's own, of which nothing is known but that it answers a batch with logits per head.

What an estimate needs of it: a copy of a branch to train, the loss of every sample, and to be sure that nobody trained
the network itself.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gblend.loss import clip_losses, labelled
from gblend.model import BlendModel, eager

Answers = tuple[Any, Any]
"""Logits per head, float (batch, classes), and the labels of the batch, or those of each head."""

Forward = Callable[[nn.Module, Any], Answers]
"""From a network and a batch to its answers."""

SampleLoss = Callable[[Tensor, Tensor], Tensor]
"""From logits and labels to a loss of every sample, float (batch)."""


def answer(network: nn.Module, batch: Any) -> Answers:
    """``network(*inputs)`` of a batch ``(*inputs, labels)``, which is brought to the network's device.

    >>> class Net(nn.Module):
    ...     def forward(self, sound, picture):
    ...         return {"sound": sound, "picture": picture}
    >>> logits, labels = answer(Net(), (torch.zeros(4, 2), torch.ones(4, 2), torch.tensor([0, 1, 0, 1])))
    >>> logits["picture"].shape, labels.tolist()
    (torch.Size([4, 2]), [0, 1, 0, 1])
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    *inputs, labels = _on(device, batch)
    if len(inputs) == 1 and isinstance(inputs[0], tuple | list):
        (inputs,) = inputs
    return network(*inputs), labels


def _on(device: torch.device, values: Any) -> Any:
    if isinstance(values, Tensor):
        return values.to(device)
    if isinstance(values, Mapping):
        return {name: _on(device, value) for name, value in values.items()}
    if isinstance(values, tuple | list):
        return [_on(device, value) for value in values]
    return values


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredHead:
    """One head on one set of samples."""

    losses: np.ndarray
    """float64 (samples), masked where a sample has no label."""
    labels: np.ndarray
    """As they came: they tell whether the samples are the same as before."""


def measure_samples(
    network: nn.Module, batches: Iterable[Any], *, forward: Forward = answer, loss: SampleLoss = clip_losses
) -> dict[str, MeasuredHead]:
    """The loss of every sample by every head, in eval mode and without gradients; the network stays in eval mode.

    Args:
        network: On its device.
        batches: Of any kind that ``forward`` takes.
        forward: From a network and a batch to logits and labels.
        loss: From logits and labels to a loss of every sample. Whole numbers below 0 are no labels, nor are, for
            cross-entropy of several labels, rows of -1.

    Raises:
        ValueError: There is no batch, or ``forward`` or ``loss`` returns something else.
    """
    network.eval()
    found: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    with torch.no_grad(), eager(network) if isinstance(network, BlendModel) else nullcontext():
        for batch in batches:
            logits, labels = forward(network, batch)
            if not isinstance(logits, Mapping):
                raise ValueError(f"the network must answer with a dict, logits by head; got {type(logits).__name__}")
            for head, values in logits.items():
                if not isinstance(labels, Tensor) and head not in labels:
                    raise ValueError(
                        f"labels must have one entry for every head, and there is none for {head}; they have "
                        f"{', '.join(labels) or 'none'}"
                    )
                label = labels if isinstance(labels, Tensor) else labels[head]
                each = loss(values, label)
                if not (isinstance(each, Tensor) and each.shape == label.shape[:1]):
                    got = tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__
                    raise ValueError(
                        f"loss must return one number for each of {len(label)} samples, got {got}; use reduction='none'"
                    )
                counts = loss is clip_losses or not label.is_floating_point()
                known = labelled(label) if counts else torch.ones(len(label), dtype=torch.bool)
                found.setdefault(head, []).append(
                    (each.double().cpu().numpy(), known.cpu().numpy(), label.cpu().numpy())
                )
    if not found:
        raise ValueError("there is no batch to measure; batches must be there each time they are iterated over")
    return {
        head: MeasuredHead(
            losses=np.ma.masked_array(
                np.concatenate([each for each, _, _ in parts]), mask=~np.concatenate([known for _, known, _ in parts])
            ),
            labels=np.concatenate([label for _, _, label in parts]),
        )
        for head, parts in found.items()
    }


def copy_branch(network: nn.Module, head: str, *, branch: Callable[[nn.Module, str], nn.Module] | None) -> nn.Module:
    """A copy of a network to train for one head, in training mode.

    Args:
        network: It stays as it is.
        head: Which.
        branch: The user's way; none: the branch of a `BlendModel`, and of any other network a copy of all of it, where
            a parameter that the head does not read gets no gradient and so stays as it is.

    Raises:
        ValueError: ``branch`` returned something that shares parameters with the network.
    """
    if branch is not None:
        copied = branch(network, head)
        if {id(p) for p in network.parameters()} & {id(p) for p in copied.parameters()}:
            raise ValueError(
                f"branch must return a deep copy; what it returned for {head} shares parameters with the network"
            )
    else:
        copied = network.branch(head) if isinstance(network, BlendModel) else copy.deepcopy(network)
    return copied.train()


def versions(network: nn.Module) -> list[int]:
    """PyTorch's count of the changes of every parameter and buffer, to see whether there were any."""
    return [values._version for values in (*network.parameters(), *network.buffers())]
