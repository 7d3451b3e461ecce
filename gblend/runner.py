"""Carrying out a run: make the network its method starts from, train it, write its directory.

A run that was stopped goes on from its newest saved state, when it is carried out again in the same directory.
"""

import copy
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from gblend import collective
from gblend.config import ComputeConfig, TrainConfig
from gblend.cost import Pace
from gblend.data import RunData
from gblend.ensemble import Ensemble, join_runs
from gblend.heads import FUSED, head_names
from gblend.logs import open_log
from gblend.methods import BLENDS, ENSEMBLES, FUSED_ONLY, RunSpec, config_of, needed_runs
from gblend.model import BlendModel, make_model
from gblend.moments import save_moments
from gblend.outputs import save_outputs
from gblend.prepare import prepare
from gblend.probe_task import Elsewhere
from gblend.records import (
    MEAN,
    EpochRecord,
    EstimateRecord,
    RunResult,
    judged_by,
    to_json,
    write_json,
    write_lines,
)
from gblend.run_files import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    HISTORY_FILE,
    HOLDOUT_FILE,
    INPUTS_FILE,
    LOSSES_FILE,
    OUTPUTS_FILE,
    REFIT_FILE,
    RESULT_FILE,
    STATE_DIRECTORY,
    WEIGHTS_FILE,
    finished_run,
    read_checkpoint,
    run_settings,
    save_checkpoint,
    settings_to_keep,
    what_decides,
)
from gblend.state_files import StateFiles
from gblend.training import Training


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
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """How often to save, how to compute and what to log."""
    elsewhere: Elsewhere | None = None
    """Where ``spread`` probes train, for worker 0."""
    say: Callable[[str], object] = print
    """Told in a line now and then where a run is, what estimates will cost, and where a stopped run goes on; called on
    one worker."""
    step: Callable[[float, str], object] | None = None
    """Told in place of such lines, once a second, what share of a run is done, and where that is; on one worker."""
    after_epoch: Callable[[Training], object] | None = None
    """As in `Training`."""

    def run(self, spec: RunSpec, directory: str, needed: Mapping[str, str] | None = None) -> RunResult:
        """Train one run and write its directory. One that is finished is read back, one that was stopped goes on.

        Args:
            spec: Method and seed.
            directory: Where the run directory goes.
            needed: For methods that build on finished runs (`gblend.methods.needed_runs`): their directories, by head.

        Raises:
            ValueError: A run is there, finished or not, that has other settings; one that was stopped had another
                number of workers, and ``compute.min_workers`` does not allow that.
        """
        settings = run_settings(spec, self.config, self.data, self.data_path)
        finished = finished_run(directory, settings)
        settings = settings_to_keep(directory, settings)
        files = StateFiles(
            directory=f"{directory}/{STATE_DIRECTORY}",
            settings=what_decides(settings),
            device=self.device,
            other_sizes="refuse" if self.compute.min_workers is None else "allow",
            say=self.say,
        )
        # Storage may show a result to one worker before another.
        if collective.everywhere(finished is not None, device=self.device) and finished is not None:
            files.delete()  # of a run that was stopped just before it did this itself
            return finished
        started_s = time.monotonic()
        if collective.rank() == 0:
            write_json(f"{directory}/{CONFIG_FILE}", settings)
        if spec.method in ENSEMBLES:
            work = join_runs(needed or {}, self.data.tasks)
        else:
            work = self._train(spec, needed or {}, files, directory, settings, started_s)
            started_s = work.started_s
        result = judged_by(self._result(spec, work, started_s), self.config.predict_by)
        if collective.rank() == 0:
            _write_run(directory, self.data, work, result)
        files.delete()
        collective.wait_for_all()
        return result

    def _train(
        self,
        spec: RunSpec,
        needed: Mapping[str, str],
        files: StateFiles,
        directory: str,
        settings: Mapping[str, Any],
        started_s: float,
    ) -> Training:
        config = config_of(spec.method, self.config)
        joint = make_model(
            self.data.modalities, self.data.classes, config.model, seed=spec.seed, shapes=self.data.shapes
        )
        if spec.method == "pretrain":
            for name, place in needed.items():
                _load_trunk(joint, name, f"{place}/{CHECKPOINT_FILE}")
        fresh_head = copy.deepcopy(joint.heads[FUSED].state_dict())
        head = FUSED if spec.method in FUSED_ONLY else spec.method.removeprefix("uni:")
        model = (joint if spec.method in BLENDS else joint.branch(head)).to(self.device)
        prepare(model, config, self.compute)
        work = Training(
            data=self.data,
            config=config,
            spec=spec,
            model=model,
            needed=needed,
            fresh_head=fresh_head if spec.method in BLENDS and config.blend.refit_epochs > 0 else None,
            files=files,
            checkpoint_every=self.compute.checkpoint_every,
            elsewhere=self.elsewhere,
            after_epoch=self.after_epoch,
            started_s=started_s,
        )
        whole = work.steps_left()
        state = files.newest()
        if state is not None:
            work.restore(state)
            if collective.rank() == 0:
                self.say(f"{work.title} was stopped and goes on: {work.in_words}")
        if collective.rank() == 0:
            work.pace = Pace(say=self.say, step=self.step, whole=whole)
        with ExitStack() as open_logs:
            if collective.rank() == 0:
                write: list[Callable[..., None]] = [partial(_write_records, directory, work)]
                if self.compute.log:
                    log = open_log(self.compute.log, directory, run=spec.name, settings=settings, say=self.say)
                    open_logs.callback(log.close)
                    write.append(log.write)
                for each in write:
                    each(*work.records)
                work.after_record = lambda record: [each(record) for each in write]
            work.train()
        work.score()
        return work

    def _result(self, spec: RunSpec, work: Training | Ensemble, started_s: float) -> RunResult:
        trained = work if isinstance(work, Training) else None
        own = 0.0 if trained is None else trained.branch_epochs
        borrowed = len(needed_runs(spec, self.data.modalities, self.config)) * self.config.epochs
        refitted = trained is not None and trained.refitted is not None
        return RunResult(
            method=spec.method,
            seed=spec.seed,
            heads=head_names(self.data.tasks, (MEAN,)) if trained is None else trained.model.head_names,
            epochs=self.config.epochs,
            scores=work.scores,
            predictions=work.predictions,
            train_clips=len(self.data.train),
            heldout_clips=len(self.data.heldout),
            excluded_clips=dict(self.data.excluded or {}),
            unlabelled_clips={split: count for split, count in (self.data.unlabelled or {}).items() if count},
            untrained_classes={
                key: missing
                for key, counts in (self.data.class_counts or {}).items()
                if (missing := sum(count == 0 for count in counts))
            },
            branch_epochs=own + borrowed,
            borrowed_epochs=float(borrowed),
            train_samples=round(own * len(self.data.train)),
            seconds=time.monotonic() - started_s,
            workers=collective.world_size(),
            earlier_workers=() if trained is None else tuple(trained.workers[:-1]),
            kept_epoch=None if trained is None else trained.kept_epoch,
            refit_epochs=self.config.blend.refit_epochs if refitted else 0,
        )


def _load_trunk(model: BlendModel, modality: str, checkpoint: str) -> None:
    """Give the encoder of a modality the parameters and statistics that it has in the checkpoint."""
    prefix = f"encoders.{modality}."
    stored = read_checkpoint(checkpoint)
    model.encoders[modality].load_state_dict(
        {name.removeprefix(prefix): values for name, values in stored.items() if name.startswith(prefix)}
    )


def _write_records(directory: str, work: Training, *new: EpochRecord | EstimateRecord) -> None:
    """Write those files anew to which ``new`` records belong."""
    if any(isinstance(record, EpochRecord) for record in new):
        write_lines(f"{directory}/{HISTORY_FILE}", work.history)
    if any(isinstance(record, EstimateRecord) for record in new):
        write_lines(f"{directory}/{WEIGHTS_FILE}", work.estimates)


def _write_run(directory: str, data: RunData, work: Training | Ensemble, result: RunResult) -> None:
    """Everything but settings and records, which are there; ``result.json`` last: with it, the run is finished."""
    write_json(f"{directory}/{HOLDOUT_FILE}", list(data.heldout_ids))
    if data.inputs is not None:
        write_json(f"{directory}/{INPUTS_FILE}", data.inputs.to_json())
    save_outputs(f"{directory}/{OUTPUTS_FILE}", work.outputs)
    if isinstance(work, Training):
        probe = work.full_length_probe()
        if probe:
            save_moments(f"{directory}/{LOSSES_FILE}", probe)
        save_checkpoint(work.model, f"{directory}/{CHECKPOINT_FILE}")
        if work.refitted is not None:
            save_checkpoint(work.refitted.heads[FUSED], f"{directory}/{REFIT_FILE}")
    write_json(f"{directory}/{RESULT_FILE}", to_json(result))
