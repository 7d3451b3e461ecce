r"""The whole chain on real picture and sound, made from a PyPI package: play, manifest, shards, comparison, report.

python -m jobs.demo --out demo-out
"""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gblend.config import ComputeConfig
from gblend.methods import ENSEMBLES
from jobs.atari import GAMES, generate, plan_clips
from jobs.cli import run
from jobs.compare import compare
from jobs.manifest import manifest
from jobs.preprocess import preprocess
from jobs.progress import progress
from jobs.recipes import demo as recipe
from jobs.session import connect
from jobs.terminal import Result, say
from schemas.features import FlowSpec, RgbSpec

CLIPS_PER_CLASS = {"train": 32, "val": 6, "test": 24}
"""Clips of each class in each game, per split."""

RGB = RgbSpec(fps=10.0, fixed_size_px=(48, 48), jpeg_quality=95)
"""20 square frames of a 2 s clip: what a narrow network on a CPU can read."""

METHODS = ("uni:rgb", "uni:flow", "uni:logmel", "naive", "equal", "offline", "online", *ENSEMBLES)
"""What the paper is about, and the ensembles of these runs, which cost nothing; `gblend compare` has more."""

STEPS = ("play", "manifest", "preprocess", "train and compare")
"""What it does, in order."""

FLOW = FlowSpec(bound_px=16.0, codec="raw")
"""Displacements between frames 1/10 s apart, at 48 px."""


def demo(*, out: str = "demo-out", seeds: tuple[int, ...] = (0, 1), seed: int = 0, workers: int = 2) -> Result:
    """Make an audio-visual set from Atari games, compare methods on it and write a report.

    Run again, it keeps what is finished.

    Args:
        out: Directory for clips, shards, runs and report.
        seeds: Training seeds of every method.
        seed: Of the clips.
        workers: Training processes.
    """
    root = Path(out).resolve()
    plans = plan_clips(GAMES, clips_per_class=CLIPS_PER_CLASS, seed=seed)
    say(f"four steps, with two seeds about 20 minutes on two cores: {', '.join(STEPS)}; the last takes most of it")
    with connect():
        playing = f"playing {', '.join(GAMES)}: {len(plans)} clips of 2 s with sound"
        with stage(1, playing), progress("play", "clips", total=len(plans)) as shown:
            made = generate(plans, root / "videos", on_progress=lambda done, total: shown.step(done, total, ""))
        with stage(2, "manifest"):
            clips = manifest["csv"](
                annotations=str(made.annotations),
                videos=str(root / "videos"),
                out=str(root / "clips.parquet"),
                task="action",
            ).place
        with stage(3, "decoding, optical flow, log-mel, Arrow shards"):
            data = preprocess(
                manifest=clips,
                videos=str(root / "videos"),
                out=str(root / "data"),
                clips_per_shard=64,
                on_change="redo",
                rgb=RGB,
                flow=FLOW,
            ).place
        with stage(4, "training and comparing"):
            report = compare(
                config=recipe(),
                data=data,
                out=str(root / "comparison"),
                methods=METHODS,
                seeds=seeds,
                compute=ComputeConfig(workers=workers),
            )
    for line in next_steps(out, run=str(report.numbers["advised_run"] or ""), command=gblend_here()):
        say(line)
    say("open this file in a browser:")
    return report


def next_steps(out: str, *, run: str, command: str) -> list[str]:
    """What to do with all this, in lines to copy.

    Args:
        out: As it was named.
        run: Directory of a run of the method that is advised; empty: none is.
        command: With which gblend is called.

    >>> for line in next_steps("demo-out", run="", command="gblend"):
    ...     print(line)
    what the clips are like:  gblend inspect demo-out/data --contact-sheet demo-out/sheet.png
    videos of your own:       README.md, "Your own videos"
    """
    look = [command, "inspect", f"{out}/data", "--contact-sheet", f"{out}/sheet.png"]
    predict = [command, "predict", "--run", os.path.relpath(run or out), f"{out}/videos/test"]
    return [
        f"what the clips are like:  {shlex.join(look)}",
        *([f"use what is advised:      {shlex.join(predict)}"] if run else []),
        'videos of your own:       README.md, "Your own videos"',
    ]


def gblend_here() -> str:
    """How to call gblend from this shell, where its environment may not be active."""
    beside = Path(sys.executable).with_name("gblend")
    return "gblend" if shutil.which("gblend") or not beside.exists() else os.path.relpath(beside)


@contextmanager
def stage(number: int, title: str) -> Iterator[None]:
    """Say what happens, and how long it took."""
    say(f"== {number}/{len(STEPS)} {title}")
    started_s = time.monotonic()
    yield
    say(f"   {time.monotonic() - started_s:.0f} s")


if __name__ == "__main__":
    sys.exit(run(demo, prog="python -m jobs.demo"))
