"""The two sides of `benchmarks.loader` read the same, so that their times can be compared."""

import pytest

from benchmarks.loader import ENTROPY, TASKS, BareLoop, Task, require_same, write_clips
from gblend.batches import training_batches, training_loader
from gblend.data import load_run_data


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"), 12)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_loop_written_by_hand_reads_the_windows_of_the_loader_to_the_bit(clips, task: Task):
    run = load_run_data(clips, task.config())
    batches = training_batches(len(run.train), batch_size=4, entropy=ENTROPY, rank=0, world=1)
    require_same(list(training_loader(run.train, batches, ENTROPY)), BareLoop(run, task, clips, batches))
