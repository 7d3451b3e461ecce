"""Losses as the weights need them: every clip once, eval mode, central windows, no trace left in the network.

Each worker fills in its own clips of a vector over all of them and the vectors are added, so the means are taken over
the same numbers in the same order on any number of workers, and clip-wise differences between two moments can be
paired. What is no mean over clips (mAP, mAUC of a multi-label task) is computed from the answers to all clips, added
up in the same way: 4 bytes per clip and class, of one head at a time on the device, of all heads on every worker. Each
worker then ranks its own classes and its own clips.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from gblend import collective
from gblend.batches import measuring_loader
from gblend.clip_dataset import WindowDataset
from gblend.heads import FUSED, branch_of, key_of, of_each_task
from gblend.inputs import to_inputs
from gblend.loss import clip_losses, labelled
from gblend.metrics import ClassRanking, label_ranking, rank_clips, summarise
from gblend.model import BlendModel, eager
from gblend.outputs import HeadOutputs
from gblend.records import HeadScore
from gblend.scores import ACCURACY, CLASSES_FOR_TOP5, TOP5, multi_label_metrics
from schemas import FeatureSpec, Task

MEASURE_BATCH = 16
"""Clips per forward pass; in eval mode it decides memory, not results."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadLosses:
    """One head on a set of clips, clip by clip."""

    loss_nats: Float[np.ndarray, " clips"]
    """0 where not counted; of a user's own loss, in its own unit."""
    correct: Bool[np.ndarray, " clips"] | Float[np.ndarray, " clips"]
    """The highest logit is the label, and the loss is finite; of several labels the clip's LRAP
    (`gblend.metrics.label_ranking`)."""
    counted: Bool[np.ndarray, " clips"]
    """False where the clip lacks what the head needs, or a label."""
    metrics: dict[str, float] | None = None
    """All metrics over the counted clips; None: accuracy, the mean of ``correct``."""

    def per_clip(self, measure: Literal["loss", "accuracy"]) -> Float[np.ndarray, " clips"]:
        """What O and G are computed from: the loss, or 1 - correct: 1 for a wrong and 0 for a right answer.

        A clip whose loss is not finite has no error rate either: a network that answers NaN is not half right.
        """
        if measure == "loss":
            return self.loss_nats
        wrong = np.where(self.counted, 1.0 - self.correct.astype(np.float64), 0.0)
        return np.where(np.isfinite(self.loss_nats), wrong, np.nan)

    def mean(self, measure: Literal["loss", "accuracy"]) -> float:
        """Mean of `per_clip` over the counted clips; NaN when there are none."""
        return float(self.per_clip(measure)[self.counted].mean()) if self.counted.any() else float("nan")

    def score(self) -> HeadScore:
        """Mean over the counted clips; NaN when there are none.

        >>> losses = HeadLosses(
        ...     loss_nats=np.array([1.0, 0.0, 3.0]), correct=np.array([True, False, False]),
        ...     counted=np.array([True, False, True]))
        >>> losses.score()
        HeadScore(loss_nats=2.0, metrics={'accuracy': 0.5}, count=2)
        """
        count = int(self.counted.sum())
        return HeadScore(
            loss_nats=float(self.loss_nats[self.counted].mean()) if count else float("nan"),
            metrics=self.metrics or {ACCURACY: float(self.correct[self.counted].mean()) if count else float("nan")},
            count=count,
        )


def head_mask(head: str, present: dict[str, torch.Tensor]) -> torch.Tensor:
    """Clips a head can answer for: its own modality is there; for a fused head, any is."""
    if branch_of(head) == FUSED:
        return torch.stack(list(present.values())).any(dim=0)
    return present[branch_of(head)]


def measure(
    model: BlendModel,
    data: WindowDataset,
    positions: Sequence[int] | None = None,
    *,
    spec: FeatureSpec,
    own_loss: str | None = None,
) -> dict[str, HeadLosses]:
    """Per head, the loss of every clip (of those at ``positions``, in that order).

    It is the plain loss of the task's kind, or ``own_loss``, the user's ``module:callable``, as in training.
    The model's training mode is restored; buffers, gradients and random state are not touched.
    """
    chosen = list(range(len(data))) if positions is None else list(positions)
    heads, several = model.head_names, {key: task for key, task in data.tasks.items() if task.kind == "multi"}
    device = next(model.parameters()).device
    # Per head: loss, correct, counted, right among five. Double precision adds zeros exactly.
    filled = torch.zeros(len(heads), 4, len(chosen), dtype=torch.float64, device=device)
    answers = _Answers.empty(model, several, len(chosen))
    for part in _parts(model, data, chosen, spec):
        answers.add(part)
        for at, head in enumerate(heads):
            log_probs, counted, label = part.log_probs[head], part.counted[head], part.labels[key_of(head)]
            loss = clip_losses(part.logits[head], label, own=own_loss)
            filled[at, 0, part.at] = torch.where(counted, loss, 0.0).double()
            filled[at, 2, part.at] = counted.double()
            if label.dim() == 1:
                known = counted & loss.isfinite()
                filled[at, 1, part.at] = ((log_probs.argmax(dim=1) == label) & known).double()
                filled[at, 3, part.at] = (_among(log_probs, label, 5) & known).double()
    values = collective.sum_over_workers(filled).cpu().numpy()
    truths = {key: answers.labels(key, device) for key in several}
    found = {}
    for at, head in enumerate(heads):
        loss, correct, counted, five = values[at, 0], values[at, 1] > 0, values[at, 2] > 0, values[at, 3]
        if key_of(head) in several:
            said, truth = answers.log_probs(head, device), truths[key_of(head)]
            classes, of_clips = _rank_together(said[counted], truth[counted], device)
            correct = np.zeros(len(chosen))
            correct[counted] = of_clips
            metrics = multi_label_metrics(summarise(classes, of_clips))
        else:
            shares = {ACCURACY: correct, TOP5: five}
            if model.classes[key_of(head)] < CLASSES_FOR_TOP5:
                del shares[TOP5]
            metrics = {name: float(each[counted].mean()) if counted.any() else np.nan for name, each in shares.items()}
        found[head] = HeadLosses(loss_nats=loss, correct=correct, counted=counted, metrics=metrics)
    return found


def measure_outputs(
    model: BlendModel, data: WindowDataset, positions: Sequence[int] | None = None, *, spec: FeatureSpec
) -> dict[str, HeadOutputs]:
    """Per task key, what every head says about every clip, for predictions that join heads.

    Touches as little as `measure` does. Holds 4 bytes per head, clip and class on every worker, and on the device those
    of one head at a time.
    """
    chosen = list(range(len(data))) if positions is None else list(positions)
    device = next(model.parameters()).device
    answers = _Answers.empty(model, data.tasks, len(chosen))
    counted = torch.zeros(len(model.head_names), len(chosen), dtype=torch.int64, device=device)
    for part in _parts(model, data, chosen, spec):
        answers.add(part)
        for at, head in enumerate(model.head_names):
            counted[at, part.at] = part.counted[head].long()
    found = dict(zip(model.head_names, collective.sum_over_workers(counted).cpu().numpy() > 0, strict=True))
    outputs = {}
    for key, heads in of_each_task(model.head_names).items():
        outputs[key] = HeadOutputs(
            heads=model.branches,
            log_probs=np.stack([answers.log_probs(head, device) for head in heads]),
            counted=np.stack([found[head] for head in heads]),
            labels=answers.labels(key, device),
            positions=np.array(chosen, dtype=np.int64),
        )
    return outputs


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answers:
    """What heads say about all clips; each worker fills in its own, on the CPU, and the rest is zero until added."""

    said: dict[str, Tensor]  # per head, float32 (clips, classes)
    truth: dict[str, Tensor]  # per task key, int64 (clips), or int8 (clips, classes)

    @classmethod
    def empty(cls, model: BlendModel, tasks: Mapping[str, Task], clips: int) -> "_Answers":
        """Of these tasks; made before the first batch, because this worker may have no clip at all."""
        return cls(
            said={
                head: torch.zeros(clips, model.classes[key_of(head)])
                for head in model.head_names
                if key_of(head) in tasks
            },
            truth={
                key: torch.zeros(clips, dtype=torch.int64)
                if task.kind == "single"
                else torch.zeros(clips, len(task.classes), dtype=torch.int8)
                for key, task in tasks.items()
            },
        )

    def add(self, part: "_Part") -> None:
        """Fill in a batch; 0 where a head does not count the clip."""
        at = part.at.cpu()
        for head, values in self.said.items():
            values[at] = torch.where(part.counted[head][:, None], part.log_probs[head], 0.0).cpu()
        for key, values in self.truth.items():
            values[at] = part.labels[key].cpu().to(values.dtype)

    def log_probs(self, head: str, device: torch.device) -> Float[np.ndarray, "clips classes"]:
        """Of all workers."""
        return collective.sum_over_workers(self.said[head].to(device)).cpu().numpy()

    def labels(self, key: str, device: torch.device) -> np.ndarray:
        """Of all workers: class per clip, -1 where unlabelled, or which classes it has."""
        found = collective.sum_over_workers(self.truth[key].to(device)).cpu().numpy()
        return found > 0 if found.ndim == 2 else found


def _rank_together(
    said: Float[np.ndarray, "clips classes"], truth: Bool[np.ndarray, "clips classes"], device: torch.device
) -> tuple[ClassRanking, Float[np.ndarray, " clips"]]:
    """`rank_clips` and `label_ranking` of answers that every worker has: it takes every n-th class and every n-th clip.

    A value comes from one worker and is added to zeros, so it does not depend on how many there are.
    """
    clips, classes = said.shape
    own = slice(collective.rank(), None, collective.world_size())
    ranking = rank_clips(said[:, own], truth[:, own])
    filled = torch.zeros(2 * classes + clips, dtype=torch.float64)
    precision, area, of_clips = (part.numpy() for part in filled.split([classes, classes, clips]))
    precision[own], area[own] = ranking.average_precision, ranking.roc_auc
    of_clips[own] = label_ranking(said[own], truth[own])
    values = collective.sum_over_workers(filled.to(device)).cpu().numpy()
    precision, area, of_clips = np.split(values, [classes, 2 * classes])
    return ClassRanking(average_precision=precision, roc_auc=area), of_clips


def _among(log_probs: Tensor, label: Tensor, best: int) -> Tensor:
    """Whether the label is among the ``best`` classes, of equal ones the first, bool (batch)."""
    own = log_probs.gather(1, label.clamp(min=0)[:, None])
    earlier = torch.arange(log_probs.shape[1], device=label.device) < label[:, None]
    return ((log_probs > own) | ((log_probs == own) & earlier)).sum(dim=1) < best


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """A batch as the network answered it, on its device."""

    at: Tensor  # int64 (batch): place among the chosen clips
    labels: dict[str, Tensor]  # per task key, int64 (batch), or float32 (batch, classes); -1: unlabelled
    logits: dict[str, Tensor]  # per head, float (batch, classes)
    log_probs: dict[str, Tensor]  # per head, float32 (batch, classes): of several labels those of having them
    counted: dict[str, Tensor]  # per head, bool (batch)


def _parts(model: BlendModel, data: WindowDataset, chosen: list[int], spec: FeatureSpec) -> Iterator[_Part]:
    """This worker's share of the chosen clips, in eval mode and without gradients; the mode is restored at the end."""
    place = {position: at for at, position in enumerate(chosen)}
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        for batch in measuring_loader(
            data.only(model.modalities),
            chosen,
            batch_size=MEASURE_BATCH,
            rank=collective.rank(),
            world=collective.world_size(),
        ):
            moved = batch.on(device)
            inputs = to_inputs({name: moved.arrays[name] for name in model.modalities}, spec)
            present = {name: moved.present[name] for name in model.modalities}
            with torch.no_grad(), eager(model):
                logits = model(inputs, present)
            labels = moved.labels
            yield _Part(
                at=torch.tensor([place[int(p)] for p in batch.position], device=device),
                labels=labels,
                logits=logits,
                log_probs={
                    name: F.log_softmax(values.float(), dim=1)
                    if labels[key_of(name)].dim() == 1
                    else F.logsigmoid(values.float())
                    for name, values in logits.items()
                },
                counted={name: head_mask(name, present).to(device) & labelled(labels[key_of(name)]) for name in logits},
            )
    finally:
        model.train(was_training)
