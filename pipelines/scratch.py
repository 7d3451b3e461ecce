"""Temporary directories that are removed, whatever becomes of the process that made them.

Each holds a file that its process keeps locked. A process that is killed holds no lock, so whoever makes the next
directory of the same kind can tell what is abandoned and removes it, on whichever machine that was. An empty one is
being made or removed, which takes no time; after a minute it, too, is what a killed process has left.
"""

import atexit
import fcntl
import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

OWNER_LOCK = "owner.lock"

NEW_LOCK = "new"
"""Its name until it is locked."""

UNOWNED_S = 60.0
"""After so long without a change, a directory without an owner is not just being made or removed."""

OUR_NAME = re.compile("[a-z0-9_]{8}")
"""What follows the prefix in the names that `tempfile` makes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scratch:
    """A temporary directory of this process."""

    path: str
    """The directory."""
    lock: int
    """The open file whose lock says that it is in use."""

    def remove(self) -> None:
        """Remove the directory and what is in it."""
        _remove(self.path)
        os.close(self.lock)


def make_scratch(prefix: str, *, root: str | None = None) -> Scratch:
    """A new directory; those of the same prefix that processes have left behind are removed first."""
    root = root or tempfile.gettempdir()
    for name in os.listdir(root):
        path = os.path.join(root, name)
        ours = name.startswith(prefix) and OUR_NAME.fullmatch(name, len(prefix)) is not None
        if ours and is_abandoned(path):
            _remove(path)
    path = tempfile.mkdtemp(prefix=prefix, dir=root)
    # Locked before it has its name, so that nobody ever finds it unlocked.
    lock = os.open(os.path.join(path, NEW_LOCK), os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.rename(os.path.join(path, NEW_LOCK), os.path.join(path, OWNER_LOCK))
    return Scratch(path=path, lock=lock)


def is_abandoned(path: str) -> bool:
    """Whether the process that made a directory is gone."""
    try:
        lock = os.open(os.path.join(path, OWNER_LOCK), os.O_RDWR)
    except FileNotFoundError:
        return _is_unowned(path)
    except OSError:
        return False  # Another user's, or not ours at all.
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _is_unowned(path: str) -> bool:
    """Whether a directory without a lock holds nothing and has been left alone for a while."""
    try:
        return set(os.listdir(path)) <= {NEW_LOCK} and time.time() - os.stat(path).st_mtime > UNOWNED_S
    except OSError:
        return False  # Removed meanwhile.


def _remove(path: str) -> None:
    """Remove a directory, the lock last: a process killed while it does leaves one that can be told to be abandoned."""
    with suppress(OSError):
        for name in os.listdir(path):
            if name != OWNER_LOCK:
                inside = os.path.join(path, name)
                shutil.rmtree(inside, ignore_errors=True) if os.path.isdir(inside) else os.unlink(inside)
    shutil.rmtree(path, ignore_errors=True)


@lru_cache(maxsize=1)
def process_scratch() -> str:
    """A directory for what this process downloads or is about to upload."""
    scratch = make_scratch("gblend-")
    atexit.register(scratch.remove)
    return scratch.path
