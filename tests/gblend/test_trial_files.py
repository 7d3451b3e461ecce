import pytest

from gblend.candidate import Candidate
from gblend.trial_files import begin_trial, end_trial, load_trial, load_trials, read_reached, trial_place, write_reached
from gblend.trials import Reached

FOUND = Candidate(method="online", settings={"blend.first_epochs": 3, "blend.shrinkage": "noise"})
POINT = {"method": "online", "first": 3}


def begin(out, number: int, **changes) -> str:
    place = trial_place(str(out), number)
    begin_trial(place, **{"number": number, "point": POINT, "found": FOUND, "seed": 0, **changes})
    return place


def value(epoch: int) -> Reached:
    return Reached(epoch=epoch, super_epoch=1, value=epoch / 10, branch_epochs=4.0 * epoch, seconds=1.5)


def test_a_trial_is_what_its_directory_says_at_every_stage(tmp_path):
    assert load_trial(trial_place(str(tmp_path), 2)) is None
    place = begin(tmp_path, 2)
    begun = load_trial(place)
    assert (begun.number, begun.point, begun.candidate, begun.seed) == (2, POINT, FOUND, 0)
    assert (begun.state, begun.reached, begun.checkpoint) == ("running", (), "")
    write_reached(place, "mAP", [value(1), value(2)])
    (tmp_path / "trials" / "0002" / "run" / "state" / "000008").mkdir(parents=True)
    (tmp_path / "trials" / "0002" / "run" / "state" / "000009").mkdir()
    training = load_trial(place)
    assert (training.metric, training.objective, training.reached) == ("mAP", 0.2, read_reached(place))
    assert training.checkpoint == f"{place}/run/state/000009"
    end_trial(place, "finished")
    assert load_trial(place).state == "finished"
    assert load_trial(place).checkpoint == f"{place}/run/checkpoint.pt"


def test_the_reason_of_a_failure_is_one_line_and_what_was_said_first_holds(tmp_path):
    place = begin(tmp_path, 0)
    end_trial(place, "failed", "RuntimeError: out of\n  memory")
    end_trial(place, "stopped")
    assert (load_trial(place).state, load_trial(place).reason) == ("failed", "RuntimeError: out of memory")


def test_the_same_trial_may_begin_again_and_another_one_is_refused_with_the_difference(tmp_path):
    begin(tmp_path, 1)
    begin(tmp_path, 1)
    with pytest.raises(ValueError, match=r"0001 holds another trial: seed: 0 there, 4 now; choose another --out"):
        begin(tmp_path, 1, seed=4)


def test_all_trials_of_a_search_come_by_number(tmp_path):
    assert load_trials(str(tmp_path)) == []
    for number in (10, 2):
        begin(tmp_path, number)
    (tmp_path / "trials" / "0003").mkdir()
    (tmp_path / "trials" / "notes").mkdir()
    assert [trial.number for trial in load_trials(str(tmp_path))] == [2, 10]
