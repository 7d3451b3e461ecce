"""Runs on a group of Ray Train workers (`gblend.group`).

Starting a group costs tens of seconds, so one group carries out a whole list of runs. Each run is decided by its
configuration and seed. A finished one is read back and one that was stopped goes on, so a restarted group, or the same
command given again, continues the list where it was interrupted.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import ray.train
import ray.train.torch
import torch

from gblend.batches import training_batches
from gblend.cluster import hint, node_here, nodes, require_room
from gblend.config import ComputeConfig, TrainConfig
from gblend.cost import branch_epochs, network_epochs, rest_in_words
from gblend.data import RunData, load_run_data
from gblend.evaluation import evaluate, open_evaluation
from gblend.feeder import Feeding, tight_cache
from gblend.group import in_group
from gblend.heads import of_each_task
from gblend.judge import without_test
from gblend.lines import Lines, print_line
from gblend.logs import require_packages
from gblend.loss import class_weights_by_task
from gblend.methods import RunSpec, check_methods, needed_runs, with_needed
from gblend.model import make_model
from gblend.placement import readers_each, require_torch_ingest
from gblend.prepare import prepare
from gblend.probe_groups import probe_groups, workers_here
from gblend.ray_feeder import OPEN_SETS, feed_from_ray
from gblend.records import RunResult, to_json, write_json
from gblend.run_files import STATE_DIRECTORY, finished_run, run_settings, settings_to_keep, what_decides
from gblend.runner import Runner
from gblend.scores import metric_words
from gblend.state_files import require_workers
from gblend.storage import delete
from gblend.views import Views


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A list of runs over one data set."""

    data: str
    """Data set directory; every worker must be able to read it."""
    config: TrainConfig
    """Shared by all runs."""
    places: dict[RunSpec, str]
    """Runs in order, each after those it builds on, each with its directory; on several nodes, storage they
    share."""
    costs: dict[RunSpec, float]
    """Of those that are not finished, each from its start: branch-epochs (`gblend.cost`)."""
    times: dict[RunSpec, float]
    """Of the same: epochs of the joint network (`gblend.cost`), which tell how long a run takes beside another."""
    test: Literal["scored", "hidden"] = "scored"
    """Whether they are scored on the test split."""

    @property
    def pending(self) -> int:
        """How many of them are not finished."""
        return len(self.costs)

    @property
    def branch_epochs(self) -> float:
        """What these cost."""
        return sum(self.costs.values())

    @property
    def network_epochs(self) -> float:
        """How long these take."""
        return sum(self.times.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationJob:
    """A finished run, and what to score it on."""

    run: str
    """Run directory; every worker must be able to read it."""
    data: str
    """Data set directory, likewise."""
    split: str
    """Its split."""
    views: Views
    """Windows of every clip."""
    out: str
    """JSON file to write."""


def make_plan(
    data: str,
    config: TrainConfig,
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    compute: ComputeConfig,
    place: Callable[[RunSpec], str],
    behind: Sequence[str] = (),
    test: Literal["scored", "hidden"] = "scored",
) -> Plan:
    """Check everything that can be checked before a cluster is asked for anything, and order the runs.

    Args:
        data: Data set directory.
        config: Shared by all runs.
        methods: Names of `gblend.methods`.
        seeds: Every method runs once with each.
        compute: How many workers there will be.
        place: Run directory of a run.
        behind: Methods of runs elsewhere that build on these: what they read is set for a reason.
        test: Whether the runs are scored on the test split.

    Raises:
        ValueError: Data, methods, seeds, networks or a run directory that is already there do not fit.
    """
    if not methods or not seeds:
        raise ValueError(f"at least one method and one seed are needed, got {list(methods)} and {list(seeds)}")
    if min(seeds) < 0:
        raise ValueError(f"seeds must not be negative, got {min(seeds)}")
    require_packages(compute.log)
    loaded = load_run_data(data, config)
    modalities = loaded.modalities
    check_methods([*methods, *behind], modalities, config, loaded.tasks)
    class_weights_by_task(config.loss, loaded.class_counts or {}, loaded.tasks, torch.device("cpu"))
    # An epoch's first batches show whether there are clips enough for every worker.
    for clips in (loaded.train, loaded.probe_part or loaded.train):
        training_batches(
            len(clips),
            batch_size=config.batch_size,
            entropy=(0,),
            rank=0,
            world=compute.workers,
            micro_batches=config.micro_batches,
        )
    runs = with_needed([RunSpec(method=m, seed=seed) for seed in seeds for m in methods], modalities, config)
    places = {run: place(run) for run in runs}
    costs: dict[RunSpec, float] = {}
    times: dict[RunSpec, float] = {}
    share = 1.0 if loaded.probe_part is None else len(loaded.probe_part) / len(loaded.train)
    for run, where in places.items():
        settings, states = run_settings(run, config, loaded, data), f"{where}/{STATE_DIRECTORY}"
        if finished_run(where, settings) is None:
            if compute.min_workers is None:
                require_workers(states, what_decides(settings_to_keep(where, settings)), compute.workers)
            costs[run] = branch_epochs(run.method, config, modalities=len(modalities), probe_share=share)
            times[run] = network_epochs(run.method, config, modalities=len(modalities), probe_share=share)
        else:
            delete(states)  # of a job that was killed just before it did this itself
    if costs:
        # Made once and thrown away: a network that cannot be made must not cost the start of a worker group.
        network = make_model(modalities, loaded.classes, config.model, seed=seeds[0], shapes=loaded.shapes)
        prepare(network, config, compute)
    return Plan(data=data, config=config, places=places, costs=costs, times=times, test=test)


def train_runs(
    plan: Plan,
    compute: ComputeConfig,
    *,
    storage: str,
    more: Sequence[Plan] = (),
    say: Callable[[str], object] = print_line,
    step: Callable[[float, float, str], object] | None = None,
    room: Literal["check", "checked"] = "check",
) -> None:
    """Carry out a plan on a worker group of its own and wait for it.

    A line is said per finished run, and where a run that was stopped goes on.

    Args:
        plan: From `make_plan`.
        compute: Size of the group.
        storage: Directory, shared by the nodes, below which Ray Train keeps its own state until the end.
        more: Plans of the same data with other settings, for the same group afterwards.
        say: Told such a line.
        step: Told how many epochs of the network of how many are done, and where that is; lines do not say that then.
        room: Whether there is room for the workers is asked here, where it can be told; ``checked``: it was asked in
            another process, on the head node, and workers that have none now wait for some.

    Raises:
        RuntimeError: A worker failed, and failed again after ``compute.restarts`` restarts.
        ValueError: There is no room for the workers, for a second group of them where probes are to be spread, or for
            Ray Data where it is to read clips, and nothing that adds nodes.
    """
    plans = [plan, *more]
    spread = any(p.config.blend.probes == "spread" and any(run.method == "online" for run in p.places) for p in plans)
    if spread:
        require_torch_ingest(compute)
    if room == "check":
        require_room(compute, spread=spread)
    if (line := hint(compute)) is not None:
        say(line)
    with probe_groups(plan.data, compute, say=say) if spread else nullcontext() as desk:
        in_group(
            _work, {"plans": plans, "compute": compute, "desk": desk}, compute, storage=storage, say=say, step=step
        )


def evaluate_run(
    job: EvaluationJob,
    compute: ComputeConfig,
    *,
    storage: str,
    say: Callable[[str], object] = print_line,
    step: Callable[[float, float, str], object] | None = None,
) -> None:
    """Score a finished run on a worker group of its own and wait for it; worker 0 writes the result.

    Args:
        job: What to score.
        compute: Size of the group.
        storage: As of `train_runs`.
        say: Told now and then how far it is.
        step: Told that in place of ``say``: how many clips of how many are done, of which split.

    Raises:
        RuntimeError: As `train_runs`.
        ValueError: There is no room for the workers, and nothing that adds nodes.
    """
    require_room(compute, spread=False)
    in_group(_score, {"job": job, "compute": compute}, compute, storage=storage, say=say, step=step)


def _work(job: dict) -> None:
    compute: ComputeConfig = job["compute"]
    plans: list[Plan] = job["plans"]
    here = ray.train.get_context().get_local_world_size() if job["desk"] is None else workers_here(compute)
    lines: Lines = job["lines"]
    done, total = 0, sum(len(plan.places) for plan in plans)
    spent, takes, whole = 0.0, 0.0, sum(plan.network_epochs for plan in plans)
    seconds = 0.0

    def step(share: float, where: str) -> None:
        lines.step(spent + share * takes, whole, where)

    for plan in plans:
        data, device = open_data(plan.data, plan.config, compute, here=here, say=lines.put)
        data = data if plan.test == "scored" else without_test(data, plan.data)
        runner = Runner(
            data=data,
            config=plan.config,
            data_path=plan.data,
            device=device,
            compute=compute,
            elsewhere=job["desk"],
            say=lines.put,
            step=step if lines.counted else None,
        )
        for run, directory in plan.places.items():
            takes = plan.times.get(run, 0.0)
            needed = needed_runs(run, data.modalities, plan.config)
            result = runner.run(run, directory, {head: plan.places[other] for head, other in needed.items()})
            done, spent, seconds = done + 1, spent + takes, seconds + (result.seconds if takes else 0.0)
            if ray.train.get_context().get_world_rank() == 0:
                # A bar has said so already.
                rest = "" if lines.counted else rest_in_words(seconds=seconds, done=spent, whole=whole)
                lines.put(f"[{done}/{total}] {describe(result)}{rest}")
            ray.train.report({"finished": done, "run": run.name})


def open_data(
    data: str, config: TrainConfig, compute: ComputeConfig, *, here: int, say: Callable[[str], object]
) -> tuple[RunData, torch.device]:
    """What a worker of a group trains on, and where; ``here`` workers share the cache of its node."""
    torch.set_num_threads(max(1, int(compute.cpus_per_worker)))
    device = ray.train.torch.get_device()
    if compute.ingest == "ray":
        here = OPEN_SETS * max(1, int(node_here().get("CPU", 0.0)))  # Any CPU of a node may come to read any set.
    loaded = load_run_data(data, config, Feeding.of(compute, device=device, workers_here=here))
    if compute.ingest == "ray":
        feed_from_ray(loaded, readers=readers_each(nodes(), compute))
    if ray.train.get_context().get_world_rank() == 0:
        line = tight_cache([loaded.train, loaded.heldout, *loaded.splits.values()])
        if line is not None:
            say(line)
    return loaded, device


def _score(settings: dict) -> None:
    job: EvaluationJob = settings["job"]
    compute: ComputeConfig = settings["compute"]
    torch.set_num_threads(max(1, int(compute.cpus_per_worker)))
    device, here = ray.train.torch.get_device(), ray.train.get_context().get_local_world_size()
    feeding = Feeding.of(compute, device=device, workers_here=here)
    trained, data = open_evaluation(job.run, job.data, job.split, job.views, feeding)
    trained.to(device)
    lines: Lines = settings["lines"]
    found = evaluate(trained, data, say=lines.put, step=lines.step if lines.counted else None)
    if ray.train.get_context().get_world_rank() == 0:
        write_json(job.out, to_json(found))
    ray.train.report({"clips": found.clips})


def describe(result: RunResult) -> str:
    """One line about a finished run."""
    judged = {split: score for split in result.scores if (score := result.judged(split)) is not None}
    metric = metric_words(next(iter(judged.values())).metric)
    scores = ", ".join(f"{split} {score.value:.3f}" for split, score in judged.items())
    together = " of all tasks together" if len(of_each_task(result.heads)) > 1 else ""
    return f"{result.method} seed {result.seed}: {result.primary} {metric}{together} {scores}, {result.seconds:.0f} s"
