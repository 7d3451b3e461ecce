"""Files at any path or fsspec URL, and what a store comes to that does not answer.

A remote store that fails is asked again a few times (`WAITS_S`). Then, and at once where that cannot help, the error is
one line (`StoreError`) about the URL, whatever its client raised. That a file is not there is an answer, and errors of
local files are left as they are. Nothing is answered from a cache of listings: other processes write here, too.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.store_errors import (
    StoreError,
    is_final,
    is_missing,
    is_object_store,
    refuse_credentials,
    why,
    without_client,
)

NEVER_OTHERWISE = (TypeError, AttributeError, NotImplementedError, MemoryError)
"""Mistakes, of ours or of a client: another attempt would end as the first did."""

Answer = TypeVar("Answer")

WAITS_S = (1.0, 4.0, 16.0)
"""Before a store that did not answer is asked again. s3fs and gcsfs ask a handful of times within seconds themselves,
other file systems of fsspec once."""


DELETIONS = 3
"""A deletion that meets another one stops midway, and is done again; what is left then is the other one's. In an object
store the mark of an empty directory may stay, which is nobody's file."""


def open_fs(url: str) -> tuple[Any, str]:
    """The file system of a path or URL, and what it is called there.

    Raises:
        ValueError: Its client is not installed, or the URL holds credentials.
    """
    refuse_credentials(url)
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ValueError(without_client(url, error)) from error


def is_local(url: str) -> bool:
    """Whether a path or URL is on a file system of this machine."""
    return isinstance(open_fs(url)[0], LocalFileSystem)


def asked(url: str, ask: Callable[[Any, str], Answer]) -> Answer:
    """What ``ask`` makes of a file system and a name there; of a remote one it may be called several times.

    Raises:
        StoreError: The store does not answer, or refuses.
        OSError: What a file system of this machine raises; and `FileNotFoundError` of any.
    """
    fs, place = open_fs(url)
    if isinstance(fs, LocalFileSystem):
        return ask(fs, place)
    for wait_s in (*WAITS_S, None):
        try:
            fs.invalidate_cache(place)
            return ask(fs, place)
        except Exception as error:  # Clients raise errors of their own, which share no class.
            wait_or_raise(error, url, wait_s)
    raise AssertionError("the last attempt returns or raises")


def wait_or_raise(error: Exception, url: str, wait_s: float | None) -> None:
    """After an error of a remote store: wait until it may be asked again, or raise what it comes to.

    Args:
        error: Of its client.
        url: What was asked for.
        wait_s: None after the last attempt.
    """
    if is_missing(error) or isinstance(error, (StoreError, *NEVER_OTHERWISE)):
        raise error
    if is_final(error):
        raise StoreError(f"{url} cannot be used: {why(error)}") from error
    if wait_s is None:
        raise StoreError(f"{url} cannot be used, {len(WAITS_S) + 1} attempts failed: {why(error)}") from error
    time.sleep(wait_s)


class Ranges:
    """A file that is read where it is, by ranges; for whom it is enough to be asked for bytes, such as Arrow."""

    closed = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._file: Any = asked(url, lambda fs, place: fs.open(place, "rb"))
        self.seek, self.tell, self.close = self._file.seek, self._file.tell, self._file.close

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        at = self._file.tell()

        def again(fs: Any, place: str) -> bytes:
            self._file.seek(at)
            return self._file.read(size)

        return asked(self._url, again)


def exists(url: str) -> bool:
    """Whether there is a file or directory."""
    return _info(url) is not None


def is_directory(url: str) -> bool:
    """Whether there is a directory; in an object store, a file below it."""
    info = _info(url)
    return info is not None and info["type"] == "directory"


def entries(url: str) -> dict[str, str]:
    """Names in a directory, in order, and their types (file or directory); none where there is no directory."""
    if not is_directory(url):
        return {}
    try:
        found = asked(url, lambda fs, place: fs.ls(place, detail=True))
    except FileNotFoundError:  # deleted by now
        return {}
    return dict(sorted((entry["name"].rstrip("/").rpartition("/")[2], entry["type"]) for entry in found))


def read_bytes(url: str) -> bytes:
    """The whole of a file, which must fit into memory."""
    return asked(url, lambda fs, place: fs.cat_file(place))


def write_bytes(url: str, data: bytes) -> None:
    """Write a file, whole or not at all; the directory is made when needed."""
    try:
        asked(url, lambda fs, place: _write(fs, place, data))
    except FileNotFoundError as error:
        if is_local(url):
            raise
        # Said of a bucket alone: an object needs nothing to be there before it.
        raise StoreError(f"{url} cannot be used: {why(error)}") from error


def delete(url: str) -> None:
    """Delete a file, or a directory and all in it, if it is there."""
    for _ in range(DELETIONS):
        if not exists(url):
            return
        with suppress(FileNotFoundError):  # Others may delete there, too, and a repeated request may find it gone.
            asked(url, _delete)


def _delete(fs: Any, place: str) -> None:
    if not is_object_store(fs):
        fs.rm(place, recursive=True)
        return
    for each in fs.find(place):  # s3fs does not tell which of many deletions at once was refused.
        fs.rm_file(each)


def _info(url: str) -> dict[str, Any] | None:
    try:
        # Not `exists` of the file system: fsspec's own says of any error that there is no file.
        return asked(url, lambda fs, place: fs.info(place))
    except (FileNotFoundError, NotADirectoryError):
        return None


def make_parent(fs: Any, place: str) -> None:
    """Make the directory of a file, where there are directories: in an object store it would make a bucket."""
    if not is_object_store(fs):
        fs.makedirs(place.rpartition("/")[0], exist_ok=True)


def _write(fs: Any, place: str, data: bytes) -> None:
    if is_object_store(fs):  # There an object appears once all of it has arrived.
        fs.pipe_file(place, data)
        return
    partial = f"{place}.partial-{os.getpid()}"
    make_parent(fs, place)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(partial, data)
        fs.mv(partial, place)
        return
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # A rename can reach the disk before the bytes do.
        os.replace(partial, place)
    except OSError:  # of a full disk, above all: half a file would keep it full
        Path(partial).unlink(missing_ok=True)
        raise
