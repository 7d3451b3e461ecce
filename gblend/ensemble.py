"""Ensembles of finished runs: what their networks say together, at no training of its own (Du et al., ICML 2023).

The full-length probes of a comparison are the single-modality and the naive networks, so this control is always there.
It predicts by the mean of their probabilities; the best of them on V, and the stack fitted on V, are scored beside it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gblend.heads import branch_of
from gblend.joint import score_tasks
from gblend.outputs import HeadOutputs, join_outputs, load_outputs
from gblend.records import MEAN, HeadScore, PredictionScores
from gblend.run_files import OUTPUTS_FILE


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensemble:
    """Networks of several runs side by side."""

    outputs: dict[str, dict[str, HeadOutputs]]
    """Per task key (`gblend.heads`) and split, V among them: every head, named ``<member>/<branch>``."""
    predictions: PredictionScores
    """Every way of joining them, on every split but V."""

    @property
    def scores(self) -> dict[str, dict[str, HeadScore]]:
        """What it is judged by: per split, the mean of every task, and of all together."""
        return {
            split: {way: score for way, score in ways.items() if branch_of(way) == MEAN}
            for split, ways in self.predictions.scores.items()
        }


def join_runs(members: Mapping[str, str], keys: Iterable[str] = ("",)) -> Ensemble:
    """The predictions of finished runs, joined.

    Args:
        members: Run directory by the name of the member.
        keys: Of the tasks (`gblend.heads`).

    Raises:
        ValueError: A run that left no predictions, or runs that answered for different clips.
    """
    joined = {}
    for key in keys:
        said = {name: load_outputs(f"{place}/{OUTPUTS_FILE}", key) for name, place in members.items()}
        splits = list(next(iter(said.values())))
        joined[key] = {
            split: join_outputs({name: outputs[split] for name, outputs in said.items()}) for split in splits
        }
    return Ensemble(outputs=joined, predictions=score_tasks(joined))
