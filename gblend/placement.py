"""How many groups of workers a cluster has room for: arithmetic over the resources of its nodes."""

import math
from collections.abc import Iterable, Mapping

from gblend.config import ComputeConfig

Resources = Mapping[str, float]
"""By Ray's names: CPU, GPU and others."""


def resources_of(compute: ComputeConfig) -> dict[str, float]:
    """What one worker holds.

    >>> resources_of(ComputeConfig(cpus_per_worker=2.0))
    {'CPU': 2.0}
    """
    gpus = {"GPU": compute.gpus_per_worker} if compute.gpus_per_worker > 0 else {}
    return {"CPU": compute.cpus_per_worker, **gpus}


def room(nodes: Iterable[Resources], worker: Resources) -> int:
    """Workers that the nodes can hold together, when they hold nothing else.

    >>> room([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 3.0}], {"CPU": 1.5})
    4
    >>> room([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 3.0}], {"CPU": 1.0, "GPU": 0.5})
    2
    """
    # Of 1 CPU there are 10 tenths, and not 9.
    return sum(
        min(math.floor(node.get(name, 0.0) / amount + 1e-6) for name, amount in worker.items()) for node in nodes
    )


def groups_beside(nodes: Iterable[Resources], worker: Resources, *, workers: int) -> int:
    """Groups of as many workers as a run has that fit beside its own.

    >>> groups_beside([{"CPU": 8.0}], {"CPU": 1.0}, workers=2)
    3
    """
    return room(nodes, worker) // workers - 1


def require_torch_ingest(compute: ComputeConfig) -> None:
    """Raise ``ValueError`` when the clips are read on the CPUs that groups would be placed on."""
    if compute.ingest == "ray":
        raise ValueError(
            "--ingest ray reads clips on all CPUs that training leaves, where --blend.probes spread would place its "
            "groups; use --ingest torch, or --blend.probes shared"
        )


def require_workers(nodes: Iterable[Resources], compute: ComputeConfig) -> None:
    """Raise ``ValueError`` when there is no room for the fewest workers a run goes on with.

    >>> require_workers([{"CPU": 2.0}], ComputeConfig(workers=3))
    Traceback (most recent call last):
    ...
    ValueError: 3 workers of 1 CPU each do not fit on the cluster, which has room for 2; use fewer --workers, less for
    each of them, or more nodes (where they are still joining, start again when they are there)
    """
    fewest, worker = compute.min_workers or compute.workers, resources_of(compute)
    there = room(nodes, worker)
    if there < fewest:
        raise ValueError(
            f"{fewest} workers of {_each(worker)} each do not fit on the cluster, which has room for {there}; use "
            "fewer --workers, less for each of them, or more nodes (where they are still joining, start again when "
            "they are there)"
        )


def readers_each(nodes: Iterable[Resources], compute: ComputeConfig) -> int:
    """CPUs that read for each training worker, at least one: an equal share of those that training leaves.

    >>> readers_each([{"CPU": 8.0}, {"CPU": 4.0}], ComputeConfig(workers=2))
    5
    """
    return max(1, int(_left(nodes, compute) // compute.workers))


def require_readers(nodes: Iterable[Resources], compute: ComputeConfig) -> None:
    """Raise ``ValueError`` when training leaves fewer CPUs than it has workers."""
    nodes = list(nodes)
    left = _left(nodes, compute)
    if left < compute.workers:
        raise ValueError(
            f"ingest ray reads clips on CPUs beside those of training, one a worker at least: of {_cpus(nodes):g} CPUs "
            f"in the cluster {compute.workers} workers with {compute.cpus_per_worker:g} each leave {max(left, 0.0):g}; "
            "add CPU nodes, use fewer workers, or leave ingest at torch"
        )


def idle_gpus(nodes: Iterable[Resources], compute: ComputeConfig) -> str | None:
    """A line for GPUs that training leaves alone.

    >>> idle_gpus([{"CPU": 8.0, "GPU": 4.0}], ComputeConfig())
    'training is on CPUs, and 4 GPUs of the cluster are left alone: --gpus-per-worker 1 --workers 4 uses them'
    """
    gpus = int(sum(node.get("GPU", 0.0) for node in nodes))
    if compute.gpus_per_worker > 0 or gpus == 0:
        return None
    left = "1 GPU of the cluster is" if gpus == 1 else f"{gpus} GPUs of the cluster are"
    return f"training is on CPUs, and {left} left alone: --gpus-per-worker 1 --workers {gpus} uses them"


def require_group_beside(nodes: Iterable[Resources], compute: ComputeConfig) -> None:
    """Raise ``ValueError`` when there is no room for one group of workers beside the run's own."""
    nodes, worker = list(nodes), resources_of(compute)
    if groups_beside(nodes, worker, workers=compute.workers) < 1:
        raise ValueError(
            f"--blend.probes spread needs a group of {compute.workers} workers beside the run's own, so room for "
            f"{2 * compute.workers} workers of {_each(worker)}; the cluster has room for {room(nodes, worker)}: use "
            "--blend.probes shared, fewer --workers, or more nodes"
        )


def _cpus(nodes: Iterable[Resources]) -> float:
    return sum(node.get("CPU", 0.0) for node in nodes)


def _left(nodes: Iterable[Resources], compute: ComputeConfig) -> float:
    """CPUs that training leaves."""
    return _cpus(nodes) - compute.workers * compute.cpus_per_worker


def _each(worker: Resources) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in worker.items())
