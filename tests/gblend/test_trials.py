import json
import math
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from gblend.candidate import Candidate, read_schedule, write_schedule
from gblend.config import TrainConfig
from gblend.trials import Reached, Trial, best_trial, read_trials, to_table, worth_their_cost, write_trials


def reached(*values: float, cost: float = 4.0) -> tuple[Reached, ...]:
    return tuple(
        Reached(epoch=at, super_epoch=1 + (at > 2), value=value, branch_epochs=cost * at, seconds=float(at))
        for at, value in enumerate(values, start=1)
    )


def trial(number: int, *values: float, state="finished", cost: float = 4.0, **changes) -> Trial:
    settings = {"blend.first_epochs": number + 1, "blend.shrinkage": "noise"}
    given = {
        "number": number,
        "point": {"method": "online", **settings},
        "candidate": Candidate(method="online", settings=settings),
        "seed": 0,
        "state": state,
        "metric": "accuracy",
        "reached": reached(*values, cost=cost),
        "directory": f"/out/trials/{number:04d}",
    }
    return Trial(**{**given, **changes})


def test_trials_are_read_as_they_were_written(tmp_path):
    weights = Candidate(method="fixed", settings={"blend.fixed_weights": (0.25, 0.75)})
    trials = [
        trial(0, 0.5, 0.75),
        trial(1, 0.25, state="stopped"),
        trial(2, state="failed", reason="CUDA out of memory"),
        trial(3, 0.5, state="running", candidate=weights, checkpoint="/out/trials/0003/run/state/000001"),
    ]
    write_trials(str(tmp_path / "a" / "trials.parquet"), trials[::-1])
    assert read_trials(str(tmp_path / "a" / "trials.parquet")) == trials


def test_any_tool_reads_objective_cost_and_settings_of_a_trial(tmp_path):
    path = tmp_path / "trials.parquet"
    write_trials(str(path), [trial(4, 0.5, 0.75), trial(5, math.nan, state="failed")])
    first, second = pq.read_table(path).to_pylist()
    assert (first["trial"], first["objective"], first["epochs"]) == (4, 0.75, 2)
    assert (first["branch_epochs"], first["estimation_epochs"]) == (8.0, 6.0)
    assert json.loads(first["settings"])["blend.first_epochs"] == 5
    assert (second["objective"], second["reached"][0]["value"]) == (None, None)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "trials.parquet"
    pq.write_table(to_table([trial(0, 0.5)]).drop_columns(["reason"]), path)
    with pytest.raises(ValueError, match="was not written by this version"):
        read_trials(str(path))
    with pytest.raises(ValueError, match="does not exist; `gblend tune` writes it"):
        read_trials(str(tmp_path / "none"))


def test_the_best_trial_is_a_finished_one_and_of_equals_the_cheaper():
    trials = [trial(0, 0.75, cost=9.0), trial(1, 0.9, state="stopped"), trial(2, 0.75), trial(3, 0.7, cost=1.0)]
    assert best_trial(trials).number == 2
    assert best_trial([trial(1, 0.9, state="stopped"), trial(2, math.nan)]) is None


def test_trials_worth_their_cost_come_cheapest_first_and_are_finished():
    trials = [trial(0, 0.8, cost=9.0), trial(1, 0.7, cost=9.0), trial(2, 0.6, cost=1.0), trial(3, 0.9, state="stopped")]
    assert [each.number for each in worth_their_cost(trials)] == [2, 0]


def test_a_schedule_is_read_as_it_was_written_and_goes_into_a_configuration(tmp_path):
    found = Candidate(method="fixed", settings={"blend.fixed_weights": (0.25, 0.75), "optim.learning_rate": 0.1})
    write_schedule(str(tmp_path / "best.json"), found, about={"trial": 3})
    again = read_schedule(str(tmp_path / "best.json"))
    assert again == found
    config = again.config(TrainConfig(name="base"))
    assert (config.blend.fixed_weights, config.optim.learning_rate) == ((0.25, 0.75), 0.1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no schedule"),
        ("[]", "is no schedule of format 1"),
        ('{"format": 2, "method": "online", "settings": {}}', r"is no schedule of format 1 \(it says 2\)"),
        ('{"format": 1, "settings": {}}', "is no schedule"),
        ('{"format": 1, "method": "naive", "settings": {}}', "a schedule is of a method that blends"),
    ],
)
def test_what_is_no_schedule_is_refused(tmp_path, text, said):
    (tmp_path / "best.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_schedule(str(tmp_path / "best.json"))


def test_a_schedule_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no schedule .*best.json"):
        read_schedule(str(tmp_path / "best.json"))


def test_a_trial_that_has_not_begun_has_no_objective_and_no_cost():
    new = replace(trial(0), state="running")
    assert math.isnan(new.objective)
    assert new.branch_epochs == 0.0
