"""Runs that are stopped at chosen moments, and carried out again until they are finished.

A moment is just before a run does one of the things below, or just after it has saved a state. Between two moments a
process does nothing that another could see, so stopping at a moment stands for the end of the process.
"""

import importlib
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gblend.records import read_json
from gblend.state_files import StateFiles
from gblend.training import Training

THINGS = {
    "gblend.loop._step": "step",
    "gblend.training.measure_both": "measure the run",
    "gblend.probes.measure_both": "measure a probe",
    "gblend.weights_ahead.estimate": "estimate",
    "gblend.training.measure_outputs": "score",
    "gblend.state_files._save": "save a file of a state",
    "gblend.state_files.write_json": "make a state whole",
    "gblend.state_files.delete": "delete states",
    "gblend.runner.save_outputs": "write predictions",
    "gblend.runner.write_lines": "write records",
    "gblend.runner.save_moments": "write losses",
    "gblend.runner.save_checkpoint": "write parameters",
    "gblend.runner.write_json": "write a document",
}
"""Functions where they are used, and what they do."""

SAVED = "have saved a state"

OF_WORKER_0 = tuple(what for what in THINGS.values() if what.split()[0] in ("save", "make", "delete", "write"))
"""What worker 0 does alone, or more often than the others."""


class StoppedError(Exception):
    """The process is no more."""


@contextmanager
def stopping(due: Callable[[list[str]], object], *, but: Container[str] = ()) -> Iterator[list[str]]:
    """Stop at the first moment at which ``due``, told all moments so far, says so; a moment names the stage as well."""
    moments: list[str] = []
    running: list[Training] = []

    def moment(what: str) -> None:
        moments.append(f"{running[-1].stage}: {what}" if running else what)
        if due(moments):
            raise StoppedError(moments[-1])

    def watched(function: Callable, what: str) -> Callable:
        def call(*args: Any, **options: Any) -> Any:
            moment(what)
            return function(*args, **options)

        return call

    train, write = Training.train, StateFiles.write

    def watched_train(self: Training) -> None:
        running.append(self)
        train(self)

    def watched_write(self: StateFiles, state: Any, *, at: str) -> None:
        write(self, state, at=at)
        moment(SAVED)

    with pytest.MonkeyPatch.context() as patch:
        for place, what in THINGS.items():
            if what not in but:
                module, _, name = place.rpartition(".")
                function = getattr(importlib.import_module(module), name)
                patch.setattr(place, watched(function, what))
        patch.setattr(Training, "train", watched_train)
        patch.setattr(StateFiles, "write", watched_write)
        yield moments


def stop_again_and_again(run: Callable[[], object], *, but: Container[str] = ()) -> list[str]:
    """Carry out a run, stopped at every kind of moment once, and now and then besides, until it is finished.

    Each stop is at a kind that was none before, or behind a new state: so the run comes to its end.

    Returns:
        Where it was stopped.
    """
    stops: list[str] = []

    def due(moments: list[str]) -> bool:
        saves = [at for at, moment in enumerate(moments) if moment.endswith(SAVED)]
        return moments[-1] not in stops or bool(saves and len(moments) - 1 == saves[0] + len(stops) % 9)

    while True:
        try:
            with stopping(due, but=but):
                run()
            return stops
        except StoppedError as stop:
            stops.append(str(stop))


def stop_before(run: Callable[[], object], what: str, *, times: int = 1) -> None:
    """Carry out a run up to the moment ``what``, the ``times``-th such one."""
    with pytest.raises(StoppedError), stopping(lambda moments: moments.count(what) == times):
        run()


def files_below(directory: Path) -> dict[str, Path]:
    """By their names relative to the directory."""
    return {str(path.relative_to(directory)): path for path in sorted(directory.rglob("*")) if path.is_file()}


def assert_same_run(found: Path, expected: Path) -> None:
    """Every file is the same, bit by bit, but for the wall time in ``result.json``."""
    assert_same_files(found, expected)


def assert_same_files(found: Path, expected: Path, *, but: Container[str] = ()) -> None:
    """Likewise, some files left out."""
    one, other = (
        {name: path for name, path in files_below(place).items() if name not in but} for place in (found, expected)
    )
    assert list(one) == list(other)
    assert "result.json" in one
    for name, path in one.items():
        if name == "result.json":
            documents = [read_json(str(each)) for each in (path, other[name])]
            assert all(document.pop("seconds") > 0 for document in documents)
            assert documents[0] == documents[1]
        elif name.endswith(".pt"):
            values, others = (torch.load(each, weights_only=True) for each in (path, other[name]))
            assert values.keys() == others.keys()
            for key, tensor in values.items():
                assert torch.equal(tensor, others[key]), f"{name}: {key}"
        elif name.endswith(".npz"):  # The same arrays are other bytes where a file was written without seeking.
            arrays, others = (dict(np.load(each)) for each in (path, other[name]))
            assert arrays.keys() == others.keys()
            for key, values in arrays.items():
                assert values.dtype == others[key].dtype, f"{name}: {key}"
                assert values.shape == others[key].shape, f"{name}: {key}"
                assert values.tobytes() == others[key].tobytes(), f"{name}: {key}"
        else:
            assert path.read_bytes() == other[name].read_bytes(), name
