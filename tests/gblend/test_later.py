"""Settings that change on the way, and runs that take over the state of another: each is a run from the start."""

from dataclasses import replace
from pathlib import Path

import pytest

from gblend.blend_config import BlendConfig
from gblend.candidate import Candidate
from gblend.config import OptimConfig, TrainConfig
from gblend.judge import PauseError
from gblend.later import change_of, config_at
from gblend.methods import RunSpec, check_methods
from gblend.records import read_json, read_lines
from gblend.runner import Runner
from gblend.trial_files import begin_trial, load_trial, take_over, write_reached
from gblend.trials import Reached
from tests.gblend.stops import assert_same_run
from tests.gblend.tiny import tiny_config, tiny_data

MODALITIES = ("rgb", "logmel")
WEIGHTS = (0.2, 0.3, 0.5)


def config_of(method: str, *later: str) -> TrainConfig:
    fixed = {"fixed_weights": WEIGHTS} if method == "fixed" else {}
    blend = BlendConfig(first_epochs=1, next_epochs=2, refit_epochs=0, **fixed)
    return tiny_config(epochs=4, blend=blend, optim=OptimConfig(learning_rate=0.05), later=later)


def carry_out(method: str, place: Path, *later: str, until: int | None = None) -> None:
    def after_epoch(training) -> None:
        if training.lesson.progress.epoch == until:
            raise PauseError

    data = replace(tiny_data(train=18, heldout=6), modalities=MODALITIES)
    config = config_of(method, *later)
    run = Runner(data=data, config=config, data_path="memory", say=[].append, after_epoch=after_epoch)
    run.run(RunSpec(method=method, seed=0), str(place))


def test_a_change_holds_from_the_end_of_its_epoch_on_and_what_was_before_stays_to_the_bit(tmp_path):
    carry_out("fixed", tmp_path / "plain")
    carry_out("fixed", tmp_path / "changed", "2 blend.fixed_weights [0.6, 0.3, 0.1]", "3 optim.learning_rate 0.01")
    plain, changed = (read_lines(str(tmp_path / name / "history.jsonl")) for name in ("plain", "changed"))
    assert changed[:3] == plain[:3]
    assert [list(each["weights"].values()) for each in changed[1:]] == [[*WEIGHTS]] * 2 + [[0.6, 0.3, 0.1]] * 2
    pairs = zip(plain[1:], changed[1:], strict=True)
    rates = [after["learning_rate"] / before["learning_rate"] for before, after in pairs]
    assert rates == pytest.approx([1.0, 1.0, 1.0, 0.2])


def test_rules_of_estimates_change_with_the_next_estimate(tmp_path):
    carry_out("online", tmp_path / "plain")
    carry_out("online", tmp_path / "changed", "2 blend.shrinkage 1.0")
    plain, changed = (read_lines(str(tmp_path / name / "weights.jsonl")) for name in ("plain", "changed"))
    assert [each["epoch"] for each in changed] == [0, 1, 3]
    assert changed[:2] == plain[:2]
    assert changed[2]["weights"] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("method", ["fixed", "online"])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_trial_that_takes_over_from_another_ends_as_the_run_with_its_settings_does_from_the_start(
    tmp_path, method, epoch
):
    """After one epoch a super-epoch of `online` ends; after two it is in the middle of one."""
    later = (f"{epoch} optim.learning_rate 0.02",)
    if method == "fixed":
        later = (*later, f"{epoch} blend.fixed_weights [0.6, 0.3, 0.1]")
    found = Candidate(method=method, settings={"later": later})
    for number, name in enumerate(("worse", "better")):
        place = str(tmp_path / name)
        begin_trial(place, number=number, point={"at": number}, found=Candidate(method=method), seed=0)
        reached = Reached(epoch=epoch, super_epoch=1, value=0.5 + number, branch_epochs=1.0, seconds=1.0)
        write_reached(place, "accuracy", [reached])
    with pytest.raises(PauseError):
        carry_out(method, tmp_path / "better" / "run", until=epoch)
    for again in (True, False):
        place, of = str(tmp_path / "worse"), str(tmp_path / "better")
        assert take_over(place, of, epoch=epoch, point={"at": 5}, found=found, later=later) is again
    trial = load_trial(place)
    assert (trial.point, trial.candidate, trial.objective, trial.state) == ({"at": 5}, found, 1.5, "running")
    assert read_json(f"{place}/trial.json")["taken_over"] == [{"epoch": epoch, "trial": 1}]
    carry_out(method, tmp_path / "worse" / "run", *later)
    carry_out(method, tmp_path / "start", *later)
    assert_same_run(tmp_path / "worse" / "run", tmp_path / "start")


def test_single_modalities_and_naive_runs_do_not_change_on_the_way(tmp_path):
    carry_out("naive", tmp_path / "plain")
    carry_out("naive", tmp_path / "changed", "2 optim.learning_rate 0.01")
    plain, changed = (read_lines(str(tmp_path / name / "history.jsonl")) for name in ("plain", "changed"))
    assert plain == changed


def test_a_later_change_of_one_setting_replaces_an_earlier_one():
    config = config_of("online", "3 blend.smoothing 0.5", "1 blend.smoothing 0.2", "2 blend.scale heads")
    found = [(config_at(config, epoch).blend.smoothing, config_at(config, epoch).blend.scale) for epoch in range(4)]
    assert found == [(0.0, "one"), (0.2, "one"), (0.2, "heads"), (0.5, "heads")]


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (["optim.learning_rate 0.1"], r"later must be of the form 'EPOCH NAME VALUE', got 'optim.learning_rate 0.1'"),
        (["2 blend.smoothing"], r"of the form 'EPOCH NAME VALUE'"),
        (["2 epochs 3"], r"later can change optim.learning_rate, .*, got epochs"),
        (["4 blend.smoothing 0.5"], r"after epoch 4: of 4 epochs it must be one from 1 to 3"),
        (["2 blend.smoothing 2"], r"blend.smoothing must be in \[0, 1\), got 2"),
        (["2 blend.smoothing 0.1", "2 blend.smoothing 0.2"], r"changes a setting twice after the same epoch"),
        (["2 blend.fixed_weights [1, 1, 1]"], r"changes blend.fixed_weights, which is read by fixed only"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused(later, said):
    with pytest.raises(ValueError, match=said):
        check_methods(["online"], MODALITIES, config_of("online", *later))


def test_changed_weights_must_be_as_many_as_there_are_heads():
    with pytest.raises(ValueError, match=r"got \[0.5, 0.5\]"):
        check_methods(["fixed"], MODALITIES, config_of("fixed", "2 blend.fixed_weights [0.5, 0.5]"))


def test_a_change_is_written_as_it_is_read():
    change = change_of('3 blend.shrinkage "noise"')
    assert change == change_of("3 blend.shrinkage noise") == change_of(str(change))
