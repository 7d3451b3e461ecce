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


def require_group_beside(nodes: Iterable[Resources], compute: ComputeConfig) -> None:
    """Raise ``ValueError`` when there is no room for one group of workers beside the run's own."""
    nodes, worker = list(nodes), resources_of(compute)
    if groups_beside(nodes, worker, workers=compute.workers) < 1:
        each = " and ".join(f"{amount:g} {name}" for name, amount in worker.items())
        raise ValueError(
            f"--blend.probes spread needs a group of {compute.workers} workers beside the run's own, so room for "
            f"{2 * compute.workers} workers of {each}; the cluster has room for {room(nodes, worker)}: use "
            "--blend.probes shared, fewer --workers, or more nodes"
        )
