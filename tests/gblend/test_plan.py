"""What is found out before a worker group is asked for: no Ray runs here."""

from dataclasses import replace

import pytest

from gblend.config import BlendConfig, ComputeConfig, EncodersConfig, ModelConfig
from gblend.data import load_run_data
from gblend.group import delete_ray_directories
from gblend.methods import RunSpec
from gblend.run_files import run_settings, what_decides
from gblend.runner import Runner
from gblend.state_files import StateFiles
from gblend.worker import make_plan
from tests.gblend.test_tensor_column import run_config, with_column
from tests.gblend.tiny import tiny_config


def plan(data: str, config, folder, methods=("naive",), *, workers: int = 1):
    return make_plan(
        data, config, methods, [0], compute=ComputeConfig(workers=workers), place=lambda run: str(folder / run.name)
    )


def test_a_tensor_that_no_network_of_ours_reads_is_refused_with_the_remedy(tmp_path):
    data = with_column(tmp_path / "data", shape=(2, 2, 3))
    with pytest.raises(ValueError, match=r"tensors of pose have 3 axes .*; give one of your own by model.encoders"):
        plan(data, run_config(), tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoders": EncodersConfig(rgb="no_such_module:make")}, "no_such_module cannot be imported"),
        ({"encoders": EncodersConfig(flow="torch.nn:Identity")}, "model.encoders has a network for flow, and the run"),
        ({"visual_weights": "no-such-file.pt"}, "no-such-file.pt"),
    ],
)
def test_a_network_that_cannot_be_made_is_refused(tmp_path, changed, message):
    model: ModelConfig = replace(tiny_config().model, **changed)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        plan(with_column(tmp_path / "data"), run_config(model=model), tmp_path)
    assert "\n" not in str(caught.value)


def test_what_can_be_made_is_planned(tmp_path):
    made = plan(with_column(tmp_path / "data"), run_config(), tmp_path, methods=("uni:pose", "pretrain"))
    assert [run.method for run in made.places] == ["uni:pose", "uni:rgb", "pretrain"]
    assert made.pending == 3


def test_a_setting_that_nobody_reads_is_refused_unless_a_run_elsewhere_that_builds_on_these_reads_it(tmp_path):
    data, config = with_column(tmp_path / "data"), run_config(blend=BlendConfig(probe_fraction=0.5))
    with pytest.raises(ValueError, match=r"blend.probe_fraction is read by online only, not by naive; leave it out"):
        plan(data, config, tmp_path)
    shared = make_plan(
        data, config, ["naive"], [0], compute=ComputeConfig(workers=1), place=lambda run: run.name, behind=["online"]
    )
    assert [run.method for run in shared.places] == ["naive"]


def test_a_run_that_another_number_of_workers_began_is_refused_and_otherwise_pending(tmp_path):
    data, config = with_column(tmp_path / "data"), run_config()
    settings = run_settings(RunSpec(method="naive", seed=0), config, load_run_data(data, config), data)
    StateFiles(directory=str(tmp_path / "naive-s0" / "state"), settings=what_decides(settings)).write(
        {}, at="somewhere"
    )
    assert plan(data, config, tmp_path).pending == 1
    with pytest.raises(
        ValueError, match=r"naive-s0/state is of a run begun by 1 training workers, and there are 2; .*"
    ):
        plan(data, config, tmp_path, workers=2)


def test_what_a_killed_job_left_of_ray_train_is_deleted_and_nothing_else(tmp_path):
    for name in ("ray-1795664565133199962", "ray-notes", "runs"):
        (tmp_path / name / "below").mkdir(parents=True)
    delete_ray_directories(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ray-notes", "runs"]
    delete_ray_directories(str(tmp_path / "nothing"))


def test_a_state_that_a_killed_job_left_beside_a_result_is_deleted(tmp_path):
    data, config = with_column(tmp_path / "data"), run_config()
    runner = Runner(data=load_run_data(data, config), config=config, data_path=data)
    runner.run(RunSpec(method="uni:pose", seed=0), str(tmp_path / "uni-pose-s0"))
    (tmp_path / "uni-pose-s0" / "state" / "000001").mkdir(parents=True)
    assert plan(data, config, tmp_path, methods=("uni:pose",)).pending == 0
    assert not (tmp_path / "uni-pose-s0" / "state").exists()
