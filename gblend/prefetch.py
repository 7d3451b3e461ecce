"""Files of coming batches, fetched in the background while training goes on.

The order of an epoch is known before it begins, so threads walk ahead of it, file by file in the order of first use.
They stay within a share of the cache, or what they bring would drive out what is still to be read.
"""

import threading
from collections.abc import Sequence

from gblend.shard_files import ShardFiles

THREADS = 4
"""Per worker: enough to keep a network busy, few beside those of other workers."""


class Prefetch:
    """Threads that fetch what an epoch reads."""

    def __init__(self, files: ShardFiles, steps: Sequence[Sequence[tuple[str, str]]], *, ahead_bytes: int) -> None:
        """Starts at once.

        Args:
            files: Of the data set; must have a cache.
            steps: Per batch, the files (shard, name) it reads.
            ahead_bytes: Of files that no batch has read yet, at most; one file at least.
        """
        first: dict[tuple[str, str], int] = {}
        for step, names in enumerate(steps):
            for name in names:
                first.setdefault(name, step)
        self._files = files
        self._order = list(first.items())
        self._ahead_bytes = ahead_bytes
        self._turn = threading.Condition()
        self._next = 0
        self._step = -1
        self._waiting: dict[int, int] = {}  # bytes of files ahead, by the step that reads them first
        self._closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(min(THREADS, len(first)))]
        for thread in self._threads:
            thread.start()

    def reached(self, step: int) -> None:
        """Batches up to this one have been read: what they needed is not ahead any more."""
        with self._turn:
            self._step = step
            for at in [at for at in self._waiting if at <= step]:
                del self._waiting[at]
            self._turn.notify_all()

    def close(self) -> None:
        """Fetch nothing more; a file that is under way is finished."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()

    def join(self) -> None:
        """Wait for the threads."""
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        cache = self._files.cache
        assert cache is not None, "there is nothing to prefetch without a cache"
        try:
            while True:
                with self._turn:  # Another thread may take the last one between two looks.
                    at = self._next
                if at >= len(self._order):
                    return
                name, step = self._order[at]
                file = self._files.stored(*name)  # May ask its source, so not while others wait for their turn.
                with self._turn:
                    while not self._closed and self._next == at and not self._has_room(step, file.size):
                        self._turn.wait()
                    if self._closed:
                        return
                    if self._next != at:
                        continue
                    self._next += 1
                    if step > self._step:
                        self._waiting[step] = self._waiting.get(step, 0) + file.size
                    self._turn.notify_all()
                cache.fetch(file)
        except (OSError, ValueError):
            # Whoever reads the file meets the same error, and says it where somebody hears it.
            self.close()

    def _has_room(self, step: int, size: int) -> bool:
        ahead = sum(self._waiting.values())
        return step <= self._step or ahead == 0 or ahead + size <= self._ahead_bytes
