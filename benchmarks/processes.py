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
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S = 0.1
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
class Reading:
    """One reading of a tree."""

    progress: float
    """What the caller's gauge said."""
    cpu_s_by_kind: dict[str, float]
    """`Process.kind` -> CPU time so far."""


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
    trace: tuple[Reading, ...]
    """How far it was when, and what that had cost by then."""
    peak_bytes: int
    """Largest sum of resident memory over its Ray workers and decoders."""
    peak_process_bytes: int
    """Largest resident memory of one of them."""


def read_process(pid: int) -> Process | None:
    """A process as it is now; None when there is none."""
    try:
        fields = _read_stat(pid)
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
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
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                below.setdefault(int(_read_stat(int(name))[1]), []).append(int(name))
    found, waiting = [], [root]
    while waiting:
        children = below.get(waiting.pop(), [])
        waiting += children
        found += [process for process in map(read_process, children) if process is not None and process.state != "Z"]
    return found


def _read_stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold anything."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat[stat.rindex(")") + 2 :].split()


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
    gauge: Callable[[], float] = lambda: 0.0,
) -> Usage:
    """Run a command to its end and add up what its tree has used; ``gauge`` says at every reading how far it is."""
    before = {process.pid: process.cpu_s for process in descendants(os.getpid())}
    seen: dict[tuple[int, int], Process] = {}
    trace: list[Reading] = []
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
            trace.append(Reading(progress=gauge(), cpu_s_by_kind=_by_kind(seen.values(), before)))
            if time.monotonic() - began_s > timeout_s:
                _kill(tree)
            time.sleep(SAMPLE_S)
            waited, status, usage = os.wait4(child.pid, os.WNOHANG)
            if waited:
                break
        child.returncode = os.waitstatus_to_exitcode(status)
        trace.append(Reading(progress=gauge(), cpu_s_by_kind=_by_kind(seen.values(), before)))
        wall_s = time.monotonic() - began_s
        _kill(orphans(before, grace_s=30.0))
    by_kind = _by_kind(seen.values(), before)
    # Of trees whose parents wait for all children the kernel's own sum is exact; it misses Ray's workers.
    told_s = usage.ru_utime + usage.ru_stime
    return Usage(
        status=child.returncode,
        cpu_s=max(told_s, sum(by_kind.values())),
        wall_s=wall_s,
        cpu_s_by_kind=by_kind,
        trace=tuple(trace),
        peak_bytes=peak,
        peak_process_bytes=peak_process,
    )


def _by_kind(processes: Iterable[Process], before: Mapping[int, float]) -> dict[str, float]:
    """CPU time by kind; of a cluster that was there before, from then on."""
    spent_s: defaultdict[str, float] = defaultdict(float)
    for process in processes:
        spent_s[process.kind] += process.cpu_s - before.get(process.pid, 0.0)
    return dict(spent_s)


def orphans(before: Container[int], *, grace_s: float, but: str | None = None) -> list[Process]:
    """Adopted processes, and those below them, that have not ended by themselves after a while.

    Processes of the kind ``but`` are not among them.
    """
    deadline_s = time.monotonic() + grace_s
    while True:
        _collect_zombies(before)
        mine = [process for process in descendants(os.getpid()) if process.parent == os.getpid()]
        adopted = [process for process in mine if process.pid not in before]
        left = [*adopted, *(below for process in adopted for below in descendants(process.pid))]
        left = [process for process in left if process.kind != but]
        if not left or time.monotonic() > deadline_s:
            return left
        time.sleep(SAMPLE_S)


def wait_until_gone(processes: Iterable[Process], *, timeout_s: float) -> list[Process]:
    """Those that are still there after a while."""
    deadline_s = time.monotonic() + timeout_s
    left = list(processes)
    while left and time.monotonic() < deadline_s:
        _collect_zombies(())
        now = {process.pid: process.born_ticks for process in map(read_process, [p.pid for p in left]) if process}
        left = [process for process in left if now.get(process.pid) == process.born_ticks]
        time.sleep(SAMPLE_S)
    return left


def _kill(processes: Iterable[Process]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def _collect_zombies(before: Container[int]) -> None:
    """Wait for dead children that this process never started; those it did are waited for by who started them."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in before:
            process = read_process(int(name))
            if process is not None and process.parent == os.getpid() and process.state == "Z":
                with suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
