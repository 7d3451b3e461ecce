"""How a job speaks: what it says on the way, and its result, as the user asked and as the terminal allows.

What is said on the way goes to standard output, before the result, which ends it: both are in the log of a submitted
job. A job that is asked for a document leaves standard output to that alone, whoever else prints.
"""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any, TextIO


@dataclass(frozen=True, kw_only=True, slots=True)
class Speech:
    """How every job can be asked to speak."""

    quiet: bool = False
    """Say nothing but the result, and errors."""
    json: bool = False
    """The result as one JSON document on standard output; all else goes to standard error."""
    debug: bool = False
    """Errors with their full traceback."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a job ends with."""

    place: str = ""
    """Path or URL of what it made: the last line on standard output; empty: it made nothing that stays."""
    text: str = ""
    """What it found, for people, where that is the result."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """The same and more for programs; what is not finite becomes null."""

    def document(self) -> dict[str, Any]:
        """One JSON document, whatever the job."""
        written = json.dumps({"result": self.place or None, **self.numbers})
        return json.loads(written, parse_constant=lambda _: None)

    def lines(self) -> list[str]:
        """For people, and for scripts that read the last line."""
        return [line for line in (self.text, self.place) if line]


_speech = Speech()
"""Of the job that runs: threads that pass on what workers say are asked alike."""


@contextmanager
def speaking(speech: Speech) -> Iterator[TextIO]:
    """Speak so for the time of a block; gives standard output as it was, for the document."""
    global _speech
    before, _speech, out = _speech, speech, sys.stdout
    try:
        if speech.json:
            with redirect_stdout(sys.stderr):
                yield out
        else:
            yield out
    finally:
        _speech = before


def say(line: str) -> None:
    """Say something on the way."""
    if not _speech.quiet:
        print(line, flush=True)


def say_aside(line: str) -> None:
    """Say something on standard error: the result is not all that may be read from standard output."""
    if not _speech.quiet:
        print(line, file=sys.stderr, flush=True)


def is_quiet() -> bool:
    """Whether nothing is to be said on the way."""
    return _speech.quiet


def terminal_columns() -> int | None:
    """How wide the terminal is that standard output is; None: it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def asks_for_document() -> bool:
    """Whether the job is to answer programs."""
    return _speech.json


def show(result: Result, *, speech: Speech, out: TextIO) -> None:
    """The result, at the end of standard output."""
    sys.stderr.flush()
    for line in [json.dumps(result.document(), allow_nan=False)] if speech.json else result.lines():
        print(line, file=out, flush=True)
