"""CPU time of an online super-epoch, exact probes and all, over naive training of the same epochs.

    python -m benchmarks.blend_cost [--clips 200] [--epochs 2] [--repeats 3] [--check]        (about five minutes)

Arithmetic sets the floor. A super-epoch trains the k+1 branches as probes and then all heads together. The joint branch
costs what naive training costs, the k single-modality branches together as much again but for the fused head, and so
does the run: 3, for any k. Decoding is less than that, 2, because all probes share one pass. Measuring is counted in
one column and left out in the other: the run is measured after every epoch, as naive training is, and the probes at
their end. The headline is the worst of all.

Clips are 2 s of textured pictures (JPEG), flow and log-mel in shards made on the spot; networks, windows and optimiser
are those of the recipe small-cpu. All of it runs in one process on one thread. Every training is compared with the mean
of the naive ones just before and just after it, and the median of the ratios counts. A decode is a random window cut
from a clip for training, however many networks see it and however few of its modalities are decoded.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch

from benchmarks.table import table
from gblend.blend_config import PAPER, ROBUST
from gblend.clip_dataset import Draw, Sample, WindowDataset
from gblend.config import TrainConfig
from gblend.data import RunData, load_run_data
from gblend.methods import RunSpec
from gblend.model import make_model
from gblend.moments import Measured, measure_both
from gblend.training import Training
from jobs.recipes import small_cpu
from schemas import FeatureSpec, RgbSpec, Task
from tests.gblend.shards import Clip, write_dataset

BUDGET_RATIO = 3.2
"""Most CPU time of a super-epoch over naive training."""
BUDGET_DECODES = 2.0
"""Decodes per clip and epoch: one for all probes together, one for the run."""

FRAMES, SIDE, FPS, MEL_FRAMES = 20, 48, 10.0, 200
SETS = (("rgb", "logmel"), ("rgb", "flow", "logmel"))
"""Two and three modalities: the floor is the same, and the headline is the worse of the two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """One training."""

    cpu_s: float
    """User and system time of this process."""
    measuring_s: float
    """Part of it spent on measuring losses on T' and V."""
    decodes: float
    """Per clip of T and epoch."""

    @property
    def training_s(self) -> float:
        """What is not measuring."""
        return self.cpu_s - self.measuring_s


class CountedClips:
    """A set of clips that counts the random windows drawn from each."""

    def __init__(self, clips: WindowDataset, drawn: Counter[int]) -> None:
        self.clips, self.drawn = clips, drawn

    @property
    def tasks(self) -> Mapping[str, Task]:
        """Those of the clips."""
        return self.clips.tasks

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, draw: Draw) -> Sample:
        if draw[1] is not None:
            self.drawn[draw[0]] += 1
        return self.clips[draw]

    def only(self, modalities: tuple[str, ...]) -> "CountedClips":
        """The same count for every branch."""
        return CountedClips(self.clips.only(modalities), self.drawn)


def write_clips(folder: Path, count: int) -> str:
    """A data set of ``count`` training clips in three classes."""
    rng = np.random.default_rng(0)
    spec = FeatureSpec(rgb=RgbSpec(fps=FPS, fixed_size_px=(SIDE, SIDE)))

    def pictures(frames: int, height: int, width: int, channels: int) -> np.ndarray:
        coarse = rng.integers(0, 256, (frames, 6, 6, channels), dtype=np.uint8)
        return np.stack([cv2.resize(c, (width, height), interpolation=cv2.INTER_CUBIC) for c in coarse])

    def clip(name: str, number: int) -> Clip:
        return Clip(
            name=name,
            label=number % 3,
            frames=pictures(FRAMES, SIDE, SIDE, 3),
            flow=pictures(FRAMES - 1, 2 * SIDE, SIDE, 1).reshape(FRAMES - 1, 2 * SIDE, SIDE),
            logmel=rng.normal(16.0, 8.0, (MEL_FRAMES, spec.logmel.mels)).astype(np.float16),
        )

    splits = {split: [clip(f"{split}{i}", i) for i in range(size)] for split, size in (("train", count), ("val", 6))}
    return write_dataset(folder, splits, spec=spec)


def train(method: str, data: RunData, config: TrainConfig) -> Cost:
    """Train one run, its probes included, and score nothing."""
    drawn: Counter[int] = Counter()
    counted = replace(data, train=CountedClips(data.train, drawn))
    joint = make_model(data.modalities, data.classes, config.model, seed=0, shapes=data.shapes)
    model = joint.branch("fused") if method == "naive" else joint
    run = Training(data=counted, config=config, spec=RunSpec(method=method, seed=0), model=model, needed={})
    measuring_s = 0.0

    def timed(*given: Any) -> Measured:
        nonlocal measuring_s
        started_s = time.process_time()
        found = measure_both(*given)
        measuring_s += time.process_time() - started_s
        return found

    with patch("gblend.training.measure_both", timed), patch("gblend.probes.measure_both", timed):
        started_s = time.process_time()
        run.train()
        cpu_s = time.process_time() - started_s
    decodes = drawn.total() / len(data.train) / config.epochs
    return Cost(cpu_s=cpu_s, measuring_s=measuring_s, decodes=decodes)


def settings(modalities: tuple[Any, ...], epochs: int, **blend: Any) -> TrainConfig:
    base = small_cpu()
    one_super_epoch = replace(base.blend, first_epochs=epochs, **{**PAPER, **blend})
    return replace(base, modalities=modalities, epochs=epochs, blend=one_super_epoch)


def compare(data_path: str, modalities: tuple[str, ...], *, epochs: int, repeats: int) -> list[list[object]]:
    """Rows of the table for one set of modalities."""
    plain = settings(modalities, epochs)
    ways = {
        "all heads, no probes": ("equal", plain),
        "super-epoch, probes side by side": ("online", plain),
        "super-epoch, one after another": ("online", settings(modalities, epochs, probes="sequential")),
        "super-epoch, probes on half of T": ("online", settings(modalities, epochs, probe_fraction=0.5)),
        "super-epoch, robust": ("online", settings(modalities, epochs, **ROBUST)),
    }
    loaded = {way: load_run_data(data_path, config) for way, (_, config) in ways.items()}
    whole = load_run_data(data_path, plain)
    train("naive", whole, plain)  # the first training pays for what is made once
    before = train("naive", whole, plain)
    costs: dict[str, list[Cost]] = {way: [] for way in ("naive", *ways)}
    whole_ratio, bare_ratio = ({way: [] for way in ways} for _ in range(2))
    for _ in range(repeats):
        for way, (method, config) in ways.items():
            cost = train(method, loaded[way], config)
            after = train("naive", whole, plain)
            costs["naive"].append(after)
            costs[way].append(cost)
            whole_ratio[way].append(2 * cost.cpu_s / (before.cpu_s + after.cpu_s))
            bare_ratio[way].append(2 * cost.training_s / (before.training_s + after.training_s))
            before = after
    return [
        [
            " + ".join(modalities),
            way,
            statistics.median(cost.cpu_s for cost in found),
            *(statistics.median(ratio[way]) if way in ways else 1.0 for ratio in (whole_ratio, bare_ratio)),
            found[0].decodes,
        ]
        for way, found in costs.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=200, help="training clips, V among them")
    parser.add_argument("--epochs", type=int, default=2, help="length of the super-epoch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a budget is not met")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = write_clips(Path(folder), given.clips)
        for modalities in SETS:
            rows += compare(data, modalities, epochs=given.epochs, repeats=given.repeats)
    print(table(["modalities", "training", "CPU s", "over naive", "not measuring", "decodes per clip, epoch"], rows))
    exact = [row for row in rows if row[1] == "super-epoch, probes side by side"]
    ratio = max(float(str(value)) for row in exact for value in row[3:5])
    decodes = max(float(str(row[5])) for row in exact)
    print(
        f"online super-epoch over naive: {ratio:.2f} (budget {BUDGET_RATIO}), "
        f"decodes per clip and epoch: {decodes:g} (budget {BUDGET_DECODES:g})"
    )
    return int(given.check and (ratio > BUDGET_RATIO or decodes > BUDGET_DECODES))


if __name__ == "__main__":
    sys.exit(main())
