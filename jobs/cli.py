"""The command line: a documented function becomes a program. The only file that knows tyro.

A job is a module ``jobs/NAME.py`` with a function (or a dict of subcommands) called NAME. Exit status 0: done, the last
line on stdout is where the result is. 1: the work failed, one line on stderr says why. 2: wrong usage. Flags about how
it speaks (`jobs.terminal.Speech`) are every job's, anywhere on the line, and no job's own.
"""

import difflib
import functools
import importlib
import inspect
import re
import sys
import traceback
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, TypeVar

import tyro
from tyro.conf import Positional

from jobs.terminal import Result, Speech, show, speaking

__all__ = ["JOBS", "Flat", "JobError", "Positional", "SheetFlag", "Unchanged", "main", "run", "split_speech"]

Config = TypeVar("Config")

Flat = Annotated[Config, tyro.conf.arg(name="")]
"""A configuration whose fields become flags of their own: ``--optim.learning-rate``, not ``--config.optim...``."""

Unchanged = Annotated[Config | None, tyro.conf.Fixed, tyro.conf.Suppress]
"""What a recipe is before any flag: of a job's argument ``recipe``, which no flag sets."""

SpeechFlags = Annotated[Speech, tyro.conf.arg(name=""), tyro.conf.FlagCreatePairsOff]
"""Flags of every job."""

SheetFlag = Annotated[str, tyro.conf.arg(aliases=("--out",))]
"""The file that `inspect` writes, which may also be called what other jobs call theirs."""

JOBS = {
    "manifest": "annotations and a video root to a clip manifest",
    "preprocess": "clip manifest to training shards",
    "column": "tensors of your own to a modality of a dataset",
    "inspect": "what a dataset holds: tables and a contact sheet",
    "train": "one run of one method",
    "compare": "methods x seeds to a table and a report",
    "tune": "a search for a schedule of loss weights",
    "evaluate": "a run on a split, several windows a clip",
    "predict": "a run on video files",
    "report": "runs to one HTML page",
    "demo": "all of it on a small real audio-visual set",
}
"""Job name to one line of help; each is imported only when it is asked for."""


ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
"""Colours and the like, which Ray puts into messages."""


class JobError(Exception):
    """The work failed, and the message says all a user needs to know."""


Job = Callable[..., object] | Mapping[str, Callable[..., object]]


Recipes = Mapping[str, Callable[[], object]]


def run(job: Job, argv: Sequence[str] | None = None, *, prog: str | None = None, recipes: Recipes | None = None) -> int:
    """Run a job with command-line arguments and return its exit status.

    ``job`` is a function with keyword-only arguments and a Google-style docstring, or a dict of such functions, which
    become subcommands. What it returns, a `Result` or where one is, is printed, at the end of stdout. With ``recipes``,
    the first argument names one, and what that makes, with the settings of ``--schedule`` where the job has that, is
    the default of the function's argument ``config``. Its argument ``recipe``, where it has that, is the recipe itself,
    whatever the flags say.
    """
    speech, arguments = split_speech(sys.argv[1:] if argv is None else argv)
    try:
        if recipes is not None:
            assert callable(job)
            job, arguments, prog = _with_recipe(job, arguments, prog, recipes)
        with speaking(speech) as out:
            result = _call(job, arguments, prog)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        failure = _failure(error)
        if failure is None:
            raise
        if speech.debug:
            traceback.print_exception(error)
        print(f"error: {_one_line(failure)}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt as stop:
        if speech.debug:
            traceback.print_exception(stop)
        print("error: interrupted", file=sys.stderr, flush=True)
        return 130
    show(result if isinstance(result, Result) else Result(place=str(result)), speech=speech, out=out)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """``gblend JOB ...``: the same as ``python -m jobs.JOB ...``."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = split_speech(given)[1]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    name = arguments[0]
    rest = [argument for at, argument in enumerate(given) if at != given.index(name)]
    if name not in JOBS:
        close = difflib.get_close_matches(name, JOBS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; jobs: {', '.join(JOBS)}"
        print(f"error: there is no job {name!r}{hint}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"jobs.{name}")
    return run(getattr(module, name), rest, prog=f"gblend {name}", recipes=getattr(module, "RECIPES", None))


def split_speech(argv: Sequence[str]) -> tuple[Speech, list[str]]:
    """How to speak, and what is left of a command line; behind ``--`` all words are the job's."""
    names = {f"--{each.name}": each.name for each in fields(Speech)}
    end = list(argv).index("--") if "--" in argv else len(argv)
    found = {names[word]: True for word in argv[:end] if word in names}
    return Speech(**found), [*(word for word in argv[:end] if word not in names), *argv[end:]]


def _call(job: Job, arguments: list[str], prog: str | None) -> object:
    if callable(job):
        return tyro.cli(_with_speech(job), args=arguments, prog=prog)
    subcommands: dict[str, Callable[..., Any]] = {name: _with_speech(each) for name, each in job.items()}
    return tyro.extras.subcommand_cli_from_dict(subcommands, args=arguments, prog=prog)


def _with_speech(job: Callable[..., object]) -> Callable[..., object]:
    """The job with flags about how it speaks: for its help and for misspelt ones, the right ones are taken before."""
    signature = inspect.signature(job)
    added = inspect.Parameter("speech", inspect.Parameter.KEYWORD_ONLY, default=Speech(), annotation=SpeechFlags)

    def call(*given: object, speech: Speech, **named: object) -> object:
        return job(*given, **named)

    plain: Any = job.func if isinstance(job, functools.partial) else inspect.unwrap(job)
    call.__doc__, call.__module__, call.__qualname__ = plain.__doc__, plain.__module__, plain.__qualname__
    call.__annotations__ = {**typing.get_type_hints(inspect.unwrap(plain), include_extras=True), "speech": SpeechFlags}
    call.__signature__ = signature.replace(parameters=[*signature.parameters.values(), added])  # pyright: ignore[reportFunctionMemberAccess]
    return call


def _with_recipe(
    job: Callable[..., object], arguments: list[str], prog: str | None, recipes: Recipes
) -> tuple[Callable[..., object], list[str], str]:
    """The job with a recipe's configuration as default, and what is left of the command line."""
    names = ", ".join(recipes)
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help"):
        print(f"usage: {prog} RECIPE [options]; recipes: {names}\nThe options below show the defaults of the first.\n")
        return functools.partial(job, config=next(iter(recipes.values()))()), arguments, f"{prog} RECIPE"
    if name not in recipes:
        close = difflib.get_close_matches(name, recipes, n=1)
        hint = f"did you mean {close[0]!r}? recipes: {names}" if close else f"recipes: {names}"
        named = bool(name) and not name.startswith("-")
        what = f"there is no recipe {name!r}" if named else "the first argument names a recipe"
        print(f"error: {what}; {hint}", file=sys.stderr)
        raise SystemExit(2)
    config, rest, taken = recipes[name](), arguments[1:], inspect.signature(job).parameters
    path = _value_of("--schedule", rest) if "schedule" in taken else None
    given = {"config": _scheduled(config, path) if path else config}
    if "recipe" in taken:
        given["recipe"] = config
    return functools.partial(job, **given), rest, f"{prog} {name}"


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """What a flag is given on a command line, or None."""
    for at, argument in enumerate(arguments):
        if argument == flag:
            return arguments[at + 1] if at + 1 < len(arguments) else None
        if argument.startswith(f"{flag}="):
            return argument.removeprefix(f"{flag}=")
    return None


def _scheduled(config: Any, path: str) -> object:
    """A recipe with the settings of a schedule: flags on the command line come after both."""
    from gblend.candidate import read_schedule

    return read_schedule(path).config(config)


def _overview() -> str:
    width = max(len(name) for name in JOBS)
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, text in JOBS.items())
    every = " ".join(f"[--{each.name}]" for each in fields(Speech))
    return f"usage: gblend JOB [options] {every}\n\njobs (`gblend JOB --help` for options):\n{listed}"


def _failure(error: Exception) -> Exception | None:
    """What a user should be told of an error; None: a mistake in the program, which needs its traceback.

    An error raised in a Ray task arrives as one of Ray's, also of the original's class, with a coloured traceback for a
    message; only the original is told. Ray is not imported here: where it was not, the error cannot be one of its.
    """
    ray: Any = sys.modules.get("ray.exceptions")
    while ray is not None and isinstance(error, ray.RayTaskError):
        cause = getattr(error, "cause", None)
        if not isinstance(cause, Exception):
            break
        error = cause
    of_ray = ray is not None and isinstance(error, ray.RayError) and not isinstance(error, ray.RayTaskError)
    return error if of_ray or isinstance(error, (JobError, OSError, ValueError)) else None


def _one_line(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"there is no file {error.filename}"
    return " ".join(ANSI.sub("", str(error)).split()) or type(error).__name__


if __name__ == "__main__":
    # Not this module, which is another one than that whose `JobError` the jobs raise.
    sys.exit(importlib.import_module("jobs.cli").main())
