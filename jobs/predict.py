r"""A finished run on video files: no manifest, no shards.

gblend predict --run runs/online video.mp4 folder/          # --top 3 --clips 1 --format table
find . -name '*.mkv' | gblend predict --run runs/online -
"""

import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from gblend.clips import read_dataset_info
from gblend.heads import key_of
from gblend.prediction import Prediction, clip_from, modalities_of
from gblend.prediction import predict as ask
from gblend.records import write_text
from gblend.table_text import aligned, decimal
from gblend.trained import Trained, load_trained
from gblend.views import Crops, Views
from jobs.cli import JobError, Positional
from jobs.cli import run as run_job
from jobs.places import absolute
from jobs.progress import progress
from jobs.terminal import Result, asks_for_document
from pipelines.annotations.files import is_media, list_files
from pipelines.decoder import DecodeJob, DecoderStartError, StoredClip, shared_decoder
from pipelines.flow import prepared
from pipelines.messages import ClipFailure, ClipRequest, SourceRequest
from pipelines.source import DecodeLimits
from schemas.store_errors import refuse_credentials

LIMITS = DecodeLimits()

AHEAD = 1
"""Files that are decoded while the network is asked about another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A file to predict."""

    name: str
    """As it was given, or found in a folder that was."""
    root: str
    """Directory it must not lead out of: path or URL."""
    uri: str
    """Path below it."""


def predict(
    files: Positional[tuple[str, ...]],
    /,
    *,
    run: str = "",
    data: str = "",
    top: int = 5,
    clips: int = 10,
    crops: Crops = "centre",
    format: Literal["auto", "jsonl", "table"] = "auto",
    out: str = "",
    device: Literal["cpu", "cuda"] = "cpu",
    raft_weights: str | None = None,
    limits: DecodeLimits = LIMITS,
) -> Result:
    """Decode video files as the run's data set was, and say what every head of the run makes of them.

    A line of JSON a file: the likeliest classes by head and by way of predicting, and why a head says nothing; or an
    error, and the job goes on. It fails when not one file could be predicted.

    Args:
        files: Video files, folders of them, paths or fsspec URLs; - reads paths from standard input, one a line.
        run: Run directory, as `gblend train` writes it; the first of FILES when not given.
        data: The data set the run was trained on, for a run of before it said itself what it reads.
        top: Classes to name.
        clips: Windows of every file, spread evenly in time; 1 is the central one that runs are scored on.
        crops: Of every window: the centre, or three places along the longer side of the picture.
        format: JSON lines, or a table for people; auto: a table on a terminal. With --json, neither: all lines are in
            the one document.
        out: File to write the JSON lines to in place of standard output, whole or not at all; a table that is asked for
            is shown as well.
        device: Where the network computes.
        raft_weights: Weights of RAFT, for a run on such flow and a machine that cannot download them: path or URL.
        limits: What one file may cost; one that would cost more is an error. A whole file is one clip.
    """
    if not run and files:
        run, *rest = files
        files = tuple(rest)
    if not run or not files:
        raise ValueError("name a run and at least one file: gblend predict --run RUN FILE...")
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    views = Views(clips=clips, crops=crops)
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: there is no such GPU here; leave --device out")
    trained = load_trained(absolute(run), info=read_dataset_info(absolute(data)) if data else None)
    trained.to(torch.device(device))
    job = decode_job(trained, limits=limits, raft_weights=raft_weights)
    out = absolute(out) if out else ""
    document = asks_for_document()
    as_table = format == "table" or (format == "auto" and not out and sys.stdout.isatty())
    kept: list[dict[str, Any]] = []
    good = bad = 0
    # A list on standard input may have no end.
    sources = sources_of(files) if "-" in files else list(sources_of(files))
    total = len(sources) if isinstance(sources, list) else None
    with progress("predict", "files", total=total) as shown:
        for source, made in decoded(sources, job):
            found = answer(source, made, trained, views, top=top)
            good, bad = good + ("error" not in found), bad + ("error" in found)
            if out or document:
                kept.append(found)
            if "error" in found and (document or out):
                print(table(found), file=sys.stderr, flush=True)
            elif as_table and not document:
                print(table(found) + "\n", flush=True)
            elif not (document or out):
                print(json.dumps(found, allow_nan=False), flush=True)
            shown.step(good + bad, total, f"{bad} failed" if bad else "")
    if out:
        write_text(out, "".join(f"{json.dumps(line, allow_nan=False)}\n" for line in kept))
    if not good:
        raise JobError(f"none of the {bad} files could be predicted; the lines above say why" if bad else "no file")
    return Result(place=out, numbers={"predicted": good, "failed": bad, "files": kept} if document else {})


def decode_job(trained: Trained, *, limits: DecodeLimits, raft_weights: str | None = None) -> DecodeJob:
    """What is to be computed of every file; flow is made ready once, before the first of them."""
    features = replace(trained.inputs.features, modalities=modalities_of(trained))
    if "flow" in features.modalities:
        flow = replace(features.flow, raft_weights=raft_weights) if raft_weights else features.flow
        features = replace(features, flow=prepared(flow))
    return DecodeJob(videos="", features=features, limits=limits)


def sources_of(files: Iterable[str]) -> Iterator[Source]:
    """Every file that is named, those of a folder in the order of their paths."""
    for name in files:
        if name == "-":
            yield from sources_of(line for line in map(str.rstrip, sys.stdin) if line not in ("", "-"))
            continue
        refuse_credentials(name)
        remote = "://" in name
        if name.endswith("/") if remote else os.path.isdir(name):
            folder = name.rstrip("/")
            found = [uri for uri in list_files(name).to_pylist() if is_media(uri)]
            if not found:
                yield Source(name=name, root=name, uri="")
            yield from (Source(name=f"{folder}/{uri}", root=name, uri=uri) for uri in found)
            continue
        # Whoever names a link means the file that it leads to; one that is found in a folder must not leave it.
        root, _, uri = (name if remote else os.path.realpath(name)).rpartition("/")
        yield Source(name=name, root=root or "/", uri=uri)


def decoded(sources: Iterable[Source], job: DecodeJob) -> Iterator[tuple[Source, StoredClip | ClipFailure]]:
    """Every file as preprocessing would store it, or why it would not, in order; meanwhile the next one is decoded."""
    waiting: deque[tuple[Source, Future[StoredClip | ClipFailure]]] = deque()
    with ThreadPoolExecutor(max_workers=1) as pool:
        for source in sources:
            waiting.append((source, pool.submit(decode, source, job)))
            if len(waiting) > AHEAD:
                first, made = waiting.popleft()
                yield first, made.result()
        for source, made in waiting:
            yield source, made.result()


def decode(source: Source, job: DecodeJob) -> StoredClip | ClipFailure:
    """One file, decoded by a process of its own."""
    if not source.uri:
        return ClipFailure(stage="open", reason="missing-file", message="the folder holds no media file")
    clip = ClipRequest(clip_id=source.uri, start_s=None, end_s=None)
    request = SourceRequest(uri=source.uri, clips=(clip,), modalities=job.features.modalities)
    try:
        (found,) = shared_decoder().clips(request, replace(job, videos=source.root))
    except DecoderStartError as error:
        raise JobError(str(error)) from error
    return found.made


def answer(
    source: Source, made: StoredClip | ClipFailure, trained: Trained, views: Views, *, top: int
) -> dict[str, Any]:
    """The line of one file."""
    if isinstance(made, ClipFailure):
        missing = made.reason == "missing-file" and source.uri
        said = f"there is no file {source.name}" if missing else made.message
        return {"file": source.name, "error": said, "reason": made.reason}
    rows = {str(name): row for name, row in made.batches.items()}
    found = ask(trained, clip_from(rows, trained, frames=made.presence["frames"]), views)
    if not found.probabilities:
        why = "; ".join(f"{name}: {reason}" for name, reason in found.missing.items())
        return {"file": source.name, "error": f"no head can answer ({why})", "reason": "missing-modality"}
    return {
        "file": source.name,
        "duration_s": made.presence["duration_s"],
        "predict_by": trained.result.primary,
        "predictions": {name: likeliest(name, found, trained, top) for name in found.probabilities},
        "missing": found.missing,
        **({"note": made.note} if made.note else {}),
    }


def likeliest(name: str, found: Prediction, trained: Trained, top: int) -> list[dict[str, Any]]:
    """The best classes of one head or way, the first of equal ones first."""
    classes, probabilities = trained.inputs.by_key[key_of(name)].classes, found.probabilities[name]
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [{"class": classes[at], "probability": float(probabilities[at])} for at in order]


def table(line: dict[str, Any]) -> str:
    """The line of one file for people."""
    if "error" in line:
        return f"{line['file']}\n  error: {line['error']} ({line['reason']})"
    found, missing = line["predictions"], line["missing"]
    most = max(map(len, found.values()))
    titles = ["", *(f"top {place}" for place in range(1, most + 1))]
    rows = [
        [name, *(f"{one['class']} {decimal(one['probability'], 2)}" for one in best), *[""] * (most - len(best))]
        for name, best in found.items()
    ]
    silent = [f"{name}: no answer, {why}" for name, why in missing.items()]
    head = f"{line['file']}, {line['duration_s']:.1f} s, judged by {line['predict_by']}"
    return "\n".join([head, *(f"  {text}" for text in [*aligned(titles, rows).splitlines(), *silent])])


if __name__ == "__main__":
    sys.exit(run_job(predict, prog="python -m jobs.predict"))
