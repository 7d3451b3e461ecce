r"""Data sets of `benchmarks.study`: game clips in any number, and part of the training clips of a manifest.

    python -m benchmarks.study_sets games --out sets/games-600 --train 33
    python -m benchmarks.study_sets part --manifest clips.parquet --out part.parquet --share 0.5

``games`` plays the demo's games (`jobs.atari`, needs ``gblend[demo]``), ``--train`` episodes of each with all six
actions, and writes the data set to ``OUT/data``: frames and log-mel. ``part`` keeps every clip of the other splits and
so large a share of the training clips, stratified by class, whole groups, as V is chosen.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from gblend.holdout import hold_out
from jobs.atari import GAMES, generate, plan_clips
from jobs.manifest import manifest
from jobs.preprocess import preprocess
from jobs.session import connect
from schemas.features import RgbSpec

VAL, TEST = 12, 24
"""Episodes of each game to choose on and to test on."""

RGB = RgbSpec(fps=10.0, fixed_size_px=(32, 32), jpeg_quality=95)
"""What the networks of the study see, stored as such: where things are tells the action, so crops do not move."""


def games(out: Path, train: int) -> str:
    """Play, write a manifest and preprocess."""
    plans = plan_clips(GAMES, clips_per_class={"train": train, "val": VAL, "test": TEST})
    with connect():
        made = generate(plans, out / "videos")
        clips = manifest["csv"](
            annotations=str(made.annotations), videos=str(out / "videos"), out=str(out / "clips.parquet"), task="action"
        ).place
        return preprocess(
            manifest=clips,
            videos=str(out / "videos"),
            out=str(out / "data"),
            modalities=("rgb", "logmel"),
            rgb=RGB,
        ).place


def part(manifest_path: str, out: str, share: float, seed: int) -> str:
    """Write the manifest with fewer training clips."""
    table = pq.read_table(manifest_path)
    label = next(name for name in table.column_names if name.startswith("label."))
    rows = np.flatnonzero(np.array(table["split"].to_pylist()) == "train")
    train = table.take(rows)
    chosen = hold_out(train[label].to_pylist(), train["group"].to_pylist(), share, seed=seed)
    keep = np.ones(len(table), dtype=bool)
    keep[rows[~chosen]] = False
    pq.write_table(table.take(np.flatnonzero(keep)), out)
    return out


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    played = commands.add_parser("games")
    played.add_argument("--out", type=Path, required=True)
    played.add_argument("--train", type=int, required=True)
    fewer = commands.add_parser("part")
    fewer.add_argument("--manifest", required=True)
    fewer.add_argument("--out", required=True)
    fewer.add_argument("--share", type=float, required=True)
    fewer.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.command == "games":
        print(games(given.out.resolve(), given.train))
    else:
        print(part(given.manifest, given.out, given.share, given.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
