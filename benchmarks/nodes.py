"""Ray clusters of several simulated nodes on this machine, each in a process of its own that holds them.

    python -m benchmarks.nodes COUNT        (prints the address; a line of input adds a node, its end ends all)

The driver joins the head, which is never killed: what happens to a job whose head dies is what happens when its driver
dies. Every node has one CPU, so that the number of nodes is the number of shards in work.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.job import ROOT, environment
from benchmarks.processes import Process, descendants, read_process

OBJECT_STORE_BYTES = 100 * 2**20
"""A simulated node would otherwise claim a share of the whole machine's memory."""

NODE_START_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Nodes:
    """A running cluster."""

    address: str
    """What a driver puts into RAY_ADDRESS."""
    holder: int
    """Process id that all nodes are below."""
    orders: IO[str]
    """Where the holder reads what to do."""

    def raylets(self) -> list[Process]:
        """One process a living node, the head first."""
        found = [process for process in descendants(self.holder) if "/raylet/raylet" in process.command.split(" ")[0]]
        return sorted(found, key=lambda process: process.born_ticks)

    def kill(self, raylet: Process) -> None:
        """What a power cut does to a node: its raylet and everything below it are gone at once."""
        for process in [raylet, *descendants(raylet.pid)]:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def grow(self, count: int) -> None:
        """Add the nodes that are missing to ``count``, and wait until they are there."""
        while (alive := len(self.raylets())) < count:
            self.orders.write("add\n")
            self.orders.flush()
            deadline_s = time.monotonic() + NODE_START_S
            while len(self.raylets()) == alive:
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"a simulated node did not start within {NODE_START_S:g} s")
                time.sleep(0.1)
            time.sleep(1.0)  # A raylet is a process before it is a node.


@contextmanager
def simulated_nodes(count: int, *, temporary: Path | None = None) -> Iterator[Nodes]:
    """A cluster of ``count`` nodes for the time of a block; ``temporary`` is where its workers make such files."""
    # Short, because Ray's sockets lie below it; its own, because Ray notes the address of the newest cluster there.
    scratch = tempfile.mkdtemp(prefix="gbn-", dir="/tmp")
    holder = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.nodes", str(count)],
        env={**environment(), "RAY_TMPDIR": scratch, **({"TMPDIR": str(temporary)} if temporary else {})},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert holder.stdout is not None
        address = holder.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"a cluster of {count} simulated nodes did not start")
        assert holder.stdin is not None
        yield Nodes(address=address, holder=holder.pid, orders=holder.stdin)
    finally:
        assert holder.stdin is not None
        holder.stdin.close()
        try:
            holder.wait(30)
        except subprocess.TimeoutExpired:
            for process in [*descendants(holder.pid), *filter(None, [read_process(holder.pid)])]:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            holder.wait()
        shutil.rmtree(scratch, ignore_errors=True)


def main(count: str) -> None:
    from ray.cluster_utils import Cluster

    settings = {"num_cpus": 1, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=settings)
    for _ in range(int(count) - 1):
        cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)
    print(cluster.address, flush=True)
    for _ in sys.stdin:
        cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
