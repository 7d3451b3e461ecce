"""Ensembles of finished runs: what their networks say together, at no training of its own (Du et al., ICML 2023).

The full-length probes of a comparison are the single-modality and the naive networks, so this control is always there.
It predicts by the mean of their probabilities; the best of them on V, and the stack fitted on V, are scored beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gblend.outputs import HELDOUT, HeadOutputs, join_outputs, load_outputs
from gblend.predictions import score_predictions
from gblend.records import MEAN, HeadScore, PredictionScores
from gblend.run_files import OUTPUTS_FILE


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensemble:
    """Networks of several runs side by side."""

    outputs: dict[str, HeadOutputs]
    """Per split, V among them: every head, named ``<member>/<head>``."""
    predictions: PredictionScores
    """Every way of joining them, on every split but V."""

    @property
    def scores(self) -> dict[str, dict[str, HeadScore]]:
        """What it is judged by: per split, the mean."""
        return {split: {MEAN: ways[MEAN]} for split, ways in self.predictions.scores.items()}


def join_runs(members: Mapping[str, str]) -> Ensemble:
    """The predictions of finished runs, joined.

    Args:
        members: Run directory by the name of the member.

    Raises:
        ValueError: A run that left no predictions, or runs that answered for different clips.
    """
    said = {name: load_outputs(f"{place}/{OUTPUTS_FILE}") for name, place in members.items()}
    splits = list(next(iter(said.values())))
    joined = {split: join_outputs({name: outputs[split] for name, outputs in said.items()}) for split in splits}
    scored = {split: outputs for split, outputs in joined.items() if split != HELDOUT}
    return Ensemble(outputs=joined, predictions=score_predictions(joined[HELDOUT], scored))
