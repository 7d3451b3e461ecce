"""Good, odd and broken files through one job in one go: every one accounted for, memory bounded, nothing else opened.

The job runs under Ray with every failure allowed, and its memory is watched. Then, where there is strace, the shards
are made once more in one process below it, without `neighbour.ts`, which some of the broken files try to reach: from
the first media file on, only files of the manifest may be opened below the root, nothing outside it but what Python
and the shard need, and no network socket at all.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.job import ROOT, environment, make_manifest, preprocess_command, tail
from benchmarks.processes import run_measured

BAIT = "broken/neighbour.ts"
"""A readable file that hostile ones name; left out of the traced run, so that nobody has a reason to open it."""

LARGEST_WORKER_BYTES = 3 * 2**30
"""No worker or decoder may use more memory than this."""

TIMEOUT_S = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Hostile:
    """What came of a folder of files."""

    files: int
    """Rows of the manifest."""
    status: dict[str, int]
    """Ledger status -> rows."""
    failed: dict[str, str]
    """File -> stage and reason, of those that gave no clip."""
    unexplained: tuple[str, ...]
    """Failed rows without a stage, reason or message, and files without exactly one row."""
    wall_s: float
    """Of the whole job."""
    peak_bytes: int
    """Largest sum of resident memory over workers and decoders."""
    peak_process_bytes: int
    """Largest of one of them."""


def run_hostile(videos: Path, names: Sequence[str], folder: Path) -> Hostile:
    """One job over all files, whatever share of them fails."""
    manifest = make_manifest(names, videos=videos, out=folder / "hostile.parquet")
    out, log = folder / "hostile", folder / "hostile.log"
    command = preprocess_command(manifest, videos, out, "--max-error-rate", "1", clips_per_shard=16)
    used = run_measured(command, env=environment(), cwd=ROOT, log=log, timeout_s=TIMEOUT_S)
    if used.status:
        raise RuntimeError(f"the job failed or took more than {TIMEOUT_S:g} s: {tail(log)}")
    ledger = pq.read_table(out / "ledger.parquet").to_pylist()
    rows = Counter(row["uri"] for row in ledger)
    failed = [row for row in ledger if row["status"] == "failed"]
    mute = [row["uri"] for row in failed if not (row["stage"] and row["reason"] and row["message"])]
    return Hostile(
        files=len(names),
        status=dict(Counter(row["status"] for row in ledger)),
        failed={row["uri"]: f"{row['stage']} {row['reason']}" for row in failed},
        unexplained=tuple([*mute, *(name for name in names if rows[name] != 1)]),
        wall_s=used.wall_s,
        peak_bytes=used.peak_bytes,
        peak_process_bytes=used.peak_process_bytes,
    )


def no_strace() -> str | None:
    """Why calls cannot be traced here; None when they can."""
    if shutil.which("strace") is None:
        return "no strace on the PATH"
    tried = subprocess.run(["strace", "-f", "-e", "trace=connect", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "strace may not trace processes here"


def trace_hostile(videos: Path, names: Sequence[str], folder: Path) -> list[str]:
    """What was opened or connected to that should not have been; empty when all is well."""
    kept = [name for name in names if name != BAIT]
    manifest = make_manifest(kept, videos=videos, out=folder / "traced.parquet")
    trace, out = folder / "trace.txt", folder / "traced"
    strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=open,openat,openat2,connect,execve,socket"]
    program = [sys.executable, "-m", "benchmarks.in_process", str(manifest), str(videos), str(out), "16"]
    temporary = folder / "tmp"  # In the usual one, directories of other processes are looked at, too.
    temporary.mkdir()
    subprocess.run(
        [*strace, "-o", str(trace), *program],
        env={**environment(), "TMPDIR": str(temporary)},
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=TIMEOUT_S,
    )
    return offences(trace.read_text(errors="replace").splitlines(), videos=videos, names=kept, out=folder)


def offences(lines: Sequence[str], *, videos: Path, names: Sequence[str], out: Path) -> list[str]:
    """Calls of a trace that read what no manifest row names, or open a network socket.

    >>> trace = ['7 openat(AT_FDCWD, "/v/a.mp4", O_RDONLY) = 5', '7 openat(AT_FDCWD, "/v/b.ts", O_RDONLY) = 6']
    >>> offences(trace, videos=Path("/v"), names=["a.mp4"], out=Path("/out"))
    ['opened /v/b.ts']
    """
    root = os.path.realpath(videos)
    allowed = {os.path.realpath(videos / name) for name in names}
    harmless = tuple(os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, ROOT, out, "/usr", "/lib", "/lib64"))
    system = ("/proc/", "/sys/", "/dev/null", "/dev/urandom", "/dev/shm", "/etc/ld.so", "/etc/localtime", "/lib")
    found, began = [], False
    for line in lines:
        if re.search(r"\bsocket\(AF_INET6?,", line) or re.search(r"sa_family=AF_INET6?\b", line):
            found.append(f"network: {line[:120]}")
        opened = re.search(r"\bopen(?:at2?)?\((?:[^\"]*, )?\"([^\"]+)\"", line)
        if opened is None or re.search(r"= -1 ", line):
            continue
        path = os.path.realpath(opened[1]) if opened[1].startswith("/") else opened[1]
        inside = path == root or path.startswith(root + "/")
        began = began or path in allowed
        if inside and path not in allowed and "O_DIRECTORY" not in line:
            found.append(f"opened {path}")
        if began and not inside and path.startswith("/") and not path.startswith((*harmless, *system)):
            found.append(f"opened {path}")
    return sorted(set(found)) if began else ["the trace shows no media file: nothing was looked at"]


def hostile_report(videos: Path) -> bool:
    """Run, print and judge."""
    names = sorted(str(path.relative_to(videos)) for path in videos.rglob("*") if path.is_file())
    names = [name for name in names if not name.endswith((".md", ".json", ".py"))]
    with tempfile.TemporaryDirectory(prefix="gblend-hostile-") as scratch:
        made = run_hostile(videos, names, Path(scratch))
        why = no_strace()
        found = [] if why else trace_hostile(videos, names, Path(scratch))
    mib = 2**20
    print(f"{made.files} files in one job: {made.status}, {made.wall_s:.0f} s")
    print(f"reasons: {dict(Counter(made.failed.values()).most_common())}")
    print(f"without an explanation: {list(made.unexplained) or 'none'}")
    print(f"peak memory of workers and decoders: {made.peak_bytes / mib:.0f} MiB")
    print(
        f"of the largest of them: {made.peak_process_bytes / mib:.0f} MiB, limit {LARGEST_WORKER_BYTES / mib:.0f} MiB"
    )
    print(f"opened beside the manifest's files: {'not traced: ' + why if why else found or 'nothing'}")
    return not found and not made.unexplained and made.peak_process_bytes <= LARGEST_WORKER_BYTES
