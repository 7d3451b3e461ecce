"""Probes that train elsewhere: the same weights, whoever trains them and in whichever order, and none of them twice."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gblend.config import BlendConfig, ComputeConfig, TrainConfig
from gblend.data import RunData
from gblend.methods import RunSpec
from gblend.placement import require_group_beside, require_torch_ingest
from gblend.runner import Runner
from tests.gblend.elsewhere import ThisProcess
from tests.gblend.stops import SAVED, assert_same_files, stop_again_and_again, stop_before
from tests.gblend.tiny import tiny_config, tiny_data

WAYS = ("shared", "sequential", "spread")
BLEND = BlendConfig(first_epochs=2, next_epochs=1, refit_epochs=0, probe_end="best-v")


def config_of(way: str) -> TrainConfig:
    return tiny_config(blend=replace(BLEND, probes=way))


def data() -> RunData:
    return replace(tiny_data(train=18, heldout=6), modalities=("rgb", "logmel"), probe_part=list(range(12)))


def carry_out(place: Path, way: str, elsewhere: ThisProcess | None = None) -> None:
    here = data()
    runner = Runner(
        data=here,
        config=config_of(way),
        data_path="memory",
        compute=ComputeConfig(checkpoint_every=1),
        elsewhere=elsewhere or ThisProcess(data=here),
        say=lambda line: None,
    )
    runner.run(RunSpec(method="online", seed=0), str(place))


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("shared") / "run"
    carry_out(place, "shared")
    return place


def test_spread_probes_give_the_same_bits_as_shared_ones(tmp_path, shared):
    elsewhere = ThisProcess(data=data())
    carry_out(tmp_path / "run", "spread", elsewhere)
    assert_same_files(tmp_path / "run", shared, but=("config.json",))
    assert [(task.name, task.branches) for task in elsewhere.asked] == [
        ("online-s0 from epoch 0", ("rgb", "logmel", "fused")),
        ("online-s0 from epoch 2", ("rgb", "logmel", "fused")),
    ]


def test_probes_elsewhere_leave_the_random_state_as_it_is(tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    carry_out(tmp_path / "run", "spread")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_may_go_on_with_probes_that_train_another_way_and_ends_with_the_same_bits(tmp_path, shared):
    """Stopped at every kind of moment: in probes side by side, after some of them, and between two of them."""
    ways = itertools.cycle(WAYS)
    stops = stop_again_and_again(lambda: carry_out(tmp_path / "run", next(ways)))
    assert len(stops) > 20
    assert_same_files(tmp_path / "run", shared, but=("config.json",))


def test_probes_that_are_finished_are_not_asked_for_again(tmp_path, shared):
    elsewhere = ThisProcess(data=data())
    stop_before(lambda: carry_out(tmp_path / "run", "spread", elsewhere), f"weights: {SAVED}", times=2)
    assert next((tmp_path / "run" / "state").glob("*/whole.json")).exists()
    carry_out(tmp_path / "run", "spread", elsewhere)
    assert [task.branches for task in elsewhere.asked[:2]] == [("rgb", "logmel", "fused"), ("rgb",)]
    assert_same_files(tmp_path / "run", shared, but=("config.json",))


def test_a_finished_run_is_read_back_whichever_way_its_probes_trained_and_under_the_older_name(tmp_path, shared):
    place = tmp_path / "run"
    carry_out(place, "shared")
    older = json.loads((place / "config.json").read_text())
    older["blend"]["probe_pass"] = older["blend"].pop("probes")
    (place / "config.json").write_text(json.dumps(older))
    before = (place / "result.json").stat().st_mtime_ns
    carry_out(place, "sequential")
    assert (place / "result.json").stat().st_mtime_ns == before


def test_spread_probes_of_a_run_that_has_no_other_workers_are_an_error(tmp_path):
    runner = Runner(data=data(), config=config_of("spread"), data_path="memory")
    with pytest.raises(ValueError, match=r"blend\.probes spread needs workers .*; use shared"):
        runner.run(RunSpec(method="online", seed=0), str(tmp_path / "run"))


def test_groups_are_refused_the_cpus_on_which_clips_are_read():
    require_torch_ingest(ComputeConfig())
    with pytest.raises(ValueError, match=r"--ingest ray .*; use --ingest torch, or --blend\.probes shared"):
        require_torch_ingest(ComputeConfig(ingest="ray"))


@pytest.mark.parametrize(
    ("nodes", "compute", "line"),
    [
        ([{"CPU": 4.0}], {"workers": 2}, None),
        ([{"CPU": 3.0}], {"workers": 2}, "a group of 2 workers .* room for 4 workers of 1 CPU; .* room for 3: use"),
        ([{"CPU": 0.8}] * 4, {"workers": 2}, r"room for 4 workers of 1 CPU; the cluster has room for 0"),
        ([{"CPU": 1.0}], {"workers": 5, "cpus_per_worker": 0.1}, None),
        (
            [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0}],
            {"workers": 1, "gpus_per_worker": 1.0},
            "1 CPU and 1 GPU; .* for 1:",
        ),
        ([{"CPU": 8.0, "GPU": 1.0}] * 2, {"workers": 1, "gpus_per_worker": 1.0}, None),
    ],
)
def test_where_no_group_can_ever_be_placed_a_line_says_what_is_needed(nodes, compute, line):
    if line is None:
        require_group_beside(nodes, ComputeConfig(**compute))
    else:
        with pytest.raises(ValueError, match=line):
            require_group_beside(nodes, ComputeConfig(**compute))
