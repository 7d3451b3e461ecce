r"""Finished runs to one self-contained HTML page.

ray job submit --working-dir . -- \
    python -m jobs.report s3://b/comparison --out s3://b/report.html
"""

import shlex
import sys
from collections.abc import Sequence
from typing import Literal

from gblend.config import InputConfig
from gblend.report import write_report
from gblend.run_files import OUTPUTS_FILE, PREDICT_BY
from gblend.runs import Run, load_runs, unfinished_runs
from gblend.sample_answers import answering_run, load_answers
from gblend.samples import SampleClip, load_samples
from gblend.storage import exists
from gblend.summary import DatasetSummary, summarize_dataset
from gblend.table import comparison_tables
from jobs.cli import Positional, run
from jobs.commands import train_commands
from jobs.places import absolute
from jobs.terminal import Result

TITLE = "Gradient-Blending report"

CLIPS_PER_SPLIT = 2
"""Sample clips on a page."""


def report(
    runs: Positional[tuple[str, ...]],
    /,
    *,
    out: str = "report.html",
    title: str = TITLE,
    data: str = "",
    clips_per_split: int = CLIPS_PER_SPLIT,
    predict_by: Literal["fused", "best-head", "mean", "stack"] | None = None,
) -> Result:
    """Write one HTML page about finished runs: verdict, methods, overfitting curves, OGR, weights, clips, data.

    Args:
        runs: Run directories or comparison directories, paths or fsspec URLs.
        out: Page to write.
        title: Heading of the page.
        data: Dataset directory for the sample clips and the data section; as in the runs' settings when not given.
        clips_per_split: Sample clips to show of every split; 0 for none.
        predict_by: What networks of several heads are judged by; as in the runs' settings when not given.
    """
    if not runs:
        raise ValueError("no run given; name at least one run directory or comparison directory")
    flags = [
        *(["--title", title] if title != TITLE else []),
        *(["--data", data] if data else []),
        *(["--clips-per-split", str(clips_per_split)] if clips_per_split != CLIPS_PER_SPLIT else []),
        *(["--predict-by", predict_by] if predict_by else []),
    ]
    command = shlex.join(["gblend", "report", *runs, "--out", out, *flags])
    places, out, data = list(map(absolute, runs)), absolute(out), absolute(data) if data else ""
    found = [loaded for directory in places for loaded in load_runs(directory, predict_by)]
    unfinished = [name for directory in places for name in unfinished_runs(directory)]
    notes = [f"Not finished, so not on this page: {', '.join(unfinished)}."] if unfinished else []
    page = write_page(
        found,
        out=out,
        title=title,
        data=data,
        clips_per_split=clips_per_split,
        notes=notes,
        command=command,
    )
    named = [f"{run.result.method} seed {run.result.seed}" for run in found]
    return Result(place=page, numbers={"runs": named, "unfinished": unfinished})


def write_page(
    runs: list[Run],
    *,
    out: str,
    title: str = TITLE,
    data: str = "",
    clips_per_split: int = CLIPS_PER_SPLIT,
    notes: Sequence[str] = (),
    command: str,
) -> str:
    """Write the page about these runs and return where it is; arguments as those of `report`, and the command that is
    running.
    """
    samples, answers, summary, said = (), None, None, [*notes, *differing_settings(runs)]
    tables = comparison_tables([run.result for run in runs])
    try:
        samples, summary = describe_data(data or data_of(runs), runs, clips_per_split)
    except (ValueError, OSError) as error:
        if data:
            raise
        # The runs can be looked at where their data cannot be reached; the page then says what it lacks.
        said.append(f"Sample clips and the data section are left out: {error}.")
    asked = answering_run(runs, tables[0])
    if samples and asked is not None and exists(f"{asked.directory}/{OUTPUTS_FILE}"):
        try:
            answers = load_answers(asked, data or data_of(runs), samples)
        except (ValueError, OSError) as error:
            said.append(f"What the heads say about the sample clips is left out: {error}.")
    return write_report(
        runs,
        out=out,
        title=title,
        tables=tables,
        samples=samples,
        answers=answers,
        dataset_summary=summary,
        command="\n".join([*train_commands(runs), command]),
        notes=said,
    )


def differing_settings(runs: list[Run]) -> list[str]:
    """A note when runs differ in more than method and seed: their scores then do not compare methods. By what they are
    judged is no such difference: a table has one way for all.
    """
    keys = sorted({key for run in runs for key in run.config} - {"method", "seed", "blend", PREDICT_BY})
    differing = [key for key in keys if any(run.config.get(key) != runs[0].config.get(key) for run in runs)]
    if not differing:
        return []
    return [
        f"These runs differ in {', '.join(differing)}, not in method and seed alone: differences are not the methods'."
    ]


def data_of(runs: list[Run]) -> str:
    """The data set that all runs were trained on; an error where the settings name none or several."""
    places = sorted({str(run.config["data"]) for run in runs if run.config.get("data")})
    if len(places) != 1:
        raise ValueError(f"the runs' settings name {len(places)} data sets ({', '.join(places)}); choose with --data")
    return places[0]


def describe_data(
    place: str, runs: list[Run], clips_per_split: int
) -> tuple[tuple[SampleClip, ...], DatasetSummary | None]:
    """Sample clips cut as the runs cut them (their setting ``input``, where all agree), and the data section."""
    inputs = [run.config.get("input") for run in runs]
    config = InputConfig.from_json(inputs[0]) if inputs[0] and all(found == inputs[0] for found in inputs) else None
    samples = load_samples(place, config=config, per_split=clips_per_split) if clips_per_split > 0 else ()
    return samples, summarize_dataset(place)


if __name__ == "__main__":
    sys.exit(run(report, prog="python -m jobs.report"))
