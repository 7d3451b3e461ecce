"""Carrying out a run: train what its method trains (`gblend.methods`), score it, write its directory.

Everything a method does differently is decided here in three places: which network it starts from, which loss weights
it trains with (`_Training.weights_for`), and what is kept of it at the end.
"""

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gblend import collective
from gblend.config import TrainConfig
from gblend.data import RunData
from gblend.estimate import ProbeLosses, estimate
from gblend.loop import Learner, Position, make_optimizer, train_together
from gblend.loss import LearnedWeights
from gblend.measure import measure
from gblend.methods import BLENDS, FUSED_ONLY, RunSpec, config_of, needed_runs
from gblend.model import BlendModel, make_model
from gblend.probes import Measured, measure_both, probe_losses, run_probes
from gblend.records import (
    FUSED,
    REFIT,
    EpochRecord,
    EstimateRecord,
    HeadScore,
    RunResult,
    to_json,
    write_json,
    write_lines,
)
from gblend.refit import refit
from gblend.run_files import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    HISTORY_FILE,
    HOLDOUT_FILE,
    LOSSES_FILE,
    REFIT_FILE,
    RESULT_FILE,
    WEIGHTS_FILE,
    finished_run,
    read_checkpoint,
    run_settings,
    save_checkpoint,
)
from gblend.schedule import super_epochs


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

    def run(self, spec: RunSpec, directory: str, needed: Mapping[str, str] | None = None) -> RunResult:
        """Train one run and write its directory; one that is finished with the same settings is read back.

        Args:
            spec: Method and seed.
            directory: Where the run directory goes.
            needed: For methods that build on finished runs (`gblend.methods.needed_runs`): their directories, by head.
        """
        settings = run_settings(spec, self.config, self.data, self.data_path)
        finished = finished_run(directory, settings)
        # Storage may show a result to one worker before another.
        if collective.everywhere(finished is not None, device=self.device) and finished is not None:
            return finished
        started_s = time.monotonic()
        config = config_of(spec.method, self.config)
        joint = make_model(self.data.modalities, len(self.data.classes), config.model, seed=spec.seed)
        if spec.method == "pretrain":
            for name, place in (needed or {}).items():
                _load_trunk(joint, name, f"{place}/{CHECKPOINT_FILE}")
        head = FUSED if spec.method in FUSED_ONLY else spec.method.removeprefix("uni:")
        model = (joint if spec.method in BLENDS else joint.branch(head)).to(self.device)
        work = _Training(
            data=self.data, config=config, spec=spec, model=model, needed=needed or {}, fresh_head=_fused_head(joint)
        )
        work.train()
        if spec.method in BLENDS and config.blend.refit_epochs > 0:
            work.refit()
        result = self._result(work, started_s)
        if collective.rank() == 0:
            _write_run(directory, settings, self.data, work, result)
        collective.wait_for_all()
        return result

    def _result(self, work: "_Training", started_s: float) -> RunResult:
        borrowed = len(needed_runs(work.spec, self.data.modalities, self.config)) * self.config.epochs
        return RunResult(
            method=work.spec.method,
            seed=work.spec.seed,
            heads=work.model.head_names,
            epochs=self.config.epochs,
            scores=work.scores(),
            train_clips=len(self.data.train),
            heldout_clips=len(self.data.heldout),
            excluded_clips=dict(self.data.excluded or {}),
            branch_epochs=work.branch_epochs + borrowed,
            borrowed_epochs=float(borrowed),
            train_samples=round(work.branch_epochs * len(self.data.train)),
            seconds=time.monotonic() - started_s,
            workers=collective.world_size(),
            kept_epoch=work.kept_epoch,
            refit_epochs=0 if work.refitted is None else self.config.blend.refit_epochs,
        )


@dataclass(kw_only=True)
class _Training:
    """One run while it trains."""

    data: RunData
    config: TrainConfig
    spec: RunSpec
    model: BlendModel
    needed: Mapping[str, str]
    fresh_head: Mapping[str, Tensor]
    moments: list[Measured] = field(default_factory=list)
    """The network before training and after every epoch."""
    history: list[EpochRecord] = field(default_factory=list)
    estimates: list[EstimateRecord] = field(default_factory=list)
    branch_epochs: float = 0.0
    kept_epoch: int | None = None
    refitted: BlendModel | None = None

    def train(self) -> None:
        """All epochs, super-epoch by super-epoch; the weights are decided anew at the start of each."""
        method, total, blend = self.spec.method, self.config.epochs, self.config.blend
        self._record(0, {}, 0.0)
        learned = LearnedWeights(self.model.head_names).to(_device(self.model)) if method == "uncertainty" else None
        optimizer = make_optimizer(self.model, self.config, learned)
        kept: dict[str, Tensor] = {}
        done = 0
        lengths = [total]
        if method in ("online", "tracked"):
            lengths = super_epochs(total, blend.first_epochs, blend.next_epochs)
        for length in lengths:
            ahead = Position(start_epoch=done, epochs=length)
            weights = self.weights_for(ahead) if learned is None else learned

            def after_epoch(epoch: int, rate: float, weights: Mapping[str, float] | LearnedWeights = weights) -> None:
                used = weights.values() if isinstance(weights, LearnedWeights) else weights
                self._record(epoch, used, rate)
                if method == "early-stop" and best_epoch(self.history) == epoch:
                    self.kept_epoch = epoch
                    kept.update(copy.deepcopy(self.model.state_dict()))

            train_together(
                [
                    Learner(
                        model=self.model,
                        weights=weights,
                        optimizer=optimizer,
                        ogm_alpha=blend.ogm_alpha if method == "ogm-ge" else None,
                    )
                ],
                self.data,
                self.config,
                position=ahead,
                seed=self.spec.seed,
                after_epoch=after_epoch,
            )
            self.branch_epochs += length
            done += length
        if kept:
            self.model.load_state_dict(kept)

    def weights_for(self, ahead: Position) -> dict[str, float]:
        """Loss weights of the epochs ahead."""
        heads, method, blend = self.model.head_names, self.spec.method, self.config.blend
        if len(heads) == 1:
            return {heads[0]: 1.0}
        first = ahead.start_epoch == 0
        if method == "equal" or (method == "tracked" and first):
            return dict.fromkeys(heads, 1.0 / len(heads))
        if method == "fixed":
            return dict(zip(heads, blend.fixed_weights, strict=True))
        probe_epochs = ahead.epochs
        if method == "tracked":
            probe_epochs = blend.first_epochs if len(self.estimates) == 0 else blend.next_epochs
            start, end = self.moments[ahead.start_epoch - probe_epochs], self.moments[ahead.start_epoch]
            probes = {head: probe_losses(start, end, head) for head in heads}
        elif method == "offline" or (first and blend.reuse == "offline"):
            probe_epochs = self.config.epochs
            probes = {head: ProbeLosses.load(f"{self.needed[head]}/{LOSSES_FILE}") for head in heads}
        else:
            probes = run_probes(
                self.model, self.data, self.config, start=self.moments[-1], ahead=ahead, seed=self.spec.seed
            )
            part = 1.0 if self.data.probe_part is None else len(self.data.probe_part) / len(self.data.train)
            self.branch_epochs += len(heads) * ahead.epochs * part
        found = estimate(probes, blend, epoch=ahead.start_epoch, probe_epochs=probe_epochs)
        self.estimates.append(found)
        return dict(zip(heads, found.weights, strict=True))

    def refit(self) -> None:
        """A new fused head on the trained trunks, beside the run."""
        self.refitted = refit(self.model, self.data, self.config, fresh_head=self.fresh_head, seed=self.spec.seed)

    def scores(self) -> dict[str, dict[str, HeadScore]]:
        """Every head on every split; the refitted fused head under a name of its own."""
        found: dict[str, dict[str, HeadScore]] = {}
        for split, clips in self.data.splits.items():
            measured = measure(self.model, clips, spec=self.data.spec)
            found[split] = {head: losses.score() for head, losses in measured.items()}
            if self.refitted is not None:
                found[split][REFIT] = measure(self.refitted, clips, spec=self.data.spec)[FUSED].score()
        return found

    def full_length_probe(self) -> ProbeLosses | None:
        """The branch of a single modality or of the naive run, before and after: other runs read it."""
        (head, *others) = self.model.head_names
        plain = self.spec.method == "naive" or (head != FUSED and not others)
        return probe_losses(self.moments[0], self.moments[-1], head) if plain else None

    def _record(self, epoch: int, weights: Mapping[str, float], rate: float) -> None:
        now = measure_both(self.model, self.data)
        self.moments.append(now)
        self.history.append(
            EpochRecord(
                epoch=epoch,
                train={head: losses.score() for head, losses in now.train.items()},
                heldout={head: losses.score() for head, losses in now.heldout.items()},
                weights=dict(weights),
                learning_rate=rate,
            )
        )


def best_epoch(history: Sequence[EpochRecord]) -> int:
    """Of a run with one head, the trained epoch of highest accuracy on V; of equals that of lower loss, then the first.

    By accuracy, because methods are compared by it, and because the loss turns up long before the accuracy goes down.
    """
    trained = [record for record in history if record.epoch > 0]
    (head,) = trained[0].heldout

    def badness(record: EpochRecord) -> tuple[float, float, int]:
        score = record.heldout[head]
        loss_nats = score.loss_nats if math.isfinite(score.loss_nats) else math.inf
        return -score.accuracy, loss_nats, record.epoch

    return min(trained, key=badness).epoch


def _fused_head(joint: BlendModel) -> dict[str, Tensor]:
    """A copy of the fused head's parameters."""
    return copy.deepcopy(joint.heads[FUSED].state_dict())


def _load_trunk(model: BlendModel, modality: str, checkpoint: str) -> None:
    """Give the encoder of a modality the parameters and statistics that it has in the checkpoint."""
    prefix = f"encoders.{modality}."
    stored = read_checkpoint(checkpoint)
    model.encoders[modality].load_state_dict(
        {name.removeprefix(prefix): values for name, values in stored.items() if name.startswith(prefix)}
    )


def _device(model: BlendModel) -> torch.device:
    return next(model.parameters()).device


def _write_run(directory: str, settings: dict, data: RunData, work: _Training, result: RunResult) -> None:
    """Everything, ``result.json`` last: with it, the run is finished."""
    write_json(f"{directory}/{CONFIG_FILE}", settings)
    write_json(f"{directory}/{HOLDOUT_FILE}", list(data.heldout_ids))
    write_lines(f"{directory}/{HISTORY_FILE}", work.history)
    if work.estimates:
        write_lines(f"{directory}/{WEIGHTS_FILE}", work.estimates)
    probe = work.full_length_probe()
    if probe is not None:
        probe.save(f"{directory}/{LOSSES_FILE}")
    save_checkpoint(work.model, f"{directory}/{CHECKPOINT_FILE}")
    if work.refitted is not None:
        save_checkpoint(work.refitted.heads[FUSED], f"{directory}/{REFIT_FILE}")
    write_json(f"{directory}/{RESULT_FILE}", to_json(result))
