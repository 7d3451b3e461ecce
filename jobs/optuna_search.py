"""Optuna's suggestions for a space, through Ray Tune: define by run, so that what depends on what stays a function."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from ray.tune.search.optuna import OptunaSearch

from gblend.space import Domain, Drawn, draw_by, random_point
from jobs.trial import VALUE, Search


def suggest(trial: Any, domain: Domain) -> Any:
    """A suggestion of Optuna's."""
    if domain.kind == "choice":
        return trial.suggest_categorical(domain.name, list(domain.values))
    log = domain.scale == "log"
    if domain.kind == "integer":
        return trial.suggest_int(domain.name, int(domain.low), int(domain.high), log=log)
    return trial.suggest_float(domain.name, float(domain.low), float(domain.high), log=log)


@dataclass(frozen=True, kw_only=True, slots=True)
class Suggestions:
    """A space as Optuna has it; Tune saves it now and then, so it is no function within another."""

    search: Search
    """Whose space."""

    def __call__(self, trial: Any) -> dict[str, Any]:
        """Draw a point; what Tune's trial gets besides the values themselves."""
        drawn = draw_by(self.search.space_of, lambda domain: suggest(trial, domain))
        return {"trial": {"number": trial.number, "point": drawn.point, "until": None}}


def searcher_of(search: Search, known: Mapping[int, Drawn]) -> OptunaSearch:
    """Optuna's default sampler (TPE).

    Args:
        search: What is searched.
        known: Trials that have begun, by number. They are suggested first, and tell again what came of them.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    first = [
        known[number] if number in known else random_point(search.space_of, seed=search.seed, number=number)
        for number in range(max(known, default=-1) + 1)
    ]
    return OptunaSearch(
        space=Suggestions(search=search),
        metric=VALUE,
        mode="max",
        points_to_evaluate=[dict(drawn.point) for drawn in first],
        # A sampler that starts anew with the same seed would suggest the same again.
        seed=search.seed + 1000 * len(first),
    )
