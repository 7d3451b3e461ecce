"""Temporary directories that are removed, whatever becomes of the process that made them.

Each holds a file that its process keeps locked. A process that is killed holds no lock, so whoever makes the next
directory of the same kind can tell what is abandoned and removes it, on whichever machine that was.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import lru_cache

OWNER_LOCK = "owner.lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scratch:
    """A temporary directory of this process."""

    path: str
    """The directory."""
    lock: int
    """The open file whose lock says that it is in use."""

    def remove(self) -> None:
        """Remove the directory and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def make_scratch(prefix: str, *, root: str | None = None) -> Scratch:
    """A new directory; those of the same prefix that processes have left behind are removed first."""
    root = root or tempfile.gettempdir()
    for name in os.listdir(root):
        path = os.path.join(root, name)
        if name.startswith(prefix) and is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)
    path = tempfile.mkdtemp(prefix=prefix, dir=root)
    # Locked before it has its name, so that nobody ever finds it unlocked.
    lock = os.open(os.path.join(path, "new"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.rename(os.path.join(path, "new"), os.path.join(path, OWNER_LOCK))
    return Scratch(path=path, lock=lock)


def is_abandoned(path: str) -> bool:
    """Whether the process that made a directory is gone."""
    try:
        lock = os.open(os.path.join(path, OWNER_LOCK), os.O_RDWR)
    except OSError:
        return False  # Another user's, just being made or removed, or not ours at all.
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


@lru_cache(maxsize=1)
def process_scratch() -> str:
    """A directory for what this process downloads or is about to upload."""
    scratch = make_scratch("gblend-")
    atexit.register(scratch.remove)
    return scratch.path
