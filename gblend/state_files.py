"""Where the states of a run in progress lie, and which of them counts.

    RUN/state/000007/shared.pt       what all workers share, written by worker 0
                     worker-0.pt     what each worker has for itself
                     worker-1.pt
                     whole.json      written last: size and SHA-256 of every file, and its own
    RUN/state/000008/...

A state counts when ``whole.json`` is there and all that it names is as it says: no file need be renamed, and none need
be seen in the order in which it was written. The two newest whole ones are kept, because a machine may die before its
disk has all of the newer. Workers go on from the same state, or all from the start.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Literal, cast

import torch

from gblend import collective
from gblend.records import write_json
from gblend.run_state import State, for_any_worker, split
from gblend.storage import asked, delete, entries, make_parent, read_bytes, write_bytes

FORMAT = 2
"""Of the files; a state of another one does not count."""

WHOLE_FILE, SHARED_FILE = "whole.json", "shared.pt"

NONE = 0
"""Stands for no number: states are numbered from 1."""


class UnusableError(Exception):
    """Why a state does not count."""


@dataclass(kw_only=True)
class StateFiles:
    """The states of one run. All workers call every method together."""

    directory: str
    """Path or fsspec URL, storage that all workers share; made when needed."""
    settings: Mapping[str, Any]
    """What decides the run, as JSON values: a state made with others does not count."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where workers exchange a few numbers."""
    other_sizes: Literal["refuse", "allow"] = "refuse"
    """Whether a group of another size may go on from a state."""
    say: Callable[[str], object] = print
    """Told in a line why a state does not count, on one worker."""
    number: int = NONE
    """Of the newest state there is, whole or not."""
    kept: list[int] = field(default_factory=list)
    """Worker 0: the states that count, at most two, the newest last."""
    others: list[int] = field(default_factory=list)
    """Worker 0: those that do not, or no longer."""

    def newest(self) -> State | None:
        """The newest state that every worker can read; None when there is none.

        Raises:
            ValueError: It was saved by another number of workers, and that is refused.
        """
        first = collective.rank() == 0
        numbers = _numbers(self.directory) if first else []
        # Worker 0's word, so that no worker fails while others wait for it.
        workers = self._agreed(_workers_of(self.directory, numbers, self.settings) if first else NONE)
        if self.other_sizes == "refuse":
            _require_same(workers, collective.world_size(), self.directory)
        self.number = self._agreed(max(numbers, default=NONE))
        self.kept, self.others = [], list(numbers)
        while (number := self._agreed(numbers.pop() if numbers else NONE)) != NONE:
            place, state, why = _place(self.directory, number), None, ""
            try:
                state = _read(place, self.settings)
            except UnusableError as reason:
                why = str(reason)
            failing = collective.first_without(state is not None, device=self.device)
            if failing is None:
                if first:
                    self.others.remove(number)
                    self.kept = [number]
                return state
            if failing == collective.rank():
                self.say(f"{place} is not used: {why}")
        if self.number != NONE and first:
            self.say(f"{self.directory} holds no state that can be used: the run starts anew")
        return None

    def write(self, state: State, *, at: str) -> None:
        """Save a state; once it is whole, delete those it replaces.

        Args:
            state: Of this worker.
            at: Where the run is, in words.
        """
        self.number += 1
        place = _place(self.directory, self.number)
        shared, own = split(state)
        sums = self._of_all_workers(_save(own, f"{place}/{_own_file(collective.rank())}"))
        if collective.rank() != 0:
            return
        files = {SHARED_FILE: _save(shared, f"{place}/{SHARED_FILE}")}
        files |= {_own_file(rank): found for rank, found in enumerate(sums)}
        contents = {
            "format": FORMAT,
            "at": at,
            "workers": collective.world_size(),
            "settings": _digest(self.settings),
            "files": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in files.items()},
        }
        write_json(f"{place}/{WHOLE_FILE}", {**contents, "sha256": _digest(contents)})
        self.others += self.kept[:-1]
        self.kept = [*self.kept[-1:], self.number]
        while self.others:
            delete(_place(self.directory, self.others.pop()))

    def delete(self) -> None:
        """Delete them all."""
        if collective.rank() == 0:
            delete(self.directory)

    def _agreed(self, number: int) -> int:
        return collective.of_worker_0(number, device=self.device)

    def _of_all_workers(self, mine: tuple[int, str]) -> list[tuple[int, str]]:
        """Size and SHA-256 of every worker's file. Each has written its own when this returns."""
        size, digest = mine
        rows = torch.zeros(collective.world_size(), 1 + len(bytes.fromhex(digest)), dtype=torch.int64)
        rows[collective.rank()] = torch.tensor([size, *bytes.fromhex(digest)])
        found = collective.sum_over_workers(rows.to(self.device)).tolist()
        return [(size, bytes(digest).hex()) for size, *digest in found]


def require_workers(directory: str, settings: Mapping[str, Any], workers: int) -> None:
    """Raise ``ValueError`` when the run that these states are of was begun by another number of workers."""
    _require_same(_workers_of(directory, _numbers(directory), settings), workers, directory)


def adopt(directory: str, settings: Mapping[str, Any], *, of: str, their_settings: Mapping[str, Any]) -> None:
    """Take over the newest state of another run, in place of all there are, to go on from it with other settings.

    It is for the caller to know that up to there both settings mean the same training.

    Args:
        directory: Of the states of the run that goes on.
        settings: What decides that run.
        of: Directory of the other run's states.
        their_settings: What decides that one.

    Raises:
        ValueError: The other run has no state that counts.
    """
    delete(directory)
    for number in reversed(_numbers(of)):
        try:
            contents = _contents(_place(of, number), their_settings)
            files = {name: _checked_bytes(_place(of, number), contents, name) for name in contents["files"]}
        except UnusableError:
            continue
        for name, stored in files.items():
            write_bytes(f"{_place(directory, number)}/{name}", stored)
        contents["settings"] = _digest(settings)
        write_json(f"{_place(directory, number)}/{WHOLE_FILE}", {**contents, "sha256": _digest(contents)})
        return
    raise ValueError(f"{of} holds no state that can be used, and another run is to go on from it")


def _numbers(directory: str) -> list[int]:
    """Of all states there are, whole or not, in order."""
    return sorted(int(name) for name in entries(directory) if name.isdecimal())


def _place(directory: str, number: int) -> str:
    return f"{directory}/{number:06d}"


def _own_file(rank: int) -> str:
    return f"worker-{rank}.pt"


def _workers_of(directory: str, numbers: Sequence[int], settings: Mapping[str, Any]) -> int:
    """How many workers saved the newest state that seems to count."""
    for number in reversed(numbers):
        try:
            return _contents(_place(directory, number), settings)["workers"]
        except UnusableError:  # `newest` says so
            continue
    return NONE


def _require_same(before: int, now: int, directory: str) -> None:
    if before not in (NONE, now):
        raise ValueError(
            f"{directory} is of a run begun by {before} training workers, and there are {now}; BatchNorm and dropout "
            f"depend on their number, so a run keeps it: use --workers {before}, or delete that directory to train "
            "from the start; with --min-workers a run goes on with another number"
        )


def _read(place: str, settings: Mapping[str, Any]) -> State:
    """A state as this worker goes on from it."""
    contents = _contents(place, settings)
    shared, workers = _values(place, contents, SHARED_FILE), contents["workers"]
    if workers == collective.world_size():
        return shared | _values(place, contents, _own_file(collective.rank()))
    return shared | for_any_worker([_values(place, contents, _own_file(rank)) for rank in range(workers)])


def _values(place: str, contents: Mapping[str, Any], name: str) -> State:
    """Those in a file of a state, checked."""
    stored = _checked_bytes(place, contents, name)
    return torch.load(io.BytesIO(stored), weights_only=True, map_location="cpu")


def _checked_bytes(place: str, contents: Mapping[str, Any], name: str) -> bytes:
    stored, expected = _bytes_of(place, name), contents["files"][name]
    if len(stored) != expected["bytes"]:
        raise UnusableError(f"{name} has {len(stored)} bytes instead of {expected['bytes']}")
    if hashlib.sha256(stored).hexdigest() != expected["sha256"]:
        raise UnusableError(f"the contents of {name} are not those that were written")
    return stored


def _contents(place: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """``whole.json``, checked."""
    stored = _bytes_of(place, WHOLE_FILE)
    try:
        contents = json.loads(stored)
        written = contents.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError):  # no JSON, or no such document
        raise UnusableError(f"{WHOLE_FILE} is not as it was written") from None
    if written != _digest(contents):
        raise UnusableError(f"the contents of {WHOLE_FILE} are not those that were written")
    if contents["format"] != FORMAT:
        raise UnusableError(f"it has format {contents['format']}, and this version reads format {FORMAT}")
    if contents["settings"] != _digest(settings):
        raise UnusableError("it was made with other settings")
    return contents


def _bytes_of(place: str, name: str) -> bytes:
    try:
        return read_bytes(f"{place}/{name}")
    except FileNotFoundError:
        raise UnusableError(f"it has no {name}" + (", so it is not finished" if name == WHOLE_FILE else "")) from None


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _save(values: State, path: str) -> tuple[int, str]:
    """Write a file; its size and SHA-256."""

    def save(fs: Any, place: str) -> tuple[int, str]:
        make_parent(fs, place)
        with fs.open(place, "wb") as file:
            counted = _Counted(file=file)
            torch.save(values, cast(IO[bytes], counted))  # it calls nothing but `write` and `flush`
        return counted.size, counted.digest.hexdigest()

    return asked(path, save)


@dataclass(kw_only=True)
class _Counted:
    """A file that is written once from start to end, and what went into it."""

    file: Any  # of fsspec: whatever has `write` and `flush`
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def write(self, data: bytes | memoryview) -> int:
        size = memoryview(data).nbytes
        self.size += size
        self.digest.update(data)
        self.file.write(data)
        return size

    def flush(self) -> None:
        self.file.flush()
