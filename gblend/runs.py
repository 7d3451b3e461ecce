"""Finished runs as they lie in a directory: read back whole, from a local path or any fsspec URL."""

import json
from dataclasses import dataclass
from typing import Any

from gblend.methods import ENSEMBLES
from gblend.records import (
    EpochRecord,
    EstimateRecord,
    RunResult,
    epoch_record,
    estimate_record,
    judged_by,
    read_lines,
    read_object,
    read_result,
)
from gblend.storage import entries, exists, is_directory


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A finished run."""

    name: str
    """Name of its directory."""
    config: dict[str, Any]
    """``config.json``; empty where there is none."""
    result: RunResult
    """``result.json``, judged as asked for."""
    history: tuple[EpochRecord, ...]
    """``history.jsonl``, by epoch."""
    estimates: tuple[EstimateRecord, ...]
    """``weights.jsonl``, by epoch; empty for a run that estimated nothing."""
    directory: str = ""
    """Where it lies, for what is read only when needed; empty for a run that was never written."""


def load_run(directory: str, predict_by: str | None = None) -> Run:
    """Read one run directory; ``predict_by`` is what it is to be judged by, None: what it was judged by."""
    base = directory.rstrip("/")
    if not exists(directory):
        raise ValueError(f"{directory} does not exist; give a run directory or a comparison directory")
    if not exists(f"{base}/result.json"):
        raise ValueError(f"{directory} holds no result.json; {_remedy(base)}")
    result = read_result(f"{base}/result.json")
    try:
        return Run(
            name=base.rsplit("/", 1)[-1],
            config=read_object(f"{base}/config.json") if exists(f"{base}/config.json") else {},
            result=result if predict_by is None else judged_by(result, predict_by),
            history=tuple(sorted(map(epoch_record, read_lines(f"{base}/history.jsonl")), key=lambda r: r.epoch)),
            estimates=tuple(sorted(map(estimate_record, read_lines(f"{base}/weights.jsonl")), key=lambda r: r.epoch)),
            directory=base,
        )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{directory} was not written by this version of gblend ({error}); rerun it") from error


def load_runs(directory: str, predict_by: str | None = None) -> list[Run]:
    """Every finished run of a comparison directory (``runs/<name>/``), by name; of a run directory, that run alone."""
    if not is_directory(f"{directory.rstrip('/')}/runs"):
        return [load_run(directory, predict_by)]
    unfinished = unfinished_runs(directory)
    finished = [name for name in _run_names(directory) if name not in unfinished]
    if not finished:
        raise ValueError(f"{directory}/runs holds no finished run (none has a result.json); let the comparison finish")
    return [load_run(f"{directory.rstrip('/')}/runs/{name}", predict_by) for name in finished]


def unfinished_runs(directory: str) -> tuple[str, ...]:
    """Runs of a comparison directory without a ``result.json``: `load_runs` leaves them out, so a caller can say so."""
    base = directory.rstrip("/")
    return tuple(name for name in _run_names(directory) if not exists(f"{base}/runs/{name}/result.json"))


def _remedy(base: str) -> str:
    """What to name in place of a directory that is no run: of a comparison, a run, one with a network if there is."""
    if not is_directory(f"{base}/runs"):
        return "is it a run directory, and has its run finished?"
    unfinished = unfinished_runs(base)
    finished = sorted(set(_run_names(base)) - set(unfinished), key=lambda name: (name.startswith(ENSEMBLES), name))
    if not finished:
        return "it is a comparison of which no run has finished; let one finish, and name that"
    return f"it is a comparison: name one of its runs, such as {base}/runs/{finished[0]}"


def _run_names(directory: str) -> list[str]:
    return [name for name, kind in entries(f"{directory.rstrip('/')}/runs").items() if kind == "directory"]
