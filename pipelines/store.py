"""Files that are either complete or not there, on a local disk or at any fsspec URL.

Locally a file is written beside its place and renamed over it; an object store publishes an object only once the whole
of it has arrived, so there a finished local file is put. Nothing is answered from a cache of listings: other processes
write here, too. Credentials come from the environment alone; a URL that holds some is refused without repeating it.
"""

import errno
import hashlib
import os
import posixpath
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pipelines.scratch import process_scratch
from pipelines.source import (
    MissingFileError,
    NotAFileError,
    OutsideRootError,
    TooLargeError,
    UnavailableError,
    resolve,
)
from schemas.store_errors import StoreError, is_missing, is_object_store, refuse_credentials, why, without_client

TEMPORARY = ".tmp-"
"""Start of the names of unfinished files."""

OPTIONS = {"s3": {"max_concurrency": 1}, "s3a": {"max_concurrency": 1}}
"""Per protocol. Ten parts of 50 MiB at once, the default, is memory that every worker of a node would take; the workers
transfer at the same time anyway."""

READ_BYTES = 16 << 20
"""Of a media file, asked for at a time."""

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a full disk, a used-up quota and a limit on the size of files say."""


def _open_fs(url: str) -> tuple[Any, str]:
    refuse_credentials(url)
    scheme = url.split("://")[0]
    try:
        fs, root = url_to_fs(url, use_listings_cache=False, **OPTIONS.get(scheme, {}))
    except ImportError as error:
        raise StoreError(without_client(url, error)) from error
    if is_object_store(fs) and not root.strip("/"):
        raise ValueError(f"{url} names no bucket; give {scheme}://BUCKET or {scheme}://BUCKET/DIRECTORY")
    return fs, root.rstrip("/")


@contextmanager
def _told(fs: Any, url: str) -> Iterator[None]:
    """An error of a remote file system as one line. That a file is not there is an answer, not an error."""
    try:
        yield
    except Exception as error:  # Every such library has exceptions of its own, and not all are OSErrors.
        if isinstance(fs, LocalFileSystem) or is_missing(error):
            raise
        raise StoreError(f"{url} cannot be used: {why(error)}") from error


@contextmanager
def _room(where: str, remedy: str) -> Iterator[None]:
    """A full disk as one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise StoreError(f"there is no space left at {where}; {remedy}: finished shards are kept") from error


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
            with _told(self.fs, self.url):
                data: Any = self.fs.cat_file(self.path(name))
            return data
        except (FileNotFoundError, NotADirectoryError):
            return None

    def size(self, name: str) -> int | None:
        """Bytes of a file, without reading it; None when there is none."""
        info = self._info(name)
        return info["size"] if info is not None and info["type"] == "file" else None

    def is_directory(self) -> bool:
        """Whether the directory is there; in an object store, whether the bucket is, or a file below the prefix."""
        info = self._info("")
        return info is not None and info["type"] == "directory"

    def _info(self, name: str) -> dict[str, Any] | None:
        try:
            with _told(self.fs, self.url):
                return self.fs.info(self.path(name) or "/")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def directories(self, name: str) -> list[str]:
        """Names of the directories in a directory, which need not exist."""
        try:
            with _told(self.fs, self.url):
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
            with _room(self.root, "make room and run again"):
                yield from self._rename(names)
            return
        with tempfile.TemporaryDirectory(dir=process_scratch()) as scratch:
            paths = {name: os.path.join(scratch, f"{i}-{posixpath.basename(name)}") for i, name in enumerate(names)}
            with _room(scratch, "make room or set TMPDIR to where there is some, and run again"):
                yield paths
            with _told(self.fs, self.url):
                for name in names:
                    if not is_object_store(self.fs):
                        self.fs.makedirs(posixpath.dirname(self.path(name)), exist_ok=True)
                    self._put(paths[name], self.path(name))

    def _put(self, local: str, path: str) -> None:
        try:
            self.fs.put_file(local, path)
        except FileNotFoundError as error:  # Said of a bucket alone: an object needs nothing to be there before it.
            raise StoreError(f"{self.url} cannot be used: {why(error)}") from error

    def _rename(self, names: list[str]) -> Iterator[dict[str, str]]:
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

    def remove(self, name: str) -> None:
        """Remove a file or directory, if it is there."""
        with _told(self.fs, self.url):
            if is_object_store(self.fs):
                # One by one: a bulk deletion says nothing of the objects that it was not allowed to delete.
                for path in self.fs.find(self.path(name)):
                    self.fs.rm_file(path)
            elif self.fs.exists(self.path(name)):
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
    """A local path of a media file below the video root, downloaded for the time of use when the root is remote.

    Args:
        videos: The video root, path or URL.
        uri: The file below it.
        scratch: Directory to download into, into a temporary directory there; default: that of the system.
        max_bytes: Of a download; a larger file is refused before it and, should it be larger than its store said,
            during it.
    """
    fs, root = _open_fs(videos)
    if isinstance(fs, LocalFileSystem):
        yield resolve(root, uri)
        return
    if uri.startswith("/") or ".." in uri.replace("\\", "/").split("/") or "\0" in uri:
        raise OutsideRootError(f"{uri!r} is not a plain path below the video root")
    if "?versionId=" in uri and is_object_store(fs):
        raise OutsideRootError(f"{uri!r} asks for a version of an object; give the path alone")
    if not uri or uri.endswith("/"):
        raise NotAFileError(f"{uri!r} is not a file")
    with tempfile.TemporaryDirectory(dir=scratch or process_scratch()) as folder:
        # The name is ours; only the ending, which some containers are recognised by, is the file's.
        ending = os.path.splitext(uri)[1]
        path = os.path.join(folder, "media" + (ending if ending.isascii() and ending[1:].isalnum() else ""))
        try:
            with _room(folder, "make room or set TMPDIR to where there is some, and run again"):
                _download(fs, posixpath.join(root, uri), path, uri=uri, max_bytes=max_bytes)
        except (TooLargeError, NotAFileError, UnavailableError):
            raise
        except StoreError as error:
            raise UnavailableError(f"{uri!r} cannot be fetched: {error}") from None
        except Exception as error:  # As in `_told`.
            if isinstance(error, FileNotFoundError) and is_missing(error):
                raise MissingFileError(f"{uri!r} does not exist below the video root") from None
            raise UnavailableError(f"{uri!r} cannot be fetched: {why(error)}") from None
        yield resolve(folder, os.path.basename(path))


def _download(fs: Any, path: str, target: str, *, uri: str, max_bytes: int | None) -> None:
    """Copy an object, all of it from one version, or none."""
    # Uncached: a read-ahead would ask for 50 MB more than there is use for.
    with fs.open(path, "rb", cache_type="none") as source, open(target, "wb") as file:
        info: dict[str, Any] = getattr(source, "details", None) or fs.info(path)
        if info["type"] != "file":
            raise NotAFileError(f"{uri!r} is not a file")
        size: int | None = info.get("size")
        if max_bytes is not None and size is not None and size > max_bytes:
            raise TooLargeError(f"{uri!r} has {size:,} bytes, allowed are {max_bytes:,}")
        copied = 0
        while piece := source.read(READ_BYTES):
            copied += len(piece)
            if max_bytes is not None and copied > max_bytes:
                raise TooLargeError(f"{uri!r} has more than the {max_bytes:,} bytes that are allowed")
            file.write(piece)
    if size is not None and copied != size:
        raise UnavailableError(f"{uri!r} ended after {copied:,} of {size:,} bytes")
