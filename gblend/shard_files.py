"""Where the files of a data set's shards are opened: on a local disk, through a node's cache, or at their source.

Local files are mapped where they are. Others come through a `ShardCache`, checked against their shard's ``done.json``;
without one they are read by ranges, which suits a reader of a few clips.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from gblend.shard_cache import ShardCache, StoredFile
from gblend.storage import Ranges, is_local, open_fs, read_bytes
from schemas import ShardDone
from schemas.layout import DONE_FILE

REMEDY = "rerun `gblend preprocess`"

THREADS = 8
"""Requests at a time: a small file takes a round trip, not bandwidth."""


class ShardFiles:
    """The files of one data set."""

    def __init__(self, data: str, cache: ShardCache | None = None) -> None:
        self.data = data.rstrip("/")
        self.cache = None if is_local(data) else cache
        """Through which files are opened; None: they are opened where they are."""
        self._done: dict[str, ShardDone] = {}

    def path(self, shard: str, file: str) -> str:
        """Of a file of a shard, at its source."""
        return f"{self.data}/{shard}/{file}"

    def open(self, shard: str, file: str, *, fields: list[int] | None = None) -> pa.RecordBatchFileReader:
        """An Arrow IPC file; all columns, or some.

        Raises:
            ValueError: It is missing or damaged, or does not fit into the cache.
        """
        path = self.path(shard, file)
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        try:
            if self.cache is not None:
                mapped = self.cache.open(self.stored(shard, file))
                return pa.ipc.open_file(pa.BufferReader(mapped), options=options)
            if is_local(path):
                # The mapping outlives the descriptor: a large data set has more files than a process may hold open.
                with pa.memory_map(open_fs(path)[1]) as source:
                    return pa.ipc.open_file(pa.BufferReader(source.read_buffer()), options=options)
            return pa.ipc.open_file(pa.PythonFile(Ranges(path), mode="r"), options=options)
        except FileNotFoundError:
            raise ValueError(f"{path} is missing; {REMEDY}") from None
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is not a whole Arrow file ({error}); {REMEDY}") from None

    def stored(self, shard: str, file: str) -> StoredFile:
        """What the shard's ``done.json`` says about one of its files."""
        if shard not in self._done:
            path = self.path(shard, DONE_FILE)
            try:
                stored = read_bytes(path)
            except FileNotFoundError:
                raise ValueError(f"{path} is missing: the shard is not finished; {REMEDY}") from None
            try:
                self._done[shard] = ShardDone.loads(stored.decode())
            except ValueError as error:
                raise ValueError(f"{path} cannot be read ({error}); {REMEDY}") from None
        done = self._done[shard]
        if file not in done.checksums:
            raise ValueError(f"{self.path(shard, DONE_FILE)} does not name {file}; {REMEDY}")
        return StoredFile(url=self.path(shard, file), sha256=done.checksums[file], size=done.sizes[file])

    def fetch(self, names: Iterable[tuple[str, str]]) -> None:
        """Bring files (shard, name) into the cache, several at a time; nothing without a cache."""
        cache = self.cache
        if cache is not None:
            with ThreadPoolExecutor(THREADS) as pool:
                for _ in pool.map(lambda name: cache.fetch(self.stored(*name)), list(names)):
                    pass

    def total_bytes(self, names: Iterable[tuple[str, str]]) -> int:
        """Size of files (shard, name), by their shards' documents."""
        with ThreadPoolExecutor(THREADS) as pool:
            return sum(pool.map(lambda name: self.stored(*name).size, list(names)))
