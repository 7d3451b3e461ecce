"""How much of a training's time its network waits for the next batch: read from shards, by the loop of every run.

With no loader processes that is the time that reading takes; with some it is what they do not keep up with. It is
measured where the loop asks for a batch, by the clock, and depends on how many cores there are for the processes.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from benchmarks.loader import Task
from gblend.batches import training_loader
from gblend.data import load_run_data
from gblend.feeder import Feeding
from gblend.loop import Position, train
from gblend.model import make_model


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """What one training spent its time with."""

    steps: int
    """That were measured."""
    total_s: float
    """By the clock."""
    waited_s: float
    """Part of it, for batches."""


def waiting(data: str, task: Task, *, processes: int, epochs: int, device: torch.device) -> Waiting:
    """Train some epochs; the first, in which processes start, is not measured.

    Args:
        data: Data set directory, as `benchmarks.loader.write_clips` makes it.
        task: What is read; the network is that of the recipe small-cpu.
        processes: Loader processes.
        epochs: To measure.
        device: Where the network is.
    """
    config = task.config()
    loaded = load_run_data(data, config, Feeding(processes=processes, device=device))
    model = make_model(loaded.modalities, loaded.classes, config.model, seed=0).to(device)
    weights = dict.fromkeys(model.head_names, 1.0 / len(model.head_names))
    waited: list[float] = []

    def timed(*arguments: Any) -> Iterator[Any]:
        batches = iter(training_loader(*arguments))
        while True:
            asked_s = time.perf_counter()
            batch = next(batches, None)
            waited.append(time.perf_counter() - asked_s)
            if batch is None:
                return
            yield batch

    def some_epochs(start: int, count: int) -> None:
        position = Position(start_epoch=start, epochs=count)
        train(model, loaded, config, weights=weights, position=position, seed=0)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with mock.patch("gblend.loop.training_loader", timed):
        some_epochs(0, 1)
        waited.clear()
        started_s = time.perf_counter()
        some_epochs(1, epochs)
        total_s = time.perf_counter() - started_s
    return Waiting(steps=len(waited) - epochs, total_s=total_s, waited_s=sum(waited))


def rows(data: str, tasks: Sequence[Task], *, epochs: int, device: torch.device) -> list[list[object]]:
    """One row for each task and number of processes: name, processes, milliseconds a step, share waited."""
    found: list[list[object]] = []
    for task, processes in itertools.product(tasks, (0, 1, 2)):
        took = waiting(data, task, processes=processes, epochs=epochs, device=device)
        found.append([task.name, processes, 1000 * took.total_s / took.steps, took.waited_s / took.total_s])
    return found
