"""What the Ray cluster of this process holds, and whether it may get more: asked before anything waits for room.

Ray waits for ever, and says nothing, for workers that no node can hold. Where nothing adds nodes, that is an error.
"""

import os

import ray

from gblend.config import ComputeConfig
from gblend.placement import Resources, idle_gpus, require_group_beside, require_readers, require_workers


def nodes() -> list[Resources]:
    """What the nodes that are there hold."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def node_here() -> Resources:
    """What this process's node holds."""
    own = ray.get_runtime_context().get_node_id()
    return next(node["Resources"] for node in ray.nodes() if node["NodeID"] == own)


def may_grow() -> bool:
    """Whether an autoscaler may add nodes, as far as that can be told on the head node.

    A private cluster, which a job starts where no address is set, never grows, on whichever machine.
    """
    if not os.environ.get("RAY_ADDRESS"):
        return False
    launched = os.path.exists(os.path.expanduser("~/ray_bootstrap_config.yaml"))  # by `ray up`
    # KubeRay runs its autoscaler beside the head, and tells the head to run none.
    return launched or "--no-monitor" in os.environ.get("KUBERAY_GEN_RAY_START_CMD", "")


def require_room(compute: ComputeConfig, *, spread: bool) -> None:
    """Raise ``ValueError`` where there will never be room for a run's workers, and for what works beside them.

    Args:
        compute: What each worker holds, and who reads.
        spread: Whether probes train on groups of workers beside the run's own.
    """
    if may_grow():
        return
    there = nodes()
    require_workers(there, compute)
    if compute.ingest == "ray":
        require_readers(there, compute)
    if spread:
        require_group_beside(there, compute)


def hint(compute: ComputeConfig) -> str | None:
    """A line for GPUs that training leaves alone; None: it uses them, or there are none."""
    return idle_gpus(nodes(), compute)
