"""Copies of remote shard files on the disk of a node, shared by all its processes, within a limit.

A copy is named by the SHA-256 of its contents, which the shard's ``done.json`` states: what has changed at its source
has another name, and a name that is there is the right file. Three rules make it safe, and all are the kernel's, so a
process that is killed leaves nothing to be cleaned up:

- A file is written under another name (``.part``) by whoever holds the lock on it; others who want it wait until it has
  its name. It gets its name when its bytes have been checked and are on the disk.
- A process that has a file mapped holds a shared lock on it, for as long as the mapping lives. What is locked is not
  evicted.
- A file that was checked is given a certain time of modification. Whatever writes to it changes that, and a file
  with another time or size is checked again before it is used, and fetched again if it is damaged.
"""

import errno
import fcntl
import hashlib
import mmap
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

import fsspec
import pyarrow as pa

from gblend.storage import WAITS_S, open_fs, wait_or_raise

CHECKED_NS = 1_000_000_000 * 10**9
"""Time of modification of a file whose bytes have been checked."""

CHUNK_BYTES = 16 * 2**20
ATTEMPTS = 3

POLL_S = 0.02
"""Between two looks at what other processes do."""

GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file of a data set, as its shard's ``done.json`` describes it."""

    url: str
    """Where it is."""
    sha256: str
    """Of its bytes."""
    size: int
    """Bytes."""


class ShardCache:
    """Copies of files in a directory."""

    def __init__(
        self, directory: str | None = None, *, limit_bytes: int, sharers: int = 1, patience_s: float = 300.0
    ) -> None:
        """The directory is made when the first file is fetched.

        Args:
            directory: On a local disk; None: `default_directory`.
            limit_bytes: What all files in it may take together.
            sharers: Processes of this node that read through it: each keeps only its part of the files mapped.
            patience_s: How long to wait for room while all files are in use.
        """
        self.directory = default_directory() if directory is None else directory
        self.limit_bytes = limit_bytes
        self.sharers = sharers
        self._patience_s = patience_s

    @property
    def mapped_bytes(self) -> int:
        """What one process may keep mapped: together they leave half of the cache to what comes next."""
        return self.limit_bytes // (2 * self.sharers)

    def open(self, file: StoredFile) -> pa.Buffer:
        """The whole file, mapped; it is fetched if need be. It stays where it is until the buffer is gone."""
        while (descriptor := self._held(file)) is None:
            self.fetch(file)
        try:
            # The mapping has a descriptor of its own, on the same open file: the lock lives as long as the mapping.
            return pa.py_buffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
        finally:
            os.close(descriptor)

    def fetch(self, file: StoredFile) -> None:
        """See that the file is there and whole. Of several processes that want it, one fetches it.

        Raises:
            ValueError: It is larger than the cache, missing or not what it should be at its source; or there is no
                room, because other files are in use or the disk is full.
            StoreError: Its source refuses, does not answer, or breaks off, again and again.
        """
        part = f"{self._path(file)}.part"
        while (descriptor := self._held(file)) is None:
            self._make_directory()
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if not _lock_at(descriptor, part):
                    continue  # Whoever had the lock before has finished the file, or given it up.
                if (there := self._held(file)) is not None:  # It was finished just before this one was begun.
                    os.close(there)
                    os.unlink(part)
                    continue
                self._make_room(file, descriptor)
                self._download(file, descriptor)
                os.utime(descriptor, ns=(time.time_ns(), CHECKED_NS))
                os.replace(part, self._path(file))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise ValueError(
                    f"no space left on the disk of the cache {self.directory}; lower --cache-gib "
                    f"({self.limit_bytes / GIB:g}) or choose another --cache-dir"
                ) from error
            finally:
                os.close(descriptor)
        os.close(descriptor)

    def _path(self, file: StoredFile) -> str:
        return os.path.join(self.directory, f"{file.sha256}.arrow")

    def _held(self, file: StoredFile) -> int | None:
        """A descriptor with a shared lock on the file, which is whole; None where there is none."""
        path = self._path(file)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        found = os.fstat(descriptor)
        whole = found.st_size == file.size and (found.st_mtime_ns == CHECKED_NS or _sha256(descriptor) == file.sha256)
        if whole and _is_at(descriptor, path):
            os.utime(descriptor, ns=(time.time_ns(), CHECKED_NS))
            return descriptor
        if not whole and _is_at(descriptor, path):
            os.unlink(path)
        os.close(descriptor)
        return None

    def _make_room(self, file: StoredFile, descriptor: int) -> None:
        """Evict until the file fits, and reserve its size."""
        if file.size > self.limit_bytes:
            raise ValueError(
                f"{file.url} has {file.size / GIB:.3g} GiB, more than the cache may hold ({self.limit_bytes / GIB:.3g} "
                "GiB); raise --cache-gib, so that it holds all files that are read at a time"
            )
        deadline_s = time.monotonic() + self._patience_s
        own = os.fstat(descriptor).st_ino
        while True:
            with self._exclusively():
                entries = [entry for entry in self._entries() if entry.inode != own]
                over = sum(entry.size for entry in entries) + file.size - self.limit_bytes
                for entry in entries:
                    if over > 0 and _evict(entry.path):
                        over -= entry.size
                if over <= 0:
                    os.ftruncate(descriptor, file.size)
                    return
            if time.monotonic() > deadline_s:
                raise ValueError(
                    f"the cache {self.directory} may hold {self.limit_bytes / GIB:.3g} GiB, all of it in use, and "
                    f"{file.url} takes {file.size / GIB:.3g} GiB more; raise --cache-gib"
                )
            time.sleep(POLL_S)

    def _entries(self) -> "list[_Entry]":
        """Files by their last use; unfinished ones, which nobody may be waiting for, first."""
        found = []
        for entry in os.scandir(self.directory):
            if entry.name.endswith((".arrow", ".part")):
                try:
                    info = entry.stat()
                except FileNotFoundError:
                    continue
                used_ns = 0 if entry.name.endswith(".part") else info.st_atime_ns
                found.append(_Entry(path=entry.path, inode=info.st_ino, size=info.st_size, used_ns=used_ns))
        return sorted(found, key=lambda entry: entry.used_ns)

    def _download(self, file: StoredFile, descriptor: int) -> None:
        fs, place = open_fs(file.url)
        for attempt in range(ATTEMPTS):
            if attempt:
                fs.invalidate_cache()
            os.lseek(descriptor, 0, os.SEEK_SET)
            digest = hashlib.sha256()
            size = 0
            for chunk in _chunks(fs, place, file.url):
                size += len(chunk)
                if size > file.size:
                    break
                digest.update(chunk)
                _write(descriptor, chunk)
            if size == file.size and digest.hexdigest() == file.sha256:
                os.fsync(descriptor)
                return
        raise ValueError(
            f"{file.url} is not what its shard's done.json says (SHA-256 {file.sha256[:12]}..., {file.size} bytes); "
            "rerun `gblend preprocess`"
        )

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """No two processes count and evict at a time."""
        descriptor = os.open(os.path.join(self.directory, "lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make_directory(self) -> None:
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        owner = os.stat(self.directory, follow_symlinks=False)
        if self.directory == default_directory() and (owner.st_uid != os.getuid() or not stat.S_ISDIR(owner.st_mode)):
            raise ValueError(f"{self.directory} belongs to somebody else; choose another --cache-dir")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    path: str
    inode: int
    size: int
    used_ns: int


def default_directory() -> str:
    """Below the directory for temporary files, which is on a disk of the node, one for each user."""
    return os.path.join(tempfile.gettempdir(), f"gblend-shards-{os.getuid()}")


def _chunks(fs: fsspec.AbstractFileSystem, place: str, url: str) -> Iterator[bytes]:
    """The bytes of a file. Where its source breaks off they go on from there: what was read is checked in the end."""
    at = 0
    for wait_s in (*WAITS_S, None):
        try:
            with cast(BinaryIO, fs.open(place, "rb", block_size=CHUNK_BYTES)) as source:
                if at:
                    source.seek(at)
                while chunk := source.read(CHUNK_BYTES):
                    at += len(chunk)
                    yield chunk
            return
        except Exception as error:  # Clients raise errors of their own, which share no class.
            try:
                wait_or_raise(error, url, wait_s)
            except FileNotFoundError:
                raise ValueError(f"{url} is missing; rerun `gblend preprocess`") from None


def _evict(path: str) -> bool:
    """Delete a file unless a process has it mapped or is writing it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(descriptor, path):
            return False
        os.unlink(path)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def _lock_at(descriptor: int, part: str) -> bool:
    """Wait for the lock on an unfinished file; False if it has lost its name meanwhile.

    It must not wait for the lock alone: a file that has been finished may be locked at once by a process that maps it,
    for as long as that process lives.
    """
    while _is_at(descriptor, part):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(POLL_S)
        else:
            return _is_at(descriptor, part)
    return False


def _is_at(descriptor: int, path: str) -> bool:
    """Whether an open file still has this name."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    return found.st_ino == os.fstat(descriptor).st_ino


def _sha256(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
