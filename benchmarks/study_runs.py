"""Runs of `benchmarks.study`: which variants there are, where each run goes, and the process that trains them."""

import json
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from gblend.blend_config import PAPER, ROBUST
from gblend.config import OptimConfig, TrainConfig
from gblend.data import load_run_data
from gblend.heads import FUSED
from gblend.methods import BLENDS, RunSpec, needed_runs
from gblend.runner import Runner
from jobs.recipes import small_cpu


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A method with settings of its own."""

    method: str
    """Name of `gblend.methods`."""
    blend: dict[str, Any] = field(default_factory=dict)
    """Settings of ``blend`` that differ."""
    longer: int = 1
    """Times the epochs of the others."""


VARIANTS = {
    "naive": Variant(method="naive"),
    "pretrain": Variant(method="pretrain"),
    "equal": Variant(method="equal"),
    "offline": Variant(method="offline"),
    "offline, robust": Variant(method="offline", blend=ROBUST),
    "online": Variant(method="online"),
    "online, robust": Variant(method="online", blend=ROBUST),
    "rgb x4": Variant(method="uni:rgb", longer=4),
    "naive x3": Variant(method="naive", longer=3),
    "equal x3": Variant(method="equal", longer=3),
}
"""Beside the single modalities, all with the sum of weights 1; the last three take at least the CPU time of online."""

SUMS = {
    "naive": Variant(method="naive"),
    "equal": Variant(method="equal"),
    "equal, sum 3": Variant(method="equal", blend={"scale": "heads"}),
    "offline": Variant(method="offline"),
    "offline, sum 3": Variant(method="offline", blend={"scale": "heads"}),
}
"""With SGD."""

CPU_FILE = "cpu.json"
"""CPU seconds of a run; written last."""

RATES = {"adamw": (3e-3, 1e-2), "sgd": (0.03, 0.1, 0.3)}

LEADERS = {FUSED: (FUSED, "refit", "best-head"), "stack": ("mean", "stack")}
"""Ways that share a rate, chosen for the one they are listed under."""


REQUIRED = ("naive", "equal")
"""What others build on or are compared with; any other variant may be left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What all runs of a cell share."""

    data: str
    """Data set directory."""
    out: str
    """Of the study."""
    optimizer: str
    """A key of `RATES`."""
    epochs: int
    """Of every run that is not a longer variant."""
    without: tuple[str, ...]
    """Variants left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What one process does before it takes the next: variants of a cell with one seed and rate."""

    setup: Setup
    """Of the cell."""
    seed: int
    """Of every run."""
    wanted: tuple[tuple[str, float], ...]
    """Variant and rate."""


def config_of(variant: Variant, setup: Setup, rate: float) -> TrainConfig:
    """The recipe as a variant trains it."""
    base = small_cpu()
    optim = OptimConfig(name="adamw", learning_rate=rate, weight_decay=1e-2)
    if setup.optimizer == "sgd":
        optim = OptimConfig(name="sgd", learning_rate=rate, weight_decay=1e-4)
    first = max(1, round(0.4 * setup.epochs))
    return replace(
        base,
        name="study",
        epochs=setup.epochs * variant.longer,
        modalities=("rgb", "logmel"),
        input=replace(base.input, frames=4, frame_step=4, scale_px=None),
        optim=optim,
        blend=replace(
            base.blend,
            first_epochs=first,
            next_epochs=max(1, round(0.3 * setup.epochs)),
            **{**PAPER, **variant.blend},
        ),
    )


def variants_of(setup: Setup) -> dict[str, Variant]:
    """All that are trained, single modalities first."""
    single = {f"uni:{name}": Variant(method=f"uni:{name}") for name in ("rgb", "logmel")}
    every = {**single, **(VARIANTS if setup.optimizer == "adamw" else SUMS)}
    return {name: variant for name, variant in every.items() if name not in setup.without}


def place(setup: Setup, variant: str, rate: float, seed: int) -> Path:
    """Run directory."""
    cell_place = Path(setup.out) / "runs" / f"{cell_name(setup.data)}-{setup.optimizer}-{setup.epochs}"
    return cell_place / f"{rate:g}" / f"{variant.replace(', ', '-').replace(' ', '-')}-s{seed}"


def cell_name(data: str) -> str:
    """Of a data set directory.

    >>> cell_name("sets/games-600/data")
    'games-600'
    """
    path = Path(data)
    return path.parent.name if path.name == "data" else path.name


def work(job: Job) -> None:
    """Train what is not trained yet."""
    torch.set_num_threads(1)
    setup, variants = job.setup, variants_of(job.setup)
    loaded = load_run_data(setup.data, config_of(variants["naive"], setup, 0.1))
    for name, rate in job.wanted:
        variant = variants[name]
        config = config_of(variant, setup, rate)
        spec = RunSpec(method=variant.method, seed=job.seed)
        needed = {
            head: str(place(setup, other.method, rate, job.seed))
            for head, other in needed_runs(spec, loaded.modalities, config).items()
        }
        where = place(setup, name, rate, job.seed)
        if (where / CPU_FILE).exists():
            continue
        shutil.rmtree(where, ignore_errors=True)  # of a run that was stopped, whose cost is not known
        started_s = time.process_time()
        result = Runner(data=loaded, config=config, data_path=setup.data).run(spec, str(where), needed)
        (where / CPU_FILE).write_text(json.dumps(time.process_time() - started_s))
        score = result.scores["val"][FUSED if FUSED in result.heads else result.heads[0]].value
        print(f"{cell_name(setup.data)} {name} {rate:g} seed {job.seed}: val {score:.3f}", flush=True)


def ways_of(variant: Variant) -> tuple[str, ...]:
    """Ways of predicting that a variant leaves."""
    return (FUSED, "refit", "best-head", "mean", "stack") if variant.method in BLENDS else (FUSED,)
