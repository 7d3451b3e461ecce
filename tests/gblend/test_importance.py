"""Importance of settings, against variances that follow from the formula of the objective."""

import numpy as np
import pytest

from gblend.importance import FEWEST, importance, why_not
from gblend.space import Domain
from gblend.trials import Trial
from tests.gblend.test_trials import trial

pytest.importorskip("optuna", reason="importance needs gblend[tune]")
pytest.importorskip("sklearn", reason="importance needs gblend[tune]")

UNIT = {name: Domain(name=name, kind="real", low=0.0, high=1.0) for name in ("a", "b", "c")}
KIND = Domain(name="kind", kind="choice", values=("x", "y"))


def trials_of(objective, count: int = 60) -> list[Trial]:
    rng = np.random.default_rng(0)
    points = [{name: float(rng.random()) for name in UNIT} for _ in range(count)]
    return [trial(number, objective(**point), point=point) for number, point in enumerate(points)]


def domains_of(trials: list[Trial]) -> dict[int, dict[str, Domain]]:
    return {each.number: {name: {**UNIT, "kind": KIND}[name] for name in each.point} for each in trials}


def test_shares_of_an_additive_objective_are_its_shares_of_the_variance():
    """The variance of 3 a + b + 0 c over the unit cube is (9 + 1 + 0) / 12."""
    trials = trials_of(lambda a, b, c: 3 * a + b)
    shares = importance(trials, domains_of(trials), seed=0)
    assert shares == pytest.approx({"a": 0.9, "b": 0.1, "c": 0.0}, abs=0.08)


def test_what_only_some_trials_drew_is_judged_among_those():
    trials = trials_of(lambda a, b, c: 3 * a + b)
    some = [
        trial(each.number, 10.0 + 3 * each.point["a"], point={"kind": "x", "a": each.point["a"]})
        if each.number % 2
        else trial(each.number, 0.0, point={"kind": "y"})
        for each in trials
    ]
    shares = importance(some, domains_of(some), seed=0)
    assert shares["a"] > 0.95
    assert shares["kind"] > 0.9


def test_trials_that_did_not_end_and_settings_that_did_not_differ_are_left_out():
    trials = trials_of(lambda a, b, c: a, count=20)
    trials = [trial(each.number, each.objective, point={**each.point, "b": 0.5}) for each in trials]
    odd = trial(99, 1e6, state="stopped", point={"a": 0.1, "b": 0.2, "c": 0.3})
    shares = importance([*trials, odd], domains_of([*trials, odd]), seed=0)
    assert shares.keys() == {"a", "c"}
    assert shares == importance(trials, domains_of(trials), seed=0)


def test_an_objective_that_is_the_same_everywhere_has_no_shares():
    trials = trials_of(lambda a, b, c: 0.5, count=20)
    assert importance(trials, domains_of(trials), seed=0) == {}


def test_too_few_trials_have_no_shares_and_a_reason():
    trials = trials_of(lambda a, b, c: a, count=FEWEST - 1)
    assert importance(trials, domains_of(trials), seed=0) == {}
    assert why_not(trials, "optuna") == f"The importance of settings needs {FEWEST} finished trials, there are 5."
    assert why_not(trials_of(lambda a, b, c: a, count=FEWEST), "optuna") == ""
    assert "--search optuna" in why_not(trials, "random")
