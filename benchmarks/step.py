"""Training steps per second of `gblend.loop` over a plain PyTorch loop that trains the same networks.

    python -m benchmarks.step [--recipe small-cpu] [--device cpu] [--epochs 10] [--check]     (about three minutes)

The plain loop is what one writes in a notebook: a DataLoader, a cosine rule for the learning rate, a forward pass, a
weighted sum of cross-entropies, a backward pass, an optimiser's step. It knows no missing modality, no other worker, no
kill and no random stream of its own. Both loops train on windows that were cut before, so that reading is in neither,
in one process. They take turns, so that whatever else a machine does befalls both: of one step on a CPU, measured in
CPU time, and of an epoch on a GPU, measured by the clock until it is done. What counts is the median of the ratios of
the plain turns just before and after each of ours to it: a machine may be a third slower for minutes, but rarely from
one turn to the next.

A second table shows how much of its time the loop waits for batches that are read from shards (`benchmarks.waiting`).
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from benchmarks.loader import TASKS, write_clips
from benchmarks.table import table
from benchmarks.waiting import rows as rows_of_waiting
from gblend.clip_dataset import Draw, Sample
from gblend.config import ComputeConfig, TrainConfig
from gblend.data import RunData
from gblend.heads import FUSED, by_key
from gblend.inputs import to_inputs
from gblend.loop import Learner, Position, make_optimizer, train_together
from gblend.model import BlendModel, make_model
from gblend.prepare import prepare
from jobs.recipes import RECIPES
from schemas import FeatureSpec, Task

BUDGET_RATIO = 0.97
"""Least speed of our loop over the plain one."""

SETS = (("rgb", "logmel"), ("rgb", "flow", "logmel"))

AfterStep = Callable[[], object]
"""What a loop calls when a step is done."""

TASK = Task(name="action", kind="single", classes=tuple(f"class {i}" for i in range(10)))


@dataclass(frozen=True, kw_only=True)
class CutWindows:
    """Clips whose windows lie in memory."""

    arrays: dict[str, np.ndarray]
    """Per modality, (clips, ...), as `gblend.inputs.cut_window` makes them."""
    labels: np.ndarray
    """int64 (clips)."""

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The only one."""
        return by_key((TASK,))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, draw: Draw) -> Sample:
        at = draw[0]
        return {
            "position": at,
            "labels": {"": int(self.labels[at])},
            "arrays": {name: values[at] for name, values in self.arrays.items()},
            "present": dict.fromkeys(self.arrays, True),
        }

    def only(self, modalities: tuple[str, ...]) -> "CutWindows":
        """The same windows without the other modalities."""
        return replace(self, arrays={name: self.arrays[name] for name in modalities})


class PlainClips(torch.utils.data.Dataset):
    """The same windows for a DataLoader: (arrays, label) by number."""

    def __init__(self, windows: CutWindows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, at: int) -> tuple[dict[str, np.ndarray], int]:
        return {name: values[at] for name, values in self.windows.arrays.items()}, int(self.windows.labels[at])


def cut_windows(config: TrainConfig, modalities: tuple[str, ...], clips: int) -> CutWindows:
    """Noise: what a step costs does not depend on what is seen."""
    rng, given, mels = np.random.default_rng(0), config.input, FeatureSpec().logmel.mels
    size, frames = given.crop_px, given.frames
    shapes = {"rgb": (frames, size, size, 3), "flow": (frames, 2, size, size)}
    arrays: dict[str, np.ndarray] = {
        name: rng.integers(0, 256, (clips, *shape), dtype=np.uint8)
        for name, shape in shapes.items()
        if name in modalities
    }
    if "logmel" in modalities:
        arrays["logmel"] = rng.normal(size=(clips, given.mel_frames, mels)).astype(np.float32)
    return CutWindows(arrays=arrays, labels=rng.integers(0, len(TASK.classes), clips))


def plain_loop(
    model: BlendModel, windows: CutWindows, config: TrainConfig, weights: Mapping[str, float], after_step: AfterStep
) -> None:
    """What one writes by hand."""
    epochs = config.epochs
    device = next(model.parameters()).device
    optim = config.optim
    kind: Any = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[optim.name]
    options: dict[str, Any] = {"fused": True} if optim.name == "adamw" else {"momentum": 0.9}
    optimizer = kind(model.parameters(), lr=optim.learning_rate, weight_decay=optim.weight_decay, **options)
    loader = DataLoader(PlainClips(windows), batch_size=config.batch_size, shuffle=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    spec = FeatureSpec()
    model.train()
    assert model.fusion is not None
    for _ in range(epochs):
        for arrays, label in loader:
            inputs = to_inputs({name: values.to(device) for name, values in arrays.items()}, spec)
            label = label.to(device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
                features = {name: encoder(inputs[name]) for name, encoder in model.encoders.items()}
                joined = model.fusion(list(features.values()))
                logits = {name: model.heads[name](joined if name == FUSED else features[name]) for name in weights}
            loss = torch.zeros((), device=device)
            for name, weight in weights.items():
                loss = loss + weight * F.cross_entropy(logits[name].float(), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            after_step()


def our_loop(
    model: BlendModel, windows: CutWindows, config: TrainConfig, weights: Mapping[str, float], after_step: AfterStep
) -> None:
    """The loop of every run and probe."""
    data = RunData(
        train=windows,
        train_slice=[0],
        heldout=windows,
        splits={},
        modalities=tuple(windows.arrays),
        spec=FeatureSpec(),
    )
    learner = Learner(model=model, weights=weights, optimizer=make_optimizer(model, config))
    position = Position(start_epoch=0, epochs=config.epochs)
    train_together([learner], data, config, position=position, seed=0, after_step=after_step)


def in_turns(
    loops: Sequence[Callable[[AfterStep], object]], *, steps: int, clock: Callable[[], float]
) -> list[list[float]]:
    """Run loops of equally many steps side by side, each for ``steps`` while the others wait.

    Returns:
        Per loop, what the clock says of each of its turns. What a loop does between two of its steps is in the later
        turn, what it does after its last step in none.
    """
    batons = [threading.Semaphore(0) for _ in loops]
    turns: list[list[float]] = [[] for _ in loops]

    def run(at: int) -> None:
        mine, other = batons[at], batons[(at + 1) % len(loops)]
        torch.set_num_threads(1)  # of this thread
        done = 0
        mine.acquire()
        started_s = clock()

        def after_step() -> None:
            nonlocal done, started_s
            done += 1
            if done % steps == 0:
                turns[at].append(clock() - started_s)
                other.release()
                mine.acquire()
                started_s = clock()

        try:
            loops[at](after_step)
        finally:
            other.release()

    with ThreadPoolExecutor(len(loops)) as threads:
        running = [threads.submit(run, at) for at in range(len(loops))]
        batons[0].release()
        for each in running:
            each.result()
    return turns


def clock_of(device: torch.device) -> Callable[[], float]:
    """CPU time of this process, or the time when a GPU is done, s."""
    if device.type == "cpu":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def compare(
    config: TrainConfig, modalities: tuple[str, ...], heads: str, device: torch.device, given: Any
) -> list[Any]:
    """A row of the table: speed of our loop over the plain one, for all heads or the fused one alone."""
    windows = cut_windows(config, modalities, given.clips)
    joint = make_model(modalities, {"": len(TASK.classes)}, config.model, seed=0)
    model = (joint.branch(FUSED) if heads == "fused" else joint).to(device)
    prepare(model, config, ComputeConfig(compile=given.compile, memory_format=given.memory_format))
    weights = dict.fromkeys(model.head_names, 1.0 / len(model.head_names))
    of_epoch = round(given.clips / config.batch_size)
    steps = 1 if device.type == "cpu" else of_epoch
    turns = in_turns(
        [partial(loop, model, windows, config, weights) for loop in (plain_loop, our_loop)],
        steps=steps,
        clock=clock_of(device),
    )
    plain, ours = ([1000 * turn_s / steps for turn_s in times] for times in turns)
    warm = slice(of_epoch // steps, None)  # The first epoch pays for what is made once.
    ratios = [
        (before + after) / 2 / own for before, after, own in zip(plain[warm], plain[warm][1:], ours[warm], strict=False)
    ]
    medians = [statistics.median(times[warm]) for times in (plain, ours)]
    return [" + ".join(modalities), heads, *medians, statistics.median(ratios), sum(plain[warm]) / sum(ours[warm])]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="small-cpu")
    parser.add_argument("--batch-size", type=int, help="clips per step, in place of the recipe's")
    parser.add_argument("--modalities", nargs="+", help="one set of them, in place of two and of all three")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--memory-format", choices=["channels-last", "contiguous"], default="channels-last")
    parser.add_argument("--compile", choices=["none", "inductor"], default="none")
    parser.add_argument("--clips", type=int, default=256, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=10, help="of each loop; the first is not measured")
    parser.add_argument("--check", action="store_true", help="exit with 1 when the budget is not met")
    given = parser.parse_args()
    device = torch.device(given.device)
    config = RECIPES[given.recipe]()
    config = replace(
        config, epochs=given.epochs, batch_size=given.batch_size or config.batch_size, precision=given.precision
    )
    rows = [
        compare(config, modalities, heads, device, given)
        for modalities in ([tuple(given.modalities)] if given.modalities else SETS)
        for heads in ("fused", "all")
    ]
    titles = ["modalities", "heads", "plain, ms a step", "ours", "median of ratios", "ratio of sums"]
    print(table(titles, rows))
    with tempfile.TemporaryDirectory() as folder:
        data = write_clips(Path(folder), given.clips)
        waits = rows_of_waiting(data, TASKS[:2], epochs=1, device=device)
    print(table(["read from shards", "loader processes", "ms a step", "share of it waiting for data"], waits))
    ratio = min(row[4] for row in rows)
    print(f"training steps per second over a plain loop: {ratio:.3f} (budget {BUDGET_RATIO})")
    return int(given.check and ratio < BUDGET_RATIO)


if __name__ == "__main__":
    sys.exit(main())
