"""What comes from another process that reads clips: a batch, or what went wrong there, as the worker says it.

A batch is packed by the process that made it, its tensors moved to shared memory, where an error can still be told. The
queue between the processes would pack it in a thread that drops what fails, for lack of room in /dev/shm for one, and
its worker would wait for ever.
"""

import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler

from gblend.batches import Batch

_REMEDY = "use fewer --loader-processes, or a smaller batch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """What went wrong in another process that reads, as the worker says it."""

    line: str
    """What happened and, where nothing else says it, when."""
    trace: str
    """Where it was raised."""
    of_the_user: bool
    """A ``ValueError``: its line is enough."""

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """To be called where it is caught."""
        line = str(error)
        if not isinstance(error, ValueError):
            line = f"reading a clip failed: {type(error).__name__}: {line}"
        return cls(line=line, trace=traceback.format_exc(), of_the_user=isinstance(error, ValueError))

    def as_error(self) -> Exception:
        """What happened in another process, as an exception of one line here."""
        error = ValueError(self.line) if self.of_the_user else RuntimeError(self.line)
        error.__cause__ = RuntimeError(self.trace)
        return error


class Parcel:
    """A batch that is packed already; sent to another process it arrives as the batch itself."""

    def __init__(self, batch: Batch) -> None:
        self._packed = bytes(ForkingPickler.dumps(batch))

    def __reduce__(self) -> tuple[Callable[[bytes], Batch], tuple[bytes]]:
        return pickle.loads, (self._packed,)


def packed(batch: Batch) -> Parcel | Failure:
    """A batch as a loader process hands it over, or why it cannot."""
    try:
        return Parcel(batch)
    except (RuntimeError, OSError) as error:
        line = f"a batch could not be handed over ({_first_line(error)}): mostly for lack of room in /dev/shm"
        return Failure(line=f"{line}; {_REMEDY}", trace=traceback.format_exc(), of_the_user=False)


def no_process(error: Exception) -> RuntimeError:
    """The end of a loader process, as its worker meets it: told so, or with a batch that nobody hands over any more."""
    said = _first_line(error)
    return RuntimeError(
        f"a loader process was killed ({said}): mostly for lack of memory, or of room in /dev/shm; {_REMEDY}"
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
