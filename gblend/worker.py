"""Runs on a Ray Train worker group: the one place where training meets Ray.

Starting a group costs tens of seconds, so one group carries out a whole list of runs. Each run is decided by its
configuration and seed, and a finished one is read back, so a restarted group goes on where the list was interrupted.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import ray.train
import ray.train.torch
import torch

from gblend.config import ComputeConfig, TrainConfig
from gblend.data import load_run_data
from gblend.records import FUSED, RunResult
from gblend.runner import Runner, RunSpec, check_method, finished_run, probe_runs, run_settings, with_probes


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A list of runs over one data set."""

    data: str
    """Data set directory; every worker must be able to read it."""
    directory: str
    """Run directories go to ``<directory>/<run name>``; on several nodes, storage they share."""
    config: TrainConfig
    """Shared by all runs."""
    runs: tuple[RunSpec, ...]
    """In order; probes before the runs that read them."""

    def directory_of(self, run: RunSpec) -> str:
        """Where a run directory goes."""
        return f"{self.directory.rstrip('/')}/{run.name}"


def make_plan(data: str, directory: str, config: TrainConfig, methods: Sequence[str], seeds: Sequence[int]) -> Plan:
    """Check everything that can be checked before a cluster is asked for anything, and order the runs.

    Raises:
        ValueError: Data, methods, seeds or a run directory that is already there do not fit.
    """
    if not methods or not seeds:
        raise ValueError(f"at least one method and one seed are needed, got {list(methods)} and {list(seeds)}")
    if min(seeds) < 0:
        raise ValueError(f"seeds must not be negative, got {min(seeds)}")
    modalities = load_run_data(data, config).modalities
    for method in methods:
        check_method(method, modalities, config)
    runs = with_probes([RunSpec(method=m, seed=seed) for seed in seeds for m in methods], modalities)
    plan = Plan(data=data, directory=directory, config=config, runs=tuple(runs))
    for run in runs:
        finished_run(plan.directory_of(run), run_settings(run, config, data))
    return plan


def train_runs(plan: Plan, compute: ComputeConfig, *, storage: str) -> None:
    """Carry out a plan on a worker group of its own and wait for it.

    Args:
        plan: From `make_plan`.
        compute: Size of the group.
        storage: Directory for Ray Train's own state; shared by the nodes.
    """
    trainer = ray.train.torch.TorchTrainer(
        _work,
        train_loop_config={"plan": plan, "threads": max(1, int(compute.cpus_per_worker))},
        scaling_config=ray.train.ScalingConfig(
            num_workers=compute.workers,
            use_gpu=compute.gpus_per_worker > 0,
            resources_per_worker={"CPU": compute.cpus_per_worker}
            | ({"GPU": compute.gpus_per_worker} if compute.gpus_per_worker > 0 else {}),
        ),
        run_config=ray.train.RunConfig(
            # A new name each time: what was done before is known from the run directories, not from Ray Train.
            name=f"gblend-{time.time_ns()}",
            storage_path=storage,
            failure_config=ray.train.FailureConfig(max_failures=compute.restarts),
        ),
    )
    trainer.fit()


def _work(job: dict) -> None:
    plan: Plan = job["plan"]
    torch.set_num_threads(job["threads"])
    data = load_run_data(plan.data, plan.config)
    runner = Runner(data=data, config=plan.config, data_path=plan.data, device=ray.train.torch.get_device())
    for number, run in enumerate(plan.runs, start=1):
        needed = probe_runs(run.method, run.seed, data.modalities)
        # The probes come in the order of the heads.
        probes = dict(zip((*data.modalities, FUSED), map(plan.directory_of, needed), strict=False))
        result = runner.run(run, plan.directory_of(run), probes)
        if ray.train.get_context().get_world_rank() == 0:
            print(f"[{number}/{len(plan.runs)}] {describe(result)}", flush=True)
        ray.train.report({"finished": number, "run": run.name})


def describe(result: RunResult) -> str:
    """One line about a finished run."""
    head = FUSED if FUSED in result.heads else result.heads[0]
    scores = ", ".join(f"{split} {heads[head].accuracy:.3f}" for split, heads in result.scores.items())
    return f"{result.method} seed {result.seed}: {head} accuracy {scores}, {result.seconds:.0f} s"
