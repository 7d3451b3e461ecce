"""The preprocessing job as a benchmark sees it: a command line, an environment, and a directory of files at the end."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])
"""The checkout: what is measured is this code, from whatever directory."""


def environment(address: str | None = None) -> dict[str, str]:
    """For a job on the cluster at ``address``, or on a private one: one thread a process, no cluster by accident."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    kept.update(OMP_NUM_THREADS="1", RAY_AUTH_MODE="disabled", PYTHONDONTWRITEBYTECODE="1")
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
    return kept if address is None else {**kept, "RAY_ADDRESS": address}


def make_manifest(names: Sequence[str], *, videos: Path, out: Path) -> Path:
    """A manifest of whole files, all of them in train, made by the job for it."""
    annotations = out.with_suffix(".csv")
    rows = [f'"{name}",train,{"ab"[i % 2]}\n' for i, name in enumerate(names)]
    annotations.write_text("path,split,label\n" + "".join(rows), encoding="utf-8")
    command = [sys.executable, "-m", "jobs.manifest", "csv", "--annotations", str(annotations)]
    done = subprocess.run(
        [*command, "--videos", str(videos), "--out", str(out)],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"jobs.manifest failed: {done.stderr.strip()[-500:]}")
    return out


def preprocess_command(manifest: Path, videos: Path, out: Path, *more: str, clips_per_shard: int) -> list[str]:
    """The job's command line."""
    command = [sys.executable, "-m", "jobs.preprocess", "--manifest", str(manifest), "--videos", str(videos)]
    return [*command, "--out", str(out), "--clips-per-shard", str(clips_per_shard), *more]


def checksums(out: Path) -> dict[str, str]:
    """SHA-256 of every file of a dataset directory, by name."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def bytes_below(folder: Path) -> int:
    """How much has been written so far."""
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(directory, name)).st_size
    return total


def finished_files(out: Path) -> dict[str, tuple[int, int]]:
    """(inode, time of change in ns) of every file of the shards that are finished, by name."""
    found = {}
    for done in out.glob("*/*/done.json"):
        for path in done.parent.iterdir():
            if not path.name.startswith("."):
                status = path.stat()
                found[str(path.relative_to(out))] = (status.st_ino, status.st_mtime_ns)
    return found


def tail(log: Path) -> str:
    """The last line of a log, to say why something failed."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "no output"
