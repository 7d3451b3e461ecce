"""What training minimises: the blended loss (Eq. 7), with weights that are given or learned.

A single label has cross-entropy; several labels a clip have binary cross-entropy with logits, the mean over the classes
(as in the authors' code), so its unit is nats per class. Label tensors tell which: int64 (batch), or float32 (batch,
classes), of 0 and 1; -1 is an unlabelled clip. Only training sees class weights and label smoothing; O and G are made
of the plain loss (`gblend.measure`). A loss of the user's own takes its place in both.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gblend.config import LossConfig
from gblend.heads import key_of
from gblend.own import import_callable
from schemas import Task

EQUAL = LossConfig()

NO_CLASS_WEIGHTS: Mapping[str, Tensor | None] = {}


def blended_loss(
    logits: Mapping[str, Tensor],
    labels: Tensor | Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    weights: Mapping[str, float | Tensor],
    counts: Mapping[str, float | Tensor],
    *,
    loss: LossConfig = EQUAL,
    class_weights: Mapping[str, Tensor | None] = NO_CLASS_WEIGHTS,
) -> Tensor:
    """L_blend = sum of w_i L_i (Eq. 7); L_i is the sum over its clips divided by ``counts``.

    Heads of weight 0 are left out, not multiplied by 0: a diverged head must not reach the others.

    Args:
        logits: Per head, float (batch, classes).
        labels: Of the only task, or per task key (`gblend.heads`), int64 (batch) or float32 (batch, classes).
        masks: Per head, bool (batch): the labelled clips it can answer for.
        weights: Per head.
        counts: Per head, what its clips count together: their number, or the sum of their class weights.
        loss: For the label smoothing.
        class_weights: Per task key, float (classes); none: every clip, or class, counts 1.

    >>> logits = {"rgb": torch.zeros(2, 4), "fused": torch.zeros(2, 4)}
    >>> everywhere = {name: torch.ones(2, dtype=torch.bool) for name in logits}
    >>> labels, counts = torch.tensor([0, 1]), {"rgb": 2.0, "fused": 2.0}
    >>> round(float(blended_loss(logits, labels, everywhere, {"rgb": 0.25, "fused": 0.5}, counts)), 4)  # 0.75 ln 4
    1.0397
    """
    by_task = {"": labels} if isinstance(labels, Tensor) else labels
    total = torch.zeros((), device=next(iter(logits.values())).device)
    for name, weight in weights.items():
        if isinstance(weight, Tensor) or weight != 0.0:
            each = clip_losses(
                logits[name],
                by_task[key_of(name)],
                own=loss.callable,
                label_smoothing=loss.label_smoothing,
                class_weights=class_weights.get(key_of(name)),
            )
            total = total + weight * torch.where(masks[name], each, 0.0).sum() / counts[name]
    return total


def clip_losses(
    logits: Tensor,
    label: Tensor,
    *,
    own: str | None = None,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """The loss of every clip, float32 (batch): cross-entropy in nats, of several labels per class, or a user's own.

    Args:
        logits: Float (batch, classes).
        label: int64 (batch), or float32 (batch, classes) for several labels; the loss of an unlabelled clip is 0, and
            has a gradient of 0 rather than none: workers must agree on which parameters have one.
        own: The user's, as ``module:callable``; smoothing and class weights are not for it.
        label_smoothing: Share s of the target spread evenly: over the classes, or over yes and no: y (1 - s) + s / 2.
        class_weights: Float (classes): what a clip of the class counts, or what the class counts in the mean over all.

    Raises:
        ValueError: The user's loss cannot be imported, or does not return a float tensor of shape (batch).

    >>> clip_losses(torch.zeros(2, 4), torch.tensor([0, 1]))
    tensor([1.3863, 1.3863])
    >>> clip_losses(torch.zeros(2, 4), torch.tensor([[1.0, 0.0, 1.0, 0.0], [-1.0] * 4]))  # ln 2 a class; unlabelled
    tensor([0.6931, 0.0000])
    """
    if own is not None:
        return _own_losses(logits, label, own)
    if label.dim() == 1:
        return F.cross_entropy(
            logits.float(),
            label,
            weight=class_weights,
            label_smoothing=label_smoothing,
            ignore_index=-1,
            reduction="none",
        )
    target = label * (1.0 - label_smoothing) + 0.5 * label_smoothing
    losses = F.binary_cross_entropy_with_logits(logits.float(), target, weight=class_weights, reduction="none")
    return torch.where(labelled(label), losses.mean(dim=1), 0.0)


def _own_losses(logits: Tensor, label: Tensor, own: str) -> Tensor:
    """A user's loss of the labelled clips, which is all that it is shown."""
    known = labelled(label)
    if not bool(known.all()):
        losses = logits[:, :0].float().sum(dim=1)
        if not bool(known.any()):
            return losses
        return losses.index_put((known,), _own_losses(logits[known], label[known], own))
    name = f"loss.callable ({own})"
    losses = import_callable(name, own, purpose="logits and labels")(logits.float(), label)
    if not (isinstance(losses, Tensor) and losses.shape == label.shape[:1] and losses.is_floating_point()):
        got = f"{losses.dtype} {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise ValueError(f"{name} must return a float loss for every clip, of shape ({len(label)},); got {got}")
    return losses.float()


def labelled(label: Tensor) -> Tensor:
    """Which clips have a label, bool (batch).

    >>> labelled(torch.tensor([2, -1])).tolist(), labelled(torch.tensor([[0.0, 1.0], [-1.0, -1.0]])).tolist()
    ([True, False], [True, False])
    """
    return label >= 0 if label.dim() == 1 else label[:, 0] >= 0


def class_weights_by_task(
    config: LossConfig, counts: Mapping[str, Sequence[int]], tasks: Mapping[str, Task], device: torch.device
) -> dict[str, Tensor | None]:
    """`class_weights_of` every task, by key.

    Raises:
        ValueError: As there, or numbers beside several tasks: one list cannot be meant for the classes of each.
    """
    if len(tasks) > 1 and not isinstance(config.class_weights, str):
        raise ValueError(
            f"loss.class_weights are numbers for the classes of one task, and there are {len(tasks)} "
            f"({', '.join(task.name for task in tasks.values())}); allowed for several: equal, balanced"
        )
    return {key: class_weights_of(config, counts.get(key), task, device) for key, task in tasks.items()}


def class_weights_of(
    config: LossConfig, counts: Sequence[int] | None, task: Task, device: torch.device
) -> Tensor | None:
    """What a clip of each class counts, or a class among several labels, float (classes); None where all count 1.

    ``balanced`` is in inverse proportion to the clips of a class, on average 1 over the clips. With several labels all
    weights, given ones as well, are 1 on average over the classes, whose mean the loss is: only their proportions
    count, as they do with a single label, where the loss is divided by the clips' weights.

    Args:
        config: Equal, balanced or given.
        counts: Clips of T per class, for ``balanced``.
        task: Kind and classes.
        device: Where the losses are computed.

    Raises:
        ValueError: Another number of weights than classes; ``balanced`` with a class that has no clip in T.

    >>> balanced = LossConfig(class_weights="balanced")
    >>> task = Task(name="action", kind="single", classes=("run", "jump"))
    >>> class_weights_of(balanced, [30, 10], task, torch.device("cpu")).tolist()  # 40/60, 40/20
    [0.666..., 2.0]
    >>> event = Task(name="event", kind="multi", classes=("dog", "rain"))
    >>> class_weights_of(LossConfig(class_weights=(10.0, 30.0)), None, event, torch.device("cpu")).tolist()
    [0.5, 1.5]
    """
    given, classes = config.class_weights, task.classes
    if given == "equal":
        return None
    if given == "balanced":
        if counts is None or len(counts) != len(classes) or min(counts) == 0:
            missing = [name for name, count in zip(classes, counts or [0] * len(classes), strict=False) if count == 0]
            raise ValueError(
                f"loss.class_weights balanced needs clips of every class of {task.name} to train on; there are none of "
                f"{', '.join(missing[:5]) or 'some'}; give numbers, or leave it at equal"
            )
        values = [sum(counts) / (len(counts) * count) for count in counts]
    else:
        if len(given) != len(classes):
            raise ValueError(
                f"loss.class_weights needs a number for each of {len(classes)} classes of {task.name} "
                f"({', '.join(classes[:5])}"
                f"{', ...' if len(classes) > 5 else ''}), got {len(given)}"
            )
        values = [float(value) for value in given]
    if task.kind == "multi":
        mean = math.fsum(values) / len(values)
        values = [value / mean for value in values]
    return torch.tensor(values, dtype=torch.float32, device=device)


class LearnedWeights(nn.Module):
    """Weights learned with the network (Kendall, Gal, Cipolla, CVPR 2018): exp(-s_i) for head i, s_i its log-variance.

    The loss is the sum of exp(-s_i) L_i + s_i / 2. At its minimum over s a head's weight is 1 / (2 L_i): the lower the
    training loss, the larger the weight, whatever the held-out loss does. The weights start equal and add up to
    ``total``, so that the first step is that of an equal blend.
    """

    def __init__(self, heads: Sequence[str], *, total: float = 1.0) -> None:
        super().__init__()
        self.heads = tuple(heads)
        self.log_variance = nn.Parameter(torch.full((len(self.heads),), math.log(len(self.heads) / total)))

    def forward(self) -> tuple[dict[str, Tensor], Tensor]:
        """Weight per head, and the term sum of s_i / 2 that keeps them from going to 0."""
        return dict(zip(self.heads, torch.exp(-self.log_variance).unbind(), strict=True)), self.log_variance.sum() / 2

    def values(self) -> dict[str, float]:
        """The weights as they are now.

        >>> LearnedWeights(["rgb", "fused"]).values()
        {'rgb': 0.5, 'fused': 0.5}
        """
        return dict(zip(self.heads, torch.exp(-self.log_variance.detach()).tolist(), strict=True))
