"""What every head of one finished run says about the clips that a report shows, beside what they are.

``predictions.npz`` knows clips by their place among those of a split that the run could use, so these are found again
as the run found them. Where their labels are not those that the run was scored on, the data is not what it was then,
and nothing is told. Of the training split the run kept what it says about V alone, the clips it did not train on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gblend.clip_choice import apply_missing_policy
from gblend.clips import ClipIndex, read_dataset_info, read_index, resolve_modalities
from gblend.config import TrainConfig
from gblend.decision import recommended
from gblend.heads import by_key, head_name
from gblend.labels import leave_out_unlabelled
from gblend.methods import ENSEMBLES
from gblend.outputs import HELDOUT, HeadOutputs, load_outputs
from gblend.per_class import answers_of
from gblend.records import read_json
from gblend.run_files import HOLDOUT_FILE, OUTPUTS_FILE
from gblend.runs import Run
from gblend.samples import SampleClip
from gblend.table import ComparisonTable
from schemas import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadAnswer:
    """One head, or the way of predicting that the run is judged by, on one clip."""

    head: str
    """Its name; with several tasks behind the task's."""
    said: str
    """The class it finds most likely."""
    probability: float
    """What it gives that class."""
    right: bool
    """Whether the clip is labelled with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleAnswers:
    """The answers of one run."""

    run: str
    """Its name."""
    method: str
    """Its method."""
    clips: dict[str, tuple[HeadAnswer, ...]]
    """By clip id; a clip that the run kept no answer about is missing."""


def answering_run(runs: Sequence[Run], table: ComparisonTable) -> Run | None:
    """The run whose answers are shown: the first seed of the method that is recommended, or where none is of any that
    trains a network.
    """
    method = recommended([run.result for run in runs], table)
    networks = [run for run in runs if run.result.method not in ENSEMBLES]
    chosen = [run for run in networks if run.result.method == method] or networks
    return min(chosen, key=lambda run: run.result.seed, default=None)


def load_answers(run: Run, data: str, samples: Sequence[SampleClip]) -> SampleAnswers:
    """Answers to the samples, from what the run kept.

    Args:
        run: A finished one, with its directory.
        data: The data set directory that the samples are from.
        samples: The clips.
    """
    info = read_dataset_info(data)
    tasks = by_key(info.tasks)
    modalities = resolve_modalities(info, tuple(run.config.get("modalities") or ()))
    config = TrainConfig(name="", missing=run.config.get("missing", "drop"))
    found: dict[str, list[HeadAnswer]] = {}
    for split in dict.fromkeys(sample.split for sample in samples):
        index, _ = leave_out_unlabelled(read_index(data, info, split, modalities), split)
        index, _ = apply_missing_policy(index, config, split)
        kept = HELDOUT if split == "train" else split
        if split == "train":
            index = _of_ids(index, read_json(f"{run.directory}/{HOLDOUT_FILE}"))
        wanted = {sample.clip_id for sample in samples if sample.split == split}
        places = [(at, clip_id) for at, clip_id in enumerate(index.clip_ids) if clip_id in wanted]
        for key, task in tasks.items():
            outputs = load_outputs(f"{run.directory}/{OUTPUTS_FILE}", key).get(kept)
            if outputs is None or not same_labels(outputs, index.labels[key].to_pylist()):
                continue
            primary, usable = run.result.primary, outputs.usable()
            judged = None if primary in outputs.heads else answers_of(run, split=kept, task=key)
            for at, clip_id in places:
                said = {head: outputs.log_probs[row, at] for row, head in enumerate(outputs.heads) if usable[row, at]}
                if judged is not None and judged.answered[at]:
                    said[primary] = judged.log_probs[at]
                truth = np.flatnonzero(outputs.labels[at]).tolist() if outputs.several else [int(outputs.labels[at])]
                answers = [_answer(head_name(key, head), values, truth, task) for head, values in said.items()]
                found.setdefault(clip_id, []).extend(answers)
    return SampleAnswers(
        run=run.name, method=run.result.method, clips={clip_id: tuple(said) for clip_id, said in found.items() if said}
    )


def same_labels(outputs: HeadOutputs, labels: Sequence[int | list[int] | None]) -> bool:
    """Whether a run was scored on clips with these labels, in this order.

    >>> said = HeadOutputs(
    ...     heads=("rgb",), log_probs=np.log([[[0.9, 0.1], [0.5, 0.5]]]), counted=np.array([[True, False]]),
    ...     labels=np.array([1, -1]), positions=np.arange(2))
    >>> same_labels(said, [1, None]), same_labels(said, [0, None]), same_labels(said, [1])
    (True, False, False)
    """
    if len(labels) != len(outputs.labels) or not np.array_equal(outputs.positions, np.arange(len(labels))):
        return False
    if outputs.several:
        there = [None if found is None else sorted(found) for found in labels]  # type: ignore[arg-type]
        return all(
            found is None or found == np.flatnonzero(kept).tolist()
            for found, kept in zip(there, outputs.labels, strict=True)
        )
    return outputs.labels.tolist() == [-1 if found is None else found for found in labels]


def _of_ids(index: ClipIndex, ids: Sequence[str]) -> ClipIndex:
    wanted = set(ids)
    return index.take(np.array([clip_id in wanted for clip_id in index.clip_ids]))


def _answer(head: str, log_probs: np.ndarray, truth: Sequence[int], task: Task) -> HeadAnswer:
    best = int(log_probs.argmax())
    probability = float(np.exp(log_probs[best]))
    return HeadAnswer(head=head, said=task.classes[best], probability=probability, right=best in truth)


def right_words(answers: Mapping[str, Sequence[HeadAnswer]]) -> str:
    """How many of the clips shown each head is right about.

    >>> right_words({"a": [HeadAnswer(head="rgb", said="dog", probability=0.9, right=True)], "b": [], "c": [
    ...     HeadAnswer(head="rgb", said="cat", probability=0.6, right=False)]})
    'rgb 1 of 2'
    """
    heads = dict.fromkeys(answer.head for said in answers.values() for answer in said)
    counts = {head: [a.right for said in answers.values() for a in said if a.head == head] for head in heads}
    return ", ".join(f"{head} {sum(right)} of {len(right)}" for head, right in counts.items())
