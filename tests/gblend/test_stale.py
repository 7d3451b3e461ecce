"""Stale weights: those that exact probes gave one super-epoch before, whoever trains the probes and whenever."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from gblend.config import BlendConfig, ComputeConfig, TrainConfig
from gblend.data import RunData
from gblend.methods import RunSpec, check_methods
from gblend.records import EstimateRecord, RunResult, estimate_record, read_json, to_json
from gblend.runner import Runner
from tests.gblend.carried import carry_out_offline, estimates_of, history_of
from tests.gblend.elsewhere import ThisProcess
from tests.gblend.stops import assert_same_files, stop_again_and_again
from tests.gblend.tiny import MODALITIES, tiny_config, tiny_data

BRANCHES = ("rgb", "logmel", "fused")
BLEND = BlendConfig(first_epochs=2, next_epochs=1, refit_epochs=0, staleness=1)


def config_of(way: str = "shared", **blend) -> TrainConfig:
    """Super-epochs start at 0, 2, 3 and 4."""
    return tiny_config(epochs=5, blend=replace(BLEND, probes=way, **blend))


def data() -> RunData:
    return replace(tiny_data(train=18, heldout=6), modalities=("rgb", "logmel"), probe_part=list(range(12)))


def carry_out(place: Path, config: TrainConfig, elsewhere: ThisProcess | None = None, *, every: int = 0) -> RunResult:
    here = data()
    runner = Runner(
        data=here,
        config=config,
        data_path="memory",
        compute=ComputeConfig(checkpoint_every=every),
        elsewhere=elsewhere or ThisProcess(data=here),
        say=lambda line: None,
    )
    return runner.run(RunSpec(method="online", seed=0), str(place))


@pytest.fixture(scope="module")
def stale(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("stale") / "run"
    carry_out(place, config_of())
    return place


def measured(estimate: EstimateRecord) -> tuple:
    return estimate.start_train, estimate.start_valid, estimate.end_train, estimate.end_valid, estimate.probe_epochs


def test_every_estimate_says_when_its_weights_hold_and_how_old_its_checkpoint_is(stale):
    found = [(estimate.epoch, estimate.stale_epochs, estimate.probe_epochs) for estimate in estimates_of(stale)]
    assert found == [(0, 0, 2), (2, 2, 2), (3, 1, 1), (4, 1, 1)]


def test_probes_start_where_the_super_epoch_before_started(stale):
    history = history_of(stale)
    for estimate in estimates_of(stale):
        start = history[estimate.epoch - estimate.stale_epochs]
        assert estimate.start_valid == tuple(start.heldout[head].loss_nats for head in estimate.heads)


def test_until_stale_weights_differ_from_exact_ones_so_do_not_the_probes(tmp_path, stale):
    """Both runs are the same up to epoch 2, where the exact one looks at its probes and the stale one does not yet."""
    carry_out(tmp_path / "exact", config_of(staleness=0))
    exact, late = estimates_of(tmp_path / "exact"), estimates_of(stale)
    assert measured(late[0]) == measured(late[1]) == measured(exact[0])
    assert measured(late[2]) == measured(exact[1])
    assert measured(late[3]) != measured(exact[2])
    assert late[0].weights == late[1].weights == exact[0].weights
    assert late[2].weights == exact[1].weights


def test_a_super_epoch_trains_with_the_weights_of_its_estimate(stale):
    history = history_of(stale)
    for estimate in estimates_of(stale):
        assert tuple(history[estimate.epoch + 1].weights[head] for head in estimate.heads) == estimate.weights


def test_probes_on_other_workers_begin_with_the_super_epoch_before_and_give_the_same_bits(tmp_path, stale):
    elsewhere = ThisProcess(data=data())
    carry_out(tmp_path / "run", config_of("spread"), elsewhere)
    assert [(task.ahead.start_epoch, task.branches) for task in elsewhere.asked] == [
        (0, BRANCHES),
        (2, BRANCHES),
        (3, BRANCHES),
    ]
    assert_same_files(tmp_path / "run", stale, but=("config.json",))


def test_a_run_that_is_stopped_goes_on_to_the_same_bits_wherever_its_probes_train(tmp_path, stale):
    ways = itertools.cycle(("spread", "shared", "sequential"))
    stops = stop_again_and_again(lambda: carry_out(tmp_path / "run", config_of(next(ways)), every=1))
    assert "epochs: step" in stops
    assert_same_files(tmp_path / "run", stale, but=("config.json",))


def test_an_estimate_that_two_super_epochs_share_is_paid_for_once(stale):
    part = 12 / 18
    assert read_json(str(stale / "result.json"))["branch_epochs"] == 5 + part * 3 * (2 + 1 + 1)


def test_the_first_weights_may_come_from_the_offline_estimate_and_the_second_from_probes_of_the_start(tmp_path):
    config = config_of(reuse="offline")
    offline = carry_out_offline(tmp_path, config)
    needed = {head: str(tmp_path / f"uni-{head}-s0") for head in MODALITIES} | {"fused": str(tmp_path / "naive-s0")}
    runner = Runner(data=tiny_data(), config=config, data_path="memory")
    result = runner.run(RunSpec(method="online", seed=0), str(tmp_path / "run"), needed)
    first, *others = estimates_of(tmp_path / "run")
    assert first == offline
    assert [(estimate.epoch, estimate.stale_epochs) for estimate in others] == [(2, 2), (3, 1), (4, 1)]
    assert result.branch_epochs - result.borrowed_epochs == 5 + 4 * (2 + 1 + 1)


def test_an_estimate_of_before_there_were_stale_ones_is_not_stale(stale):
    values = to_json(estimates_of(stale)[0])
    del values["stale_epochs"]
    assert estimate_record(values).stale_epochs == 0


def test_staleness_is_refused_where_no_method_reads_it():
    with pytest.raises(ValueError, match=r"blend\.staleness is read by online only, not by equal"):
        check_methods(["equal"], ("rgb", "logmel"), config_of())
