"""What a group says of a list of runs while it carries them out; the runs themselves take no time here."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from gblend import worker
from gblend.config import ComputeConfig
from gblend.lines import Lines
from gblend.methods import RunSpec
from gblend.worker import Plan
from tests.gblend.synthetic import result
from tests.gblend.tiny import tiny_config

MODALITIES = ("rgb", "flow", "logmel")

SECONDS = {"uni:rgb": 30.0, "naive": 90.0, "equal": 90.0}
"""That runs take, as long as their networks are: one of three modalities, and all."""


@dataclass(frozen=True, kw_only=True)
class Said(Lines):
    """What would be sent to the driver."""

    queue: None = None
    lines: list = field(default_factory=list)
    steps: list = field(default_factory=list)

    def put(self, line):
        self.lines.append(line)

    def step(self, done, total, note):
        self.steps.append((done, total))


class Runner:
    """In place of the one that trains: half of a run, and all of it."""

    def __init__(self, *, step, **_) -> None:
        self.step = step

    def run(self, run, directory, needed):
        if self.step is not None:
            self.step(0.5, "")
        return result(run.method, run.seed, {"fused": 0.5}, seconds=SECONDS[run.method])


@pytest.fixture
def said(monkeypatch):
    """Carries out the three runs, and is what was said of them."""
    context = SimpleNamespace(get_local_world_size=lambda: 1, get_world_rank=lambda: 0)
    train = SimpleNamespace(get_context=lambda: context, report=lambda _: None)
    monkeypatch.setattr(worker, "ray", SimpleNamespace(train=train))
    monkeypatch.setattr(worker, "open_data", lambda *_, **__: (SimpleNamespace(modalities=MODALITIES), "cpu"))
    monkeypatch.setattr(worker, "Runner", Runner)

    def carry_out(*, counted: bool) -> Said:
        runs = [RunSpec(method=method, seed=0) for method in SECONDS]
        config = tiny_config(epochs=12)
        times = {run: worker.network_epochs(run.method, config, modalities=len(MODALITIES)) for run in runs}
        plan = Plan(
            data="data",
            config=config,
            places={run: run.name for run in runs},
            costs=dict.fromkeys(runs, 12.0),
            times=times,
        )
        lines = Said(counted=counted)
        worker._work({"compute": ComputeConfig(), "plans": [plan], "desk": None, "lines": lines})
        return lines

    return carry_out


def test_a_finished_run_tells_how_long_all_that_are_left_will_take_by_the_size_of_their_networks(said):
    """By epochs alone it would be 60 s after the first one, a third of what is left."""
    first, second, last = said(counted=False).lines
    assert first.endswith("; all that is left: about 3 min")
    assert second.endswith("; all that is left: about 95 s")
    assert last.endswith("90 s")


def test_a_bar_counts_epochs_of_the_whole_network(said):
    lines = said(counted=True)
    refit = 2 / 3
    whole = 4 + 12 + 12 + refit
    assert [total for _, total in lines.steps] == pytest.approx([whole] * 3)
    assert [done for done, _ in lines.steps] == pytest.approx([2, 4 + 6, 4 + 12 + 6 + refit / 2])
    assert not [line for line in lines.lines if "left" in line]
