"""Files that are either complete or not there, on a local disk or at any fsspec URL.

Locally a file is written beside its place and renamed over it; an object store publishes an object only once the whole
of it has arrived, so there a finished local file is put.
"""

import hashlib
import os
import posixpath
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pipelines.source import MissingFileError, OutsideRootError, UnavailableError, resolve

TEMPORARY = ".tmp-"
"""Start of the names of unfinished files."""


def _open_fs(url: str) -> tuple[Any, str]:
    fs, root = url_to_fs(url)
    return fs, root.rstrip("/")


@dataclass(slots=True)
class Store:
    """A directory by path or URL. Holds no connection that cannot be pickled: build it where it is used."""

    url: str
    """Local path or fsspec URL."""
    fs: fsspec.AbstractFileSystem = field(init=False)
    """The file system of ``url``."""
    root: str = field(init=False)
    """``url`` as that file system names it."""

    def __post_init__(self) -> None:
        self.fs, self.root = _open_fs(self.url)

    @property
    def is_local(self) -> bool:
        """Whether files can be renamed and mapped."""
        return isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """The full path of a file, as the file system names it."""
        return posixpath.join(self.root, name) if name else self.root

    def read(self, name: str) -> bytes | None:
        """The contents of a file; None when there is none."""
        try:
            with self.fs.open(self.path(name), "rb") as file:
                data: Any = file.read()
            return data
        except (FileNotFoundError, NotADirectoryError):
            return None

    def size(self, name: str) -> int | None:
        """Bytes of a file, without reading it; None when there is none."""
        try:
            info: dict[str, Any] = self.fs.info(self.path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return info["size"] if info["type"] == "file" else None

    def directories(self, name: str) -> list[str]:
        """Names of the directories in a directory, which need not exist."""
        try:
            found: list[dict[str, Any]] = self.fs.ls(self.path(name), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(posixpath.basename(f["name"].rstrip("/")) for f in found if f["type"] == "directory")

    def write(self, name: str, data: bytes) -> None:
        """Publish a small file; one that already says the same is left alone."""
        if self.read(name) == data:
            return
        with self.publish([name]) as paths, open(paths[name], "wb") as file:
            file.write(data)

    @contextmanager
    def publish(self, names: list[str]) -> Iterator[dict[str, str]]:
        """Local paths to write these files to; they appear under their names, in order, if the block succeeds."""
        if self.is_local:
            where = {name: os.path.join(self.root, os.path.dirname(name)) for name in names}
            for directory in set(where.values()):
                os.makedirs(directory, exist_ok=True)
            unique = f"{TEMPORARY}{uuid.uuid4().hex[:12]}-"
            paths = {name: os.path.join(where[name], unique + os.path.basename(name)) for name in names}
            try:
                yield paths
                for path in paths.values():
                    _sync(path)  # A rename can reach the disk before the bytes do.
                for name in names:
                    os.replace(paths[name], os.path.join(self.root, name))
                for directory in set(where.values()):
                    _sync(directory)
            finally:
                for path in paths.values():
                    if os.path.exists(path):
                        os.unlink(path)
        else:
            with tempfile.TemporaryDirectory(prefix="gblend-") as scratch:
                paths = {name: os.path.join(scratch, name.replace("/", "_")) for name in names}
                yield paths
                for name in names:
                    self.fs.makedirs(posixpath.dirname(self.path(name)), exist_ok=True)
                    self.fs.put_file(paths[name], self.path(name))

    def remove(self, name: str) -> None:
        """Remove a file or directory, if it is there."""
        if self.fs.exists(self.path(name)):
            self.fs.rm(self.path(name), recursive=True)

    def clear_unfinished(self, directory: str) -> None:
        """Remove what a killed writer has left in a directory. Only the writer that owns the directory may call it."""
        if not self.is_local:
            return
        where = os.path.join(self.root, directory)
        if os.path.isdir(where):
            for name in os.listdir(where):
                if name.startswith(TEMPORARY):
                    os.unlink(os.path.join(where, name))


def _sync(path: str) -> None:
    """Wait until a file or directory is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: str) -> str:
    """Checksum of a local file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def local_media(videos: str, uri: str, *, scratch: str | None = None, max_bytes: int | None = None) -> Iterator[str]:
    """A local path of a media file below the video root, downloaded for the time of use when the root is remote."""
    fs, root = _open_fs(videos)
    if isinstance(fs, LocalFileSystem):
        yield resolve(root, uri)
        return
    if uri.startswith("/") or ".." in uri.split("/") or "\0" in uri:
        raise OutsideRootError(f"{uri!r} is not a plain path below the video root")
    with tempfile.TemporaryDirectory(prefix="gblend-", dir=scratch) as scratch:
        # The name is ours; only the ending, which some containers are recognised by, is the file's.
        ending = os.path.splitext(uri)[1]
        path = os.path.join(scratch, "media" + (ending if ending.isascii() and ending[1:].isalnum() else ""))
        try:
            with fs.open(posixpath.join(root, uri), "rb") as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        except FileNotFoundError:
            raise MissingFileError(f"{uri!r} does not exist below the video root") from None
        except OSError as error:
            raise UnavailableError(f"{uri!r} cannot be fetched: {type(error).__name__}") from None
        yield resolve(scratch, os.path.basename(path))
