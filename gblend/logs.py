"""Curves in TensorBoard, MLflow and Weights & Biases, besides ``history.jsonl``: all three by their public Python APIs.

Worker 0 hands over the records of a run in the one order they have. A run that goes on after a stop hands over all of
them again, from the first. So files are written anew, and a service that keeps what it got says how many records it
has: no point comes twice and none is lost. A service that cannot be reached is no reason to stop a training: what it
lacks is sent with the next record.
"""

import importlib
import importlib.util
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from gblend.records import EpochRecord, EstimateRecord, read_json, write_json
from gblend.run_files import flat
from gblend.storage import delete, exists

LOGS_FILE, TENSORBOARD_DIRECTORY = "logs.json", "tensorboard"
"""In a run directory: names of its runs at services, and TensorBoard's files."""

NUMBER = "record"
"""A curve that MLflow gets besides ours, of the records' numbers: it tells which ones are there."""

OF_ESTIMATES = ("generalization", "overfitting", "ogr", "weights")
"""Lists of an `EstimateRecord` that are logged, one value a head."""

PATIENCE, QUICK_S = 9.0, 1.0
"""A service that did not answer is left alone for so many times as long as it took beyond a second: clients wait a
minute and more before they give up, and training waits with them."""

Record = EpochRecord | EstimateRecord


def require_packages(names: Sequence[str]) -> None:
    """Raise ``ValueError`` unless the packages of these kinds of log can be imported."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"log {name} needs the package {name}, which is not installed here; "
                f"pip install 'gblend[{name}]' on all nodes, or leave it out of --log"
            )


def points(record: Record) -> dict[str, float]:
    """What is logged of a record, by name of the curve; its place on all of them is the epoch."""
    if isinstance(record, EpochRecord):
        found = {
            f"{part}/{head}/{name}": value
            for part, scores in (("train", record.train), ("heldout", record.heldout))
            for head, score in scores.items()
            for name, value in {"loss_nats": score.loss_nats, **score.metrics}.items()
        }
        found |= {f"loss_weight/{head}": weight for head, weight in record.weights.items()}
        found["learning_rate"] = record.learning_rate
    else:
        found = {
            f"estimate/{name}/{head}": value
            for name in OF_ESTIMATES
            for head, value in zip(record.heads, getattr(record, name), strict=True)
        }
    return {name: value for name, value in found.items() if math.isfinite(value)}


@runtime_checkable
class Service(Protocol):
    """Where records go."""

    known: int
    """How many records it has, the first ones."""

    def write(self, number: int, epoch: int, values: Mapping[str, float]) -> None:
        """Log the record of this number, from 0."""
        ...

    def close(self) -> None:
        """The run is finished."""
        ...


@dataclass(kw_only=True)
class Log:
    """The logs of a run. A service is opened when there is something to send, so one that does not answer at the start
    is as any other that does not answer.
    """

    makers: Mapping[str, Callable[[], Service]]
    """What opens a service, by its name."""
    say: Callable[[str], object] = print
    """Told in a line what could not be logged."""
    records: list[Record] = field(default_factory=list)
    """All that were handed over."""
    _open: dict[str, Service] = field(default_factory=dict)
    _not_before_s: dict[str, float] = field(default_factory=dict)

    def write(self, *records: Record) -> None:
        """Log records, and those that a service lacks."""
        self.records += records
        for name in self.makers:
            if time.monotonic() >= self._not_before_s.get(name, -math.inf):
                self._send(name)

    def close(self) -> None:
        """After the last record."""
        for name in self.makers:
            if not self._send(name):
                continue
            try:
                self._open[name].close()
            except Exception as error:
                self.say(f"log {name} could not be closed: {_line(error)}")

    def _send(self, name: str) -> bool:
        """Whether a service has all records now."""
        started_s = time.monotonic()
        try:
            if name not in self._open:
                self._open[name] = self.makers[name]()
            service = self._open[name]
            while service.known < len(self.records):
                service.write(service.known, self.records[service.known].epoch, points(self.records[service.known]))
                service.known += 1
        except Exception as error:  # of a service somewhere else: whatever it is, training goes on
            ended_s = time.monotonic()
            self._not_before_s[name] = ended_s + PATIENCE * max(0.0, ended_s - started_s - QUICK_S)
            if name in self._open:
                said = f"lacks {len(self.records) - self._open[name].known} records, which are kept for later"
            else:
                said = "cannot be opened, which is tried again later"
            self.say(f"log {name} {said}: {_line(error)}")
            return False
        return True


def open_log(
    names: Sequence[str], directory: str, *, run: str, settings: Mapping[str, Any], say: Callable[[str], object]
) -> Log:
    """The log of a run, begun or gone on with; on worker 0.

    Args:
        names: Of services.
        directory: Of the run; services keep the same run as long as it is there.
        run: Its name at the services.
        settings: ``config.json``.
        say: As in `Log`.
    """
    makers: dict[str, Callable[[], Service]] = {
        "tensorboard": lambda: TensorBoard(f"{directory}/{TENSORBOARD_DIRECTORY}"),
        "mlflow": lambda: MLflow(Names(f"{directory}/{LOGS_FILE}"), run=run, settings=settings),
        "wandb": lambda: WeightsAndBiases(Names(f"{directory}/{LOGS_FILE}"), run=run, settings=settings),
    }
    return Log(makers={name: makers[name] for name in names}, say=say)


class TensorBoard:
    """Event files below the run directory, written anew when a run goes on: they are ours alone."""

    def __init__(self, directory: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        delete(directory)
        self.known = 0
        self._writer = SummaryWriter(directory)

    def write(self, number: int, epoch: int, values: Mapping[str, float]) -> None:
        """As `Service` says."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """As `Service` says."""
        self._writer.close()


@dataclass(frozen=True)
class Names:
    """The document that keeps what a run is called at each service: the same run is gone on with."""

    path: str

    def of(self, service: str) -> str | None:
        """None where it has no name yet."""
        return self._read().get(service)

    def keep(self, service: str, name: str) -> None:
        """From now on."""
        write_json(self.path, {**self._read(), service: name})

    def _read(self) -> dict[str, str]:
        return read_json(self.path) if exists(self.path) else {}


class MLflow:
    """A run at the tracking server, and in the experiment, that MLflow's own environment variables name."""

    def __init__(self, names: Names, *, run: str, settings: Mapping[str, Any]) -> None:
        mlflow: Any = importlib.import_module("mlflow")
        self._mlflow, self._settings, there = mlflow, settings, names.of("mlflow")
        # Of a job before in this process, which ended without closing it.
        mlflow.end_run("KILLED")
        if there is None:
            self._run: str = mlflow.start_run(run_name=run).info.run_id
            names.keep("mlflow", self._run)
            self.known = 0
        else:
            self._run = mlflow.start_run(run_id=there).info.run_id
            history = mlflow.MlflowClient().get_metric_history(self._run, NUMBER)
            self.known = 1 + max((round(metric.value) for metric in history), default=-1)

    def write(self, number: int, epoch: int, values: Mapping[str, float]) -> None:
        """As `Service` says."""
        if number == 0:
            self._mlflow.log_params(flat(self._settings))  # Here, because a call that fails is made again.
        allowed = {re.sub(r"[^\w\-. :/]", "_", name): value for name, value in values.items()}
        self._mlflow.log_metrics({**allowed, NUMBER: float(number)}, step=epoch)

    def close(self) -> None:
        """As `Service` says."""
        self._mlflow.end_run()


class WeightsAndBiases:
    """A run in the project that its own environment variables name. Its steps are our records' numbers."""

    def __init__(self, names: Names, *, run: str, settings: Mapping[str, Any]) -> None:
        wandb: Any = importlib.import_module("wandb")
        there = names.of("wandb")
        name = secrets.token_hex(8) if there is None else there
        names.keep("wandb", name)
        self._run = wandb.init(id=name, name=run, config=dict(settings), resume="allow", reinit="finish_previous")
        self._run.define_metric("*", step_metric="epoch")
        self.known = self._run.step

    def write(self, number: int, epoch: int, values: Mapping[str, float]) -> None:
        """As `Service` says."""
        self._run.log({**values, "epoch": epoch}, step=number, commit=True)

    def close(self) -> None:
        """As `Service` says."""
        self._run.finish()


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
