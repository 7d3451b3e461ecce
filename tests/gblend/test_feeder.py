"""Loader processes: the same batches whatever their number, and what happens when something goes wrong in one."""

import os
import resource
import signal
import time
from multiprocessing import forkserver, get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from gblend.batches import Batch, measuring_loader, training_batches, training_loader
from gblend.config import ComputeConfig, InputConfig, TrainConfig
from gblend.data import load_run_data
from gblend.feeder import Feeding
from schemas import FeatureSpec, RgbSpec
from tests.gblend.shards import gradient_clip, write_dataset

CONFIG = TrainConfig(
    name="test",
    input=InputConfig(
        frames=3,
        crop_px=16,
        scale_px=16,
        jitter_px=(16, 18),
        mel_frames=10,
        flip="horizontal",
        time_masks=(2, 4),
        band_masks=(1, 9),
    ),
)
ENTROPY = (0, 0, 3)
FORK = get_context("fork")


def write(root: Path) -> str:
    clips = [gradient_clip(f"c{i}", seed=i, label=(i // 2) % 3, group=f"g{i // 2}") for i in range(30)]
    tests = [gradient_clip(f"t{i}", seed=i) for i in range(5)]
    return write_dataset(root, {"train": clips, "test": tests}, spec=FeatureSpec(rgb=RgbSpec(fps=20.0)), per_shard=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def two(data):
    """Fed by two processes."""
    return load_run_data(data, CONFIG, Feeding(processes=2))


def epoch(run, modalities=("rgb", "flow", "logmel")) -> list[Batch]:
    batches = training_batches(len(run.train), batch_size=6, entropy=ENTROPY, rank=0, world=1)
    return list(training_loader(run.train.only(modalities), batches, ENTROPY))


def measured(run) -> list[Batch]:
    clips = run.splits["test"]
    return list(measuring_loader(clips, list(range(len(clips))), batch_size=2, rank=0, world=1))


def assert_same(some: list[Batch], others: list[Batch]) -> None:
    assert len(some) == len(others) > 1
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one.position, other.position)
        assert torch.equal(one.enlarged, other.enlarged)
        for name in ("labels", "arrays", "present"):
            these, those = getattr(one, name), getattr(other, name)
            assert list(these) == list(those)
            assert all(torch.equal(these[key], those[key]) for key in these)


def test_batches_are_the_same_bits_for_any_number_of_processes(data, two):
    alone = load_run_data(data, CONFIG)
    for run in (load_run_data(data, CONFIG, Feeding()), load_run_data(data, CONFIG, Feeding(processes=1)), two):
        assert_same(epoch(alone), epoch(run))
        assert_same(measured(alone), measured(run))
        assert_same(epoch(alone, ("logmel",)), epoch(run, ("logmel",)))


def pool(run) -> set[int]:
    """Process ids of its loader processes."""
    return {worker.pid for worker in run.train.feed.func.__self__._loader._iterator._workers}


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_processes_stay_from_one_loop_to_the_next(two):
    epoch(two)
    before = pool(two)
    epoch(two)
    measured(two)
    assert len(before) == 2
    assert pool(two) == before


def test_a_loop_that_is_left_does_not_disturb_the_next(data, two):
    batches = training_batches(len(two.train), batch_size=2, entropy=ENTROPY, rank=0, world=1)
    for _ in training_loader(two.train, batches, ENTROPY):
        break
    assert_same(epoch(load_run_data(data, CONFIG)), epoch(two))


def test_two_loops_at_once_are_noticed(two):
    batches = training_batches(len(two.train), batch_size=6, entropy=ENTROPY, rank=0, world=1)
    one = training_loader(two.train, batches, ENTROPY)
    next(one)
    epoch(two)
    with pytest.raises(AssertionError, match="one loop over a feeder at a time"):
        next(one)


def test_the_global_random_states_are_left_alone(two):
    torch.manual_seed(0)
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    epoch(two)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_a_damaged_file_is_one_line_and_the_processes_go_on(tmp_path):
    run = load_run_data(write(tmp_path), CONFIG, Feeding(processes=1))
    path = tmp_path / run.train.index.shards[0] / "rgb.arrow"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"^\S*rgb.arrow is not a whole Arrow file .* rerun `gblend preprocess`$"):
        epoch(run)
    path.write_bytes(whole)
    assert len(epoch(run)) == 4


def test_a_killed_process_is_one_line_that_says_what_to_do(data):
    run = load_run_data(data, CONFIG, Feeding(processes=1))
    batches = training_batches(len(run.train), batch_size=2, entropy=ENTROPY, rank=0, world=1)
    loop = training_loader(run.train, batches, ENTROPY)
    next(loop)
    (victim,) = pool(run)
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"^a loader process was killed .* use fewer --loader-processes, or a .*$"):
        list(loop)


def test_processes_end_with_the_one_they_serve(data):
    here, there = FORK.Pipe()

    def work() -> None:
        forkserver._forkserver.__init__()  # The one of the parent cannot serve a child.
        run = load_run_data(data, CONFIG, Feeding(processes=1))
        epoch(run)
        there.send(sorted(pool(run)))
        time.sleep(600)

    worker = FORK.Process(target=work)
    worker.start()
    (loader,) = here.recv()
    assert lives(loader)
    worker.kill()
    worker.join()
    deadline_s = time.monotonic() + 20.0
    while lives(loader) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert not lives(loader)


def test_on_a_gpu_batches_are_pinned_and_else_not(data):
    """Asked of the data loader, because pinning itself takes a GPU."""
    pinned = []
    for device in ("cpu", "cuda"):
        run = load_run_data(data, CONFIG, Feeding(device=torch.device(device)))
        pinned.append(run.train.feed.func.__self__._start().pin_memory)
    assert pinned == [False, True]


def test_the_number_of_processes_is_checked():
    with pytest.raises(ValueError, match="loader_processes must be at least 0, got -1"):
        ComputeConfig(loader_processes=-1)


def test_a_batch_for_which_there_is_no_shared_memory_is_one_line_that_says_what_to_do(data):
    run = load_run_data(data, CONFIG, Feeding(processes=1))
    batches = training_batches(len(run.train), batch_size=2, entropy=ENTROPY, rank=0, world=1)
    loop = training_loader(run.train, batches, ENTROPY)
    next(loop)
    (victim,) = pool(run)
    resource.prlimit(victim, resource.RLIMIT_FSIZE, (0, 0))  # No file grows any more, those in /dev/shm neither.
    with pytest.raises(
        RuntimeError, match=r"^a batch could not be handed over .*/dev/shm; use fewer --loader-processes, or a .*$"
    ):
        list(loop)
