"""What is logged is what the records say, every point once, also when a run is stopped and goes on."""

import inspect
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gblend import logs
from gblend.config import ComputeConfig
from gblend.logs import NUMBER, Log, open_log, points, require_packages
from gblend.methods import RunSpec
from gblend.runner import Runner
from tests.gblend.carried import estimates_of, history_of
from tests.gblend.stops import stop_before
from tests.gblend.synthetic import estimate, history
from tests.gblend.tiny import tiny_config, tiny_data

HEADS = ("rgb", "logmel", "fused")
EQUAL = dict.fromkeys(HEADS, 1 / 3)
SETTINGS = {"epochs": 2, "optim": {"name": "adamw"}}


def records() -> list:
    """Of an online run: an estimate after the untrained network, one after the first epoch."""
    epochs = history(HEADS, EQUAL, epochs=2)
    estimates = [estimate(HEADS, (0.1, 0.2, 0.3), (1.0, 0.5, 0.2), (0.6, 0.3, 0.1), epoch=epoch) for epoch in (0, 1)]
    return [epochs[0], estimates[0], epochs[1], estimates[1], epochs[2]]


def test_an_epoch_and_an_estimate_give_their_numbers_under_the_names_of_their_heads():
    first, found, second = records()[:3]
    logged = points(second)
    assert logged["heldout/fused/loss_nats"] == second.heldout["fused"].loss_nats
    assert logged["train/rgb/accuracy"] == second.train["rgb"].value
    assert logged["loss_weight/logmel"] == EQUAL["logmel"]
    assert logged["learning_rate"] == second.learning_rate
    assert not any(name.startswith("loss_weight") for name in points(first))
    assert points(found)["estimate/weights/rgb"] == 0.6
    assert points(found)["estimate/ogr/fused"] == pytest.approx(0.3 / 0.2)


def test_a_number_that_is_not_finite_is_no_point():
    found = estimate(HEADS, (0.0, 0.2, 0.3), (0.0, 0.5, 0.2), (0.6, 0.3, 0.1))
    assert "estimate/ogr/rgb" not in points(found)


def test_tensorboard_has_every_point_of_a_run_that_was_stopped_once(tmp_path):
    def carry_out() -> None:
        runner = Runner(
            data=tiny_data(), config=tiny_config(), data_path="memory", compute=ComputeConfig(log=("tensorboard",))
        )
        runner.run(RunSpec(method="online", seed=0), str(tmp_path))

    stop_before(carry_out, "epochs: measure the run", times=2)
    carry_out()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    expected: dict[str, dict[int, float]] = {}
    for record in (*history_of(tmp_path), *estimates_of(tmp_path)):
        for name, value in points(record).items():
            expected.setdefault(name, {})[record.epoch] = pytest.approx(value, rel=1e-6)
    assert len(expected["heldout/fused/loss_nats"]) == 4
    assert len(expected["estimate/weights/flow"]) == 2
    assert set(events.Tags()["scalars"]) == set(expected)
    for name, values in expected.items():
        found = events.Scalars(name)
        assert [event.step for event in found] == sorted(values)
        assert {event.step: event.value for event in found} == values


class MLflowDouble:
    """What `gblend.logs` uses of mlflow-skinny 3.17, with its signatures."""

    def __init__(self) -> None:
        self.runs: dict[str, SimpleNamespace] = {}
        self.active: str | None = None
        self.down = False

    def start_run(
        self,
        run_id: str | None = None,
        experiment_id: str | None = None,
        run_name: str | None = None,
        nested: bool = False,
        parent_run_id: str | None = None,
        tags: dict[str, Any] | None = None,
        description: str | None = None,
        log_system_metrics: bool | None = None,
    ) -> SimpleNamespace:
        assert self.active is None, "Run with UUID ... is already active"
        self.active = run_id or f"id{len(self.runs)}"
        self.runs.setdefault(self.active, SimpleNamespace(name=run_name, params={}, metrics=[], status="RUNNING"))
        return SimpleNamespace(info=SimpleNamespace(run_id=self.active))

    def end_run(self, status: str = "FINISHED") -> None:
        if self.active is not None:
            self.runs[self.active].status = status
            self.active = None

    def log_params(self, params, synchronous: bool | None = None, run_id: str | None = None) -> None:
        assert self.active is not None
        self.runs[self.active].params |= params

    def log_metrics(
        self,
        metrics: dict[str, float],
        step: int | None = None,
        synchronous: bool | None = None,
        run_id: str | None = None,
        timestamp: int | None = None,
        model_id: str | None = None,
        dataset: Any = None,
    ) -> None:
        if self.down:
            raise ConnectionError("no answer\nfrom the server")
        assert self.active is not None
        self.runs[self.active].metrics += [(name, step, value) for name, value in metrics.items()]

    def MlflowClient(self) -> "MLflowDouble":  # noqa: N802
        return self

    def get_metric_history(self, run_id: str, key: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(step=s, value=v) for name, s, v in self.runs[run_id].metrics if name == key]

    def points(self) -> list[tuple[str, int, float]]:
        (run,) = self.runs.values()
        return [point for point in run.metrics if point[0] != NUMBER]


class WandbDouble:
    """What `gblend.logs` uses of wandb 0.31, with its signatures."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict]] = {}
        self.configs: dict[str, Any] = {}

    def init(self, *, id=None, name=None, config=None, resume=None, reinit=None) -> "WandbRun":
        self.configs[id] = config
        return WandbRun(self.rows.setdefault(id, []))

    def points(self) -> list[tuple[str, int, float]]:
        (rows,) = self.rows.values()
        return [(name, row["epoch"], value) for row in rows for name, value in row.items() if name != "epoch"]


class WandbRun:
    """As the service has it, a row for each step, and no way back to a smaller one."""

    def __init__(self, rows: list[dict]) -> None:
        self.rows = rows

    @property
    def step(self) -> int:
        return len(self.rows)

    def define_metric(self, name, step_metric=None, step_sync=None, hidden=None, summary=None, overwrite=None) -> None:
        assert (name, step_metric) == ("*", "epoch")

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        assert (step, commit) == (len(self.rows), True)
        self.rows.append(data)

    def finish(self, exit_code: int | None = None) -> None:
        self.rows = []


@pytest.fixture(params=["mlflow", "wandb"])
def service(request, monkeypatch):
    double = {"mlflow": MLflowDouble, "wandb": WandbDouble}[request.param]()
    monkeypatch.setitem(sys.modules, request.param, double)
    return request.param, double


def log_of(directory: Path, name: str, said: list[str] | None = None) -> Log:
    say = [].append if said is None else said.append
    return open_log((name,), str(directory), run="online-s0", settings=SETTINGS, say=say)


def expected_points() -> list[tuple[str, int, float]]:
    return [(name, record.epoch, value) for record in records() for name, value in points(record).items()]


def test_a_service_gets_every_record_once_though_a_run_that_goes_on_hands_over_all_again(service, tmp_path):
    name, double = service
    first = log_of(tmp_path, name)
    for record in records()[:3]:
        first.write(record)
    second = log_of(tmp_path, name)
    second.write(*records())
    second.close()
    assert double.points() == expected_points()


def test_a_service_knows_the_settings_of_a_run(service, tmp_path):
    name, double = service
    log_of(tmp_path, name).write(records()[0])
    if name == "mlflow":
        assert double.runs["id0"].params == {"epochs": 2, "optim.name": "adamw"}
    else:
        assert list(double.configs.values()) == [SETTINGS]


def test_what_a_service_did_not_take_is_said_and_sent_later(monkeypatch, tmp_path):
    double, said = MLflowDouble(), []
    monkeypatch.setitem(sys.modules, "mlflow", double)
    log = log_of(tmp_path, "mlflow", said)
    for at, record in enumerate(records()):
        double.down = at in (1, 2)
        log.write(record)
    log.close()
    assert double.points() == expected_points()
    assert said == [
        f"log mlflow lacks {count} records, which are kept for later: no answer from the server" for count in (1, 2)
    ]
    assert double.runs["id0"].status == "FINISHED"


def test_a_service_that_does_not_answer_at_the_start_is_said_and_gets_everything_later(service, tmp_path, monkeypatch):
    name, double = service
    said, opens = [], "start_run" if name == "mlflow" else "init"
    with monkeypatch.context() as down:
        down.setattr(double, opens, answers_nothing)
        log = log_of(tmp_path, name, said)
        log.write(records()[0])
    assert said == [f"log {name} cannot be opened, which is tried again later: no answer"]
    log.write(*records()[1:])
    log.close()
    assert double.points() == expected_points()
    assert len(said) == 1


def test_a_service_that_never_answers_is_said_at_the_end_and_nothing_is_raised(service, tmp_path, monkeypatch):
    name, double = service
    monkeypatch.setattr(double, "start_run" if name == "mlflow" else "init", answers_nothing)
    said = []
    log = log_of(tmp_path, name, said)
    log.write(records()[0])
    log.close()
    assert said == [f"log {name} cannot be opened, which is tried again later: no answer"] * 2


def test_a_service_that_takes_long_not_to_answer_is_not_asked_at_every_record(tmp_path, monkeypatch):
    now, asked = [0.0], []

    def hangs(*_, **__):
        asked.append(now[0])
        now[0] += 60.0
        raise ConnectionError("no answer")

    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    log = Log(makers={"wandb": hangs}, say=lambda _: None)
    for record in records():
        log.write(record)
        now[0] += 200.0
    log.close()
    assert asked == [0.0, 660.0, 1120.0]


def answers_nothing(*_, **__):
    raise ConnectionError("no answer")


def names_of(function) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self"}


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_the_doubles_have_the_signatures_of_the_real_packages(name):
    """Where these are installed; they are no part of the development environment."""
    real = pytest.importorskip(name)
    if name == "mlflow":
        pairs = [(getattr(real, each), getattr(MLflowDouble, each)) for each in ("start_run", "end_run", "log_params")]
        pairs += [(real.log_metrics, MLflowDouble.log_metrics)]
        pairs += [(real.MlflowClient.get_metric_history, MLflowDouble.get_metric_history)]
    else:
        pairs = [(getattr(real.Run, each), getattr(WandbRun, each)) for each in ("log", "define_metric", "finish")]
        assert names_of(WandbDouble.init) < names_of(real.init)
        assert isinstance(real.Run.step, property)
    for theirs, ours in pairs:
        assert names_of(theirs) == names_of(ours)


def test_a_package_that_is_missing_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr(logs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"log wandb needs the package wandb, .*'gblend\[wandb\]' on all"):
        require_packages(["wandb"])
