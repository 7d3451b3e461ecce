"""Several workers go on from one state, each with what is its own. Three processes meet through a file, once.

Three, because a sum of three numbers depends on their order and a sum of two does not.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from gblend import collective, training
from gblend.batches import training_batches
from gblend.config import BlendConfig, ComputeConfig
from gblend.methods import RunSpec
from gblend.records import RunResult
from gblend.run_state import State
from gblend.runner import Runner
from gblend.state_files import StateFiles
from tests.gblend.stops import OF_WORKER_0, assert_same_run, stop_again_and_again, stop_before
from tests.gblend.tiny import tiny_config, tiny_data

WORLD = 3
MID_EPOCH = 2
"""Steps of the main run before which it is left behind for fewer workers: one of the first epoch is done."""
CPU = torch.device("cpu")


def carry_out(place: Path, *, missing: str, said: list[str], min_workers: int | None = None) -> RunResult:
    """A run of batches with one to three clips a worker, whose own statistics differ between the ends of epochs."""
    blend = BlendConfig(first_epochs=2, next_epochs=1, refit_epochs=1)
    absent = {"logmel": [0, 3, 4, 5]} if missing == "zero" else None
    data = replace(tiny_data(train=22, heldout=6, absent=absent), modalities=("rgb", "logmel"))
    norm = "local" if missing == "zero" else "sync"
    config = tiny_config(blend=blend, batch_size=7, missing=missing, batch_norm=norm)
    compute = ComputeConfig(workers=WORLD, min_workers=min_workers, checkpoint_every=1)
    runner = Runner(data=data, config=config, data_path="memory", compute=compute, say=said.append)
    return runner.run(RunSpec(method="online", seed=0), str(place))


def state_of(number: int) -> State:
    return {"records": str(number), "generators": [number, collective.rank()]}


def files_of_a_worker(directory: Path) -> dict:
    """Which state all go on from when the newest has no file of worker 1."""
    said: list[str] = []
    files = StateFiles(directory=str(directory), settings={}, say=said.append)
    for number in (1, 2):
        files.write(state_of(number), at="somewhere")
    collective.wait_for_all()
    if collective.rank() == 0:
        (directory / "000002" / "worker-1.pt").unlink()
    collective.wait_for_all()
    return {"state": StateFiles(directory=str(directory), settings={}, say=said.append).newest(), "said": said}


def everything(directory: Path) -> dict:
    found: dict = {"missing file": files_of_a_worker(directory / "files")}
    for missing in ("drop", "zero"):
        said: list[str] = []
        carry_out(directory / missing / "whole", missing=missing, said=said)
        place = directory / missing / "stopped"
        stops = stop_again_and_again(
            lambda place=place, missing=missing, said=said: carry_out(place, missing=missing, said=said),
            but=OF_WORKER_0,
        )
        found[missing] = {"stops": stops, "said": said}
    place = directory / "left behind"
    stop_before(lambda: carry_out(place, missing="zero", said=[]), "epochs: step", times=MID_EPOCH)
    return found


def work(rank: int, directory: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=WORLD)
    try:
        torch.save(everything(directory), directory / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("three")
    mp.spawn(work, args=(directory,), nprocs=WORLD)
    return directory


@pytest.fixture(scope="module")
def found(place) -> list[dict]:
    return [torch.load(place / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("missing", ["drop", "zero"])
def test_a_run_of_three_workers_stopped_again_and_again_ends_as_the_one_that_was_not(place, found, missing):
    stops = found[0][missing]["stops"]
    assert all(each[missing]["stops"] == stops for each in found)
    assert set(stops) >= {"weights: step", "weights: estimate", "epochs: step", "refit: step", "scores: score"}
    assert_same_run(place / missing / "stopped", place / missing / "whole")


def test_worker_0_alone_says_where_a_run_is_and_goes_on(found):
    assert len(found[0]["drop"]["said"]) > 10
    assert all(line.startswith("online seed 0") for line in found[0]["drop"]["said"])
    assert [each["drop"]["said"] for each in found[1:]] == [[], []]


def test_a_file_that_one_worker_misses_makes_all_go_on_from_the_state_before(found):
    for rank, each in enumerate(found):
        assert each["missing file"]["state"] == {"records": "1", "generators": [1, rank]}
    lines = [each["missing file"]["said"] for each in found]
    assert lines[0] == lines[2] == []
    assert lines[1][0].endswith("000002 is not used: it has no worker-1.pt")


def test_one_worker_does_not_go_on_with_a_state_of_three(place):
    files = StateFiles(directory=str(place / "files"), settings={}, say=print)
    with pytest.raises(ValueError, match=r"begun by 3 training workers, and there are 1; .*use --workers 3, or delete"):
        files.newest()


def test_one_worker_goes_on_with_a_run_of_three_where_that_is_allowed(place, monkeypatch):
    """With the mean of their statistics, and with exactly those clips of the epoch that were not trained on."""
    run = place / "left behind"
    with pytest.raises(ValueError, match="with --min-workers a run goes on with another number"):
        carry_out(run, missing="zero", said=[])
    newest = max((run / "state").iterdir())
    each = [torch.load(newest / f"worker-{rank}.pt")["lesson.0.buffers"] for rank in range(WORLD)]
    first_batches: list = []
    train_together = training.train_together

    def watched(learners, data, config, **options):
        if not first_batches:
            (learner,) = learners
            for name, values in learner.model.named_buffers():
                if values.is_floating_point():
                    torch.testing.assert_close(values, sum(one[name] for one in each) / WORLD)
            first_batches.append(options["progress"].step)
            data.train.drawn.clear()
            options["after_epoch"] = after_first(data, options["after_epoch"])
        train_together(learners, data, config, **options)

    def after_first(data, after_epoch):
        def call(epoch, rate):
            if len(first_batches) == 1:
                first_batches.append([position for position, entropy in data.train.drawn if entropy is not None])
            after_epoch(epoch, rate)

        return call

    monkeypatch.setattr(training, "train_together", watched)
    result = carry_out(run, missing="zero", said=(said := []), min_workers=1)
    assert (result.workers, result.earlier_workers) == (1, (3,))
    assert said[0] == "online seed 0 was stopped and goes on: 0 of 3 epochs and 1 step"
    done, drawn = first_batches
    whole = training_batches(22, batch_size=7, entropy=(0, 0, 0), rank=0, world=1)
    assert (done, drawn) == (1, [clip for batch in whole[1:] for clip in batch])
