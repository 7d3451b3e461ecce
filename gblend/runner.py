"""Runs: what each method trains, and what a run directory is filled with.

    uni:<modality>   the branch of that modality's head           N epochs
    naive            the branch of the fused head                 N
    equal            all heads, equal weights, sum 1              N
    fixed            all heads, weights given by hand             N
    offline          all heads, weights from full-length probes   N + (k + 1) N   (Algorithm 2)
    online           all heads, weights per super-epoch           N + (k + 1) N   (Algorithm 3)

Offline's probes are the uni-modal and naive runs of the same seed: they are trained once and, in a comparison, appear
as rows of their own. No run, whatever its method, trains on V.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import fsspec
import torch
from torch import nn

from gblend import collective
from gblend.config import TrainConfig
from gblend.data import RunData
from gblend.estimate import ProbeLosses, estimate, probe_losses
from gblend.loop import Position, make_optimizer, train
from gblend.measure import HeadLosses, measure, measure_outputs
from gblend.model import BlendModel, make_model
from gblend.outputs import HELDOUT, HeadOutputs, save_outputs
from gblend.predictions import score_heads, score_predictions
from gblend.records import (
    FUSED,
    EpochRecord,
    EstimateRecord,
    RunResult,
    read_json,
    run_result,
    to_json,
    write_json,
    write_lines,
)
from gblend.schedule import super_epochs

BLENDS = ("equal", "fixed", "offline", "online")
"""Methods that train all heads of the joint network."""

CONFIG_FILE, RESULT_FILE = "config.json", "result.json"
HISTORY_FILE, WEIGHTS_FILE = "history.jsonl", "weights.jsonl"
CHECKPOINT_FILE, LOSSES_FILE, HOLDOUT_FILE = "checkpoint.pt", "losses.npz", "holdout.json"
OUTPUTS_FILE = "predictions.npz"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSpec:
    """One run of one method."""

    method: str
    """A name of the table above."""
    seed: int
    """Decides initialisation, batches, windows and dropout."""

    @property
    def name(self) -> str:
        """Directory name.

        >>> RunSpec(method="uni:rgb", seed=3).name
        'uni-rgb-s3'
        """
        return f"{self.method.replace(':', '-')}-s{self.seed}"


def check_method(method: str, modalities: tuple[str, ...], config: TrainConfig) -> None:
    """Raise ``ValueError`` unless ``method`` is defined for these modalities."""
    if len(modalities) < 2:
        raise ValueError(f"blending needs at least two modalities, this run has: {', '.join(modalities)}")
    allowed = [f"uni:{name}" for name in modalities] + ["naive", *BLENDS]
    if method not in allowed:
        raise ValueError(f"unknown method {method!r}; allowed here: {', '.join(allowed)}")
    config.blend.check_heads(len(modalities) + 1)
    fixed = config.blend.fixed_weights
    if fixed and method != "fixed":
        raise ValueError(f"blend.fixed_weights is read by method fixed only, not by {method}; leave it out")
    if method == "fixed" and (len(fixed) != len(modalities) + 1 or min(fixed) < 0 or sum(fixed) == 0):
        raise ValueError(
            f"method fixed needs blend.fixed_weights: one non-negative number for each of {', '.join(modalities)} and "
            f"the fused head, not all 0; got {list(fixed)}"
        )


def probe_runs(method: str, seed: int, modalities: tuple[str, ...]) -> tuple[RunSpec, ...]:
    """Runs that must be finished before this one, because it reads their losses.

    >>> [run.method for run in probe_runs("offline", 0, ("rgb", "logmel"))]
    ['uni:rgb', 'uni:logmel', 'naive']
    """
    if method != "offline":
        return ()
    return tuple(RunSpec(method=m, seed=seed) for m in (*(f"uni:{name}" for name in modalities), "naive"))


def with_probes(runs: list[RunSpec], modalities: tuple[str, ...]) -> list[RunSpec]:
    """The runs and the probes they need, each once, probes first."""
    ordered: dict[RunSpec, None] = {}
    for run in runs:
        for needed in (*probe_runs(run.method, run.seed, modalities), run):
            ordered.setdefault(needed)
    return list(ordered)


def run_settings(spec: RunSpec, config: TrainConfig, data: RunData, data_path: str) -> dict[str, Any]:
    """``config.json``: everything that decides the run."""
    return {
        **config.to_json(),
        "method": spec.method,
        "seed": spec.seed,
        "data": data_path,
        "data_fingerprint": data.fingerprint,
    }


def finished_run(directory: str, settings: dict[str, Any]) -> RunResult | None:
    """The result of a finished run, None when there is none.

    Raises:
        ValueError: It was made with other settings.
    """
    fs, place = fsspec.core.url_to_fs(directory)
    if not fs.exists(f"{place}/{RESULT_FILE}"):
        return None
    found = read_json(f"{directory}/{CONFIG_FILE}")
    if found != settings:
        changes = [
            f"{key}: {found.get(key)} there, {settings.get(key)} now"
            for key in sorted({*found, *settings})
            if found.get(key) != settings.get(key)
        ]
        raise ValueError(
            f"{directory} holds a finished run with other settings ({'; '.join(changes)}); "
            "choose another --out or delete it"
        )
    return run_result(read_json(f"{directory}/{RESULT_FILE}"))


@dataclass(kw_only=True)
class Runner:
    """Carries out runs, one after another, on all workers together; worker 0 writes."""

    data: RunData
    """Clips."""
    config: TrainConfig
    """Shared by all runs."""
    data_path: str
    """Where the clips come from, for ``config.json``."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where this worker computes."""

    def run(self, spec: RunSpec, directory: str, probes: Mapping[str, str] | None = None) -> RunResult:
        """Train one run and write its directory; one that is finished with the same settings is read back.

        Args:
            spec: Method and seed.
            directory: Where the run directory goes.
            probes: For ``offline``: directory of every head's finished probe run.
        """
        settings = run_settings(spec, self.config, self.data, self.data_path)
        finished = finished_run(directory, settings)
        # Storage may show a result to one worker before another.
        if collective.everywhere(finished is not None, device=self.device) and finished is not None:
            return finished
        started_s = time.monotonic()
        joint = make_model(self.data.modalities, len(self.data.classes), self.config.model, seed=spec.seed)
        branch = FUSED if spec.method == "naive" else spec.method.removeprefix("uni:")
        model = joint if spec.method in BLENDS else joint.branch(branch)
        work = _Training(data=self.data, config=self.config, model=model.to(self.device), seed=spec.seed)
        if spec.method in BLENDS:
            work.blend(spec.method, {head: f"{place}/{LOSSES_FILE}" for head, place in (probes or {}).items()})
        else:
            work.alone()
        sets = {HELDOUT: self.data.heldout, **self.data.splits}
        work.outputs = {split: measure_outputs(work.model, clips, spec=self.data.spec) for split, clips in sets.items()}
        result = self._result(spec, work, time.monotonic() - started_s)
        if collective.rank() == 0:
            _write_run(directory, settings, self.data, work, result)
        collective.wait_for_all()
        return result

    def _result(self, spec: RunSpec, work: "_Training", seconds: float) -> RunResult:
        scored = {split: work.outputs[split] for split in self.data.splits}
        borrowed = len(self.data.modalities) + 1 if spec.method == "offline" else 0
        return RunResult(
            method=spec.method,
            seed=spec.seed,
            heads=work.model.head_names,
            epochs=self.config.epochs,
            scores={split: score_heads(outputs) for split, outputs in scored.items()},
            predictions=score_predictions(work.outputs[HELDOUT], scored) if len(work.model.head_names) > 1 else None,
            train_clips=len(self.data.train),
            heldout_clips=len(self.data.heldout),
            excluded_clips=dict(self.data.excluded or {}),
            branch_epochs=float(work.branch_epochs + borrowed * self.config.epochs),
            borrowed_epochs=float(borrowed * self.config.epochs),
            train_samples=work.branch_epochs * len(self.data.train),
            seconds=seconds,
            workers=collective.world_size(),
        )


@dataclass(kw_only=True)
class _Training:
    """One run while it trains."""

    data: RunData
    config: TrainConfig
    model: BlendModel
    seed: int
    history: list[EpochRecord] = field(default_factory=list)
    estimates: list[EstimateRecord] = field(default_factory=list)
    losses: ProbeLosses | None = None
    outputs: dict[str, HeadOutputs] = field(default_factory=dict)
    branch_epochs: int = 0

    def alone(self) -> None:
        """One branch with weight 1: a baseline, and the full-length probe of its head."""
        (head,) = self.model.head_names
        everything = Position(start_epoch=0, epochs=self.config.epochs)
        start = self._record(0, {}, 0.0)
        ends = [start]
        train(
            self.model,
            self.data,
            self.config,
            weights={head: 1.0},
            position=everything,
            seed=self.seed,
            after_epoch=lambda epoch, rate: ends.append(self._record(epoch, {head: 1.0}, rate)),
        )
        self.branch_epochs += self.config.epochs
        self.losses = probe_losses([(on_train[head], on_valid[head]) for on_train, on_valid in ends], self.config.blend)

    def blend(self, method: str, probe_losses: Mapping[str, str]) -> None:
        """All heads; the weights are decided anew at the start of every super-epoch."""
        blend, total = self.config.blend, self.config.epochs
        optimizer = make_optimizer(self.model, self.config)
        self._record(0, {}, 0.0)
        done = 0
        lengths = super_epochs(total, blend.first_epochs, blend.next_epochs) if method == "online" else [total]
        for length in lengths:
            weights = self._weights(method, Position(start_epoch=done, epochs=length), probe_losses)
            train(
                self.model,
                self.data,
                self.config,
                weights=weights,
                position=Position(start_epoch=done, epochs=length),
                seed=self.seed,
                optimizer=optimizer,
                after_epoch=lambda epoch, rate, weights=weights: self._record(epoch, weights, rate),
            )
            self.branch_epochs += length
            done += length

    def _weights(self, method: str, ahead: Position, probe_losses: Mapping[str, str]) -> dict[str, float]:
        heads = self.model.head_names
        total = self.config.blend.total(len(heads))
        if method == "equal":
            return dict.fromkeys(heads, total / len(heads))
        if method == "fixed":
            given = self.config.blend.fixed_weights
            return dict(zip(heads, given, strict=True))
        if method == "offline":
            probes = {head: ProbeLosses.load(probe_losses[head]) for head in heads}
        else:
            probes = {head: self._probe(head, ahead) for head in heads}
        found = estimate(
            probes,
            self.config.blend,
            epoch=ahead.start_epoch,
            probe_epochs=ahead.epochs,
            previous=self.estimates[-1].weights if self.estimates else (),
        )
        self.estimates.append(found)
        return {head: total * weight for head, weight in zip(heads, found.weights, strict=True)}

    def _probe(self, head: str, ahead: Position) -> ProbeLosses:
        """Train a copy of one branch alone over the epochs ahead, and discard it."""
        branch = self.model.branch(head)
        ends = [self._measure(branch)]
        every_epoch = self.config.blend.probe_end == "best-v"
        train(
            branch,
            self.data,
            self.config,
            weights={head: 1.0},
            position=ahead,
            seed=self.seed,
            stream=1 + ahead.start_epoch,
            after_epoch=(lambda _epoch, _rate: ends.append(self._measure(branch))) if every_epoch else None,
        )
        self.branch_epochs += ahead.epochs
        if not every_epoch:
            ends.append(self._measure(branch))
        return probe_losses([(on_train[head], on_valid[head]) for on_train, on_valid in ends], self.config.blend)

    def _measure(self, model: BlendModel) -> tuple[dict[str, HeadLosses], dict[str, HeadLosses]]:
        """On T' and on V."""
        return (
            measure(model, self.data.train, self.data.train_slice, spec=self.data.spec),
            measure(model, self.data.heldout, spec=self.data.spec),
        )

    def _record(
        self, epoch: int, weights: Mapping[str, float], rate: float
    ) -> tuple[dict[str, HeadLosses], dict[str, HeadLosses]]:
        on_train, on_heldout = self._measure(self.model)
        self.history.append(
            EpochRecord(
                epoch=epoch,
                train={head: losses.score() for head, losses in on_train.items()},
                heldout={head: losses.score() for head, losses in on_heldout.items()},
                weights=dict(weights),
                learning_rate=rate,
            )
        )
        return on_train, on_heldout


def save_checkpoint(model: nn.Module, path: str) -> None:
    """Parameters and buffers only."""
    fs, place = fsspec.core.url_to_fs(path)
    with fs.open(place, "wb") as file:
        torch.save(model.state_dict(), file)


def load_checkpoint(model: nn.Module, path: str) -> None:
    """Read `save_checkpoint`'s file into a network of the same shape; runs no code from it."""
    fs, place = fsspec.core.url_to_fs(path)
    with fs.open(place, "rb") as file:
        model.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))


def _write_run(directory: str, settings: dict, data: RunData, work: _Training, result: RunResult) -> None:
    """Everything, ``result.json`` last: with it, the run is finished."""
    write_json(f"{directory}/{CONFIG_FILE}", settings)
    write_json(f"{directory}/{HOLDOUT_FILE}", list(data.heldout_ids))
    write_lines(f"{directory}/{HISTORY_FILE}", work.history)
    if work.estimates:
        write_lines(f"{directory}/{WEIGHTS_FILE}", work.estimates)
    if work.losses is not None:
        work.losses.save(f"{directory}/{LOSSES_FILE}")
    save_outputs(f"{directory}/{OUTPUTS_FILE}", work.outputs)
    save_checkpoint(work.model, f"{directory}/{CHECKPOINT_FILE}")
    write_json(f"{directory}/{RESULT_FILE}", to_json(result))
