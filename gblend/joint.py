"""Scores of all tasks, each by itself and all together (a verb and a noun are an action, as in the paper's Table 8).

A clip's answers to several tasks are taken as independent: a combination of classes is as likely as the product of
their probabilities, and the loss is the sum of the tasks' losses. Where a task has several labels a clip there is no
combination to be right about; what is reported is then the mean of the tasks' first metrics. Each is over clips of its
own, so their numbers are added up: runs that differ in any of them are not scored on the same clips.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from gblend.heads import head_name
from gblend.outputs import HELDOUT, HeadOutputs
from gblend.predictions import Choice, Said, choose, clip_losses, said_by, score, score_heads, ways
from gblend.records import HeadScore, PredictionScores
from gblend.scores import MEAN_OF_TASKS, joint_metrics

Outputs = Mapping[str, Mapping[str, HeadOutputs]]
"""Per task key (`gblend.heads`) and split, the same heads on the same clips."""


def score_branches(outputs: Outputs) -> dict[str, dict[str, HeadScore]]:
    """Per split but V, every head, and with several tasks every branch on all of them together."""
    scores = {}
    for split, tasks in _by_split(outputs).items():
        scores[split] = {
            head_name(key, branch): found for key, said in tasks.items() for branch, found in score_heads(said).items()
        }
        if len(tasks) > 1:
            branches = next(iter(tasks.values())).heads
            scores[split] |= {name: joint_score([said_by(o, name) for o in tasks.values()], tasks) for name in branches}
    return scores


def score_tasks(outputs: Outputs) -> PredictionScores:
    """All ways of predicting, chosen on V task by task; with several tasks also each way on all of them together."""
    heads = {key: splits[HELDOUT].heads for key, splits in outputs.items()}
    chosen = {key: choose(splits[HELDOUT]) for key, splits in outputs.items()}
    return PredictionScores(
        scores=score_ways(outputs, chosen),
        ranking=tuple(head_name(key, heads[key][at]) for key, choice in chosen.items() for at in choice.ranking),
        stack_weights={
            head_name(key, head): share
            for key, choice in chosen.items()
            for head, share in zip(heads[key], choice.stack.weights.tolist(), strict=True)
        },
        stack_clips=min(choice.stack.clips for choice in chosen.values()),
    )


def score_ways(outputs: Outputs, chosen: Mapping[str, Choice]) -> dict[str, dict[str, HeadScore]]:
    """Per split but V, all ways of predicting as they were chosen, per task key, on V."""
    scores = {}
    for split, tasks in _by_split(outputs).items():
        each: dict[str, dict[str, HeadScore]] = {key: {} for key in tasks}
        together: dict[str, HeadScore] = {}
        # One way after another: only its answers to all tasks are held at once.
        for answers in zip(*(ways(said, chosen[key]) for key, said in tasks.items()), strict=True):
            for key, (way, said) in zip(tasks, answers, strict=True):
                each[key][way] = score(said.log_probs, tasks[key].labels, said.answered)
            if len(tasks) > 1:
                together[answers[0][0]] = joint_score([said for _, said in answers], tasks)
        scores[split] = {head_name(key, way): found for key, of_task in each.items() for way, found in of_task.items()}
        scores[split] |= together
    return scores


def joint_score(said: Sequence[Said], tasks: Mapping[str, HeadOutputs]) -> HeadScore:
    """One network's answers to all tasks, on the clips that it has answers and labels for in every task; where one has
    several labels a clip, each task on its own clips.

    >>> one = Said(log_probs=np.log([[0.5, 0.5]]), answered=np.array([True]))
    >>> task = HeadOutputs(
    ...     heads=("a",), log_probs=one.log_probs[None], counted=np.array([[True]]), labels=np.array([0]),
    ...     positions=np.array([0]))
    >>> joint_score([one, one], {"verb": task, "noun": task}).metrics  # of equal classes the first is right
    {'accuracy': 1.0}
    """
    labels = [outputs.labels for outputs in tasks.values()]
    if any(of_task.ndim == 2 for of_task in labels):
        scores = [score(one.log_probs, of_task, one.answered) for one, of_task in zip(said, labels, strict=True)]
        return HeadScore(
            loss_nats=math.fsum(one.loss_nats for one in scores),
            metrics={MEAN_OF_TASKS: math.fsum(one.value for one in scores) / len(scores)},
            count=sum(one.count for one in scores),
        )
    answered = np.all([one.answered for one in said], axis=0)
    log_probs, truth = [one.log_probs[answered] for one in said], [of_task[answered] for of_task in labels]
    losses = np.sum([clip_losses(one, of_task) for one, of_task in zip(log_probs, truth, strict=True)], axis=0)
    return HeadScore(
        loss_nats=float(losses.mean()) if losses.size else math.nan,
        metrics=joint_metrics(log_probs, truth),
        count=int(losses.size),
    )


def _by_split(outputs: Outputs) -> dict[str, dict[str, HeadOutputs]]:
    """Per split but V, per task."""
    splits = [split for split in next(iter(outputs.values())) if split != HELDOUT]
    return {split: {key: of_task[split] for key, of_task in outputs.items()} for split in splits}
