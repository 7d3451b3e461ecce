"""Groups of workers of Ray that train probes: the bits of probes on the run's own workers, whoever is killed."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.processes import descendants
from gblend.config import BlendConfig, ComputeConfig, TrainConfig
from gblend.data import load_run_data
from gblend.loop import Position
from gblend.methods import RunSpec
from gblend.model import make_model
from gblend.probe_groups import probe_groups
from gblend.probe_task import Arrivals
from gblend.probes import Probes
from gblend.run_state import State, moments_state
from gblend.runner import Runner
from gblend.worker import make_plan, train_runs
from tests.gblend.shards import gradient_clip, write_dataset
from tests.gblend.stops import assert_same_files
from tests.gblend.tiny import tiny_config

pytestmark = pytest.mark.slow

COMPUTE = ComputeConfig(workers=2, cpus_per_worker=0.5, restarts=1, checkpoint_every=1)
"""One group fits beside the run's own on two cores."""

CONFIG = tiny_config(
    modalities=("rgb", "logmel"), epochs=2, blend=BlendConfig(first_epochs=2, refit_epochs=0, probes="spread")
)
BRANCH = "fused"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    def clips(split: str, count: int) -> list:
        return [gradient_clip(f"{split}{i}", label=i % 3, seed=i) for i in range(count)]

    return write_dataset(tmp_path_factory.mktemp("data"), {"train": clips("train", 24), "test": clips("test", 6)})


def probes_of(data: str, config: TrainConfig) -> Probes:
    """Of an untrained network, here."""
    loaded = load_run_data(data, config)
    model = make_model(loaded.modalities, loaded.classes, config.model, seed=0)
    ahead = Position(start_epoch=0, epochs=2)
    return Probes(model=model, data=loaded, config=config, ahead=ahead, seed=0, run_name="run")


def train_shared(rank: int, directory: Path, data: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=COMPUTE.workers)
    try:
        probes = probes_of(data, replace(CONFIG, blend=replace(CONFIG.blend, probes="shared")))
        probes.run()
        torch.save({name: moments_state(found) for name, found in probes.moments.items()}, directory / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def shared(data, tmp_path_factory) -> dict[str, State]:
    """What two workers measure that train all probes side by side, without Ray."""
    directory = tmp_path_factory.mktemp("two")
    mp.spawn(train_shared, args=(directory, data), nprocs=COMPUTE.workers)
    return torch.load(directory / "0.pt", weights_only=True)


@contextmanager
def killing(command: str, *, when: Callable[[], bool] = lambda: True) -> Iterator[list[int]]:
    """Kill one process of this process's cluster that carries out ``command``, once it is time."""
    killed: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not killed and not done.wait(0.02):
            if when():
                for process in descendants(os.getpid()):
                    if not killed and process.command.startswith(command):
                        os.kill(process.pid, signal.SIGKILL)
                        killed.append(process.pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join()


def all_of(arrivals: Arrivals, count: int) -> dict[str, State]:
    """What arrives, until it is so much."""
    found: dict[str, State] = {}
    deadline = time.monotonic() + 400
    while len(found) < count and time.monotonic() < deadline:
        found |= arrivals()
    return found


def test_a_group_measures_what_the_runs_own_workers_would_also_when_one_of_it_is_killed(ray_session, data, shared):
    task = replace(probes_of(data, CONFIG).task(), workers=COMPUTE.workers, branches=(BRANCH,))
    said: list[str] = []
    with probe_groups(data, COMPUTE, say=said.append) as desk, killing("ray::_ProbeWorker.work") as killed:
        found = all_of(desk(task), 1)
    assert len(killed) == 1
    # on a slow machine the probes' progress is told too
    begun_again = [line for line in said if " starts again: " in line]
    assert len(begun_again) == 1
    assert begun_again[0].startswith(f"the probe of {BRANCH} of run from epoch 0 ")
    assert found.keys() == {BRANCH}
    assert found[BRANCH].keys() == shared[BRANCH].keys()
    for name, values in found[BRANCH].items():
        expected = shared[BRANCH][name]
        assert values == expected if name == "heads" else torch.equal(values, expected), name


def test_a_run_whose_worker_is_killed_while_its_probes_train_goes_on_to_the_same_bits(ray_session, data, tmp_path):
    alone = replace(CONFIG, blend=replace(CONFIG.blend, probes="shared"))
    Runner(data=load_run_data(data, alone), config=alone, data_path=data).run(
        RunSpec(method="online", seed=0), str(tmp_path / "alone")
    )
    place = tmp_path / "run"
    compute = replace(COMPUTE, workers=1)
    plan = make_plan(data, CONFIG, ["online"], [0], compute=compute, place=lambda run: str(place))
    with killing("ray::RayTrainWorker", when=lambda: any(place.glob("state/*/whole.json"))) as killed:
        train_runs(plan, compute, storage=str(tmp_path / "ray"))
    assert len(killed) == 1
    assert_same_files(place, tmp_path / "alone", but=("config.json",))


def test_a_probe_that_fails_to_the_last_is_an_error_of_the_run_that_says_why(ray_session, data):
    compute = replace(COMPUTE, workers=1, restarts=0)
    task = replace(probes_of(data, CONFIG).task(), branches=("smell",))
    failed = r"the probe of smell of run from epoch 0 failed: .* no branch 'smell'"
    with probe_groups(data, compute, say=print) as desk, pytest.raises(RuntimeError, match=failed):
        all_of(desk(task), 1)
