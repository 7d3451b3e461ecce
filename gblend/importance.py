"""How much each setting matters in a search: functional ANOVA (Hutter et al., ICML 2014), by Optuna.

A setting that only some trials drew is judged among those. So the numbers of different settings are shares of different
variances, and do not sum to 1.
"""

import importlib.util
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from gblend.space import Domain
from gblend.trials import Trial

FEWEST = 6
"""A forest of regression trees says nothing about fewer trials."""


def importance(trials: Sequence[Trial], domains: Mapping[int, Mapping[str, Domain]], *, seed: int) -> dict[str, float]:
    """Per setting that took different values in enough finished trials, its share of the objective's variance.

    Args:
        trials: Of a search.
        domains: Per number of a trial, what its values were drawn from.
        seed: Of the forest.
    """
    finished = [trial for trial in trials if trial.state == "finished" and math.isfinite(trial.objective)]
    names = dict.fromkeys(name for trial in finished for name in trial.point)
    drawers = {name: tuple(trial.number for trial in finished if name in trial.point) for name in names}
    found: dict[str, float] = {}
    for numbers in dict.fromkeys(drawers.values()):  # a forest for each set of trials: growing one takes seconds
        having = [trial for trial in finished if trial.number in numbers]
        common = [name for name in names if set(drawers[name]) >= set(numbers) and _varies(name, having)]
        judged = [name for name in common if drawers[name] == numbers]
        if len(having) >= FEWEST and judged and len({trial.objective for trial in having}) > 1:
            shares = _shares(having, common, domains, seed)
            found |= {name: shares[name] for name in judged}
    return {name: found[name] for name in names if name in found}


def why_not(trials: Sequence[Trial], search: str) -> str:
    """Why there is no importance; empty where there can be."""
    finished = sum(trial.state == "finished" for trial in trials)
    if search != "optuna":
        return "The importance of settings is told after a search by Optuna (--search optuna)."
    if any(importlib.util.find_spec(name) is None for name in ("optuna", "sklearn")):
        return "The importance of settings needs the packages optuna and scikit-learn: pip install 'gblend[tune]'."
    if finished < FEWEST:
        return f"The importance of settings needs {FEWEST} finished trials, there are {finished}."
    return ""


def _varies(name: str, trials: Sequence[Trial]) -> bool:
    return len({str(trial.point[name]) for trial in trials}) > 1


def _shares(
    trials: Sequence[Trial], names: Sequence[str], domains: Mapping[int, Mapping[str, Domain]], seed: int
) -> dict[str, float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spaces = {name: _distribution([domains[trial.number][name] for trial in trials]) for name in names}
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        params = {name: trial.point[name] for name in names}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=trial.objective))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(names), normalize=False)


def _distribution(domains: Sequence[Domain]) -> Any:
    """One for all: what depends on another setting was drawn from different ranges."""
    import optuna

    first = domains[0]
    if first.kind == "choice":
        return optuna.distributions.CategoricalDistribution(list(dict.fromkeys(v for d in domains for v in d.values)))
    low, high, log = min(d.low for d in domains), max(d.high for d in domains), first.scale == "log"
    if first.kind == "integer":
        return optuna.distributions.IntDistribution(int(low), int(high), log=log)
    return optuna.distributions.FloatDistribution(float(low), float(high), log=log)
