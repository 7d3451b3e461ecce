"""What a tree of processes costs, and which processes it is made of, read from /proc (Linux).

Ray's raylet does not wait for its workers, so their CPU time reaches no parent: the tree is sampled while it runs, and
the last reading of every process counts. Orphans are adopted, so that nothing leaves the tree unseen.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S = 0.05
"""Time between two readings; what a process uses between its last one and its end is lost."""

PR_SET_CHILD_SUBREAPER = 36
RAY_SERVICES = (
    "/raylet/raylet",
    "gcs_server",
    "ray/dashboard",
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
    "runtime_env/agent",
    "log_monitor",
    "monitor.py",
)
"""Parts of the command lines of what Ray runs besides workers."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """One reading of one process."""

    pid: int
    """Process id."""
    parent: int
    """Process id of its parent."""
    state: str
    """R running, S sleeping, Z zombie, ..."""
    cpu_s: float
    """User and system time of the process itself."""
    resident_bytes: int
    """Memory in RAM."""
    born_ticks: int
    """When it began: with the pid, its identity."""
    command: str
    """Its command line, or the title it has given itself."""

    @property
    def kind(self) -> str:
        """What it is to a job: driver, worker, decoder, or a service of Ray."""
        if "pipelines.decoder_process" in self.command:
            return "decoder"
        if any(part in self.command for part in RAY_SERVICES):
            return "ray service"  # First: a raylet is told on its command line how to start workers.
        if self.command.startswith("ray::") or "default_worker.py" in self.command:
            return "worker"
        return "driver"


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a command and everything it started has cost."""

    status: int
    """Exit status of the command."""
    cpu_s: float
    """User and system time of all its processes."""
    wall_s: float
    """From start to exit of the command."""
    cpu_s_by_kind: dict[str, float]
    """`Process.kind` -> CPU time."""
    peak_bytes: int
    """Largest sum of resident memory over its Ray workers and decoders."""
    peak_process_bytes: int
    """Largest resident memory of one of them."""


def read_process(pid: int) -> Process | None:
    """A process as it is now; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # The name before it may hold anything.
    return Process(
        pid=pid,
        parent=int(fields[1]),
        state=fields[0],
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
        born_ticks=int(fields[19]),
        command=command,
    )


def descendants(root: int) -> list[Process]:
    """Every process below ``root`` that is not a zombie."""
    below: dict[int, list[Process]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := read_process(int(name))) is not None:
            below.setdefault(process.parent, []).append(process)
    found, waiting = [], [root]
    while waiting:
        children = below.get(waiting.pop(), [])
        found += [process for process in children if process.state != "Z"]
        waiting += [process.pid for process in children]
    return found


@contextmanager
def adopted_orphans() -> Iterator[None]:
    """While the block runs, processes that lose their parent become children of this one."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def run_measured(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    log: Path,
    timeout_s: float = 1800.0,
    watch: Callable[[subprocess.Popen[bytes]], None] | None = None,
) -> Usage:
    """Run a command to its end and add up what its tree has used. ``watch`` is called at every reading."""
    before = {process.pid: process.cpu_s for process in descendants(os.getpid())}
    seen: dict[tuple[int, int], Process] = {}
    peak = peak_process = 0
    began_s = time.monotonic()
    with adopted_orphans(), log.open("ab") as output:
        child = subprocess.Popen(command, env=dict(env), cwd=cwd, stdout=output, stderr=output, start_new_session=True)
        while True:
            everything = descendants(os.getpid())
            tree = [process for process in everything if process.pid not in before]
            seen.update({(process.pid, process.born_ticks): process for process in everything})
            resident = [p.resident_bytes for p in tree if p.kind in ("worker", "decoder")]
            peak, peak_process = max(peak, sum(resident)), max([peak_process, *resident])
            if watch is not None:
                watch(child)
            if time.monotonic() - began_s > timeout_s:
                for process in tree:
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)
            time.sleep(SAMPLE_S)
            waited, status, usage = os.wait4(child.pid, os.WNOHANG)
            if waited:
                break
        child.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.monotonic() - began_s
        reap_orphans(before)
    by_kind: defaultdict[str, float] = defaultdict(float)
    for process in seen.values():
        # A cluster that was there before counts from then on.
        by_kind[process.kind] += process.cpu_s - before.get(process.pid, 0.0)
    # Of trees whose parents wait for all children the kernel's own sum is exact; it misses Ray's workers.
    told_s = usage.ru_utime + usage.ru_stime
    return Usage(
        status=child.returncode,
        cpu_s=max(told_s, sum(by_kind.values())),
        wall_s=wall_s,
        cpu_s_by_kind=dict(by_kind),
        peak_bytes=peak,
        peak_process_bytes=peak_process,
    )


def reap_orphans(before: Container[int], *, grace_s: float = 30.0) -> list[Process]:
    """Wait for adopted orphans to end by themselves; those that do not are returned, and killed."""
    deadline_s = time.monotonic() + grace_s
    while True:
        _collect_zombies(before)
        mine = [process for process in descendants(os.getpid()) if process.parent == os.getpid()]
        adopted = [process for process in mine if process.pid not in before]
        left = [*adopted, *(below for process in adopted for below in descendants(process.pid))]
        if not left or time.monotonic() > deadline_s:
            break
        time.sleep(SAMPLE_S)
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    if left:
        time.sleep(4 * SAMPLE_S)
        _collect_zombies(before)
    return left


def _collect_zombies(before: Container[int]) -> None:
    """Wait for dead children that this process never started; those it did are waited for by who started them."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in before:
            process = read_process(int(name))
            if process is not None and process.parent == os.getpid() and process.state == "Z":
                with suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
