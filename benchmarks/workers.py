"""One run on 1, 2 and 4 workers: whether it is the same run, and what working together costs.

    python -m benchmarks.workers [--workers 1 2 4] [--clips 160] [--epochs 3] [--check]       (about four minutes)

Workers are processes that meet through gloo, as those of Ray Train do, each with one thread; they get the same batches,
each a share. Before training all must measure the same losses to the bit. With BatchNorm over all workers (``sync``) it
is the same training, and only rounding tells them apart: in float64 they must agree after it, and the row in float32
shows how far rounding leads. With BatchNorm of each worker's own clips (``local``) it is another training with the same
batches. Plain SGD is compared: AdamW divides by small numbers, so rounding grows faster.

The cost is CPU time of all workers together over that of one. On more workers than cores the clock says nothing.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from benchmarks.blend_cost import write_clips
from benchmarks.table import table
from gblend import loop, measure, runner
from gblend.config import OptimConfig, TrainConfig
from gblend.data import load_run_data
from gblend.methods import RunSpec
from gblend.runner import Runner
from gblend.runs import load_run
from jobs.recipes import small_cpu

Norm = Literal["local", "sync"]

ROUNDING = 1e-6
"""Most that a held-out loss, in nats, may differ after training in float64 with BatchNorm over all workers."""

CASES: tuple[tuple[Norm, torch.dtype], ...] = (
    ("local", torch.float32),
    ("sync", torch.float32),
    ("sync", torch.float64),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One run."""

    losses: np.ndarray
    """Held-out, in nats (epochs + 1, heads)."""
    cpu_s: float
    """Of all workers in the run, reading, measuring and scoring included."""


def settings(norm: Norm, epochs: int) -> TrainConfig:
    """The recipe small-cpu, which has no dropout, with SGD."""
    base = small_cpu()
    optim = OptimConfig(name="sgd", learning_rate=0.02, momentum=0.9, weight_decay=0.0)
    blend = replace(base.blend, refit_epochs=0)
    return replace(base, modalities=("rgb", "logmel"), epochs=epochs, batch_norm=norm, optim=optim, blend=blend)


def compute_in(kind: torch.dtype) -> None:
    """Have this process make networks, and give them inputs, of another precision: no run needs it, so no setting."""

    def cast(inputs: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
        return lambda *given, **options: {name: values.to(kind) for name, values in inputs(*given, **options).items()}

    made = runner.make_model
    runner.make_model = lambda *given, **options: made(*given, **options).to(kind)
    loop.to_inputs = cast(loop.to_inputs)
    measure.to_inputs = cast(measure.to_inputs)


def work(rank: int, world: int, data: str, config: TrainConfig, kind: torch.dtype, folder: str) -> None:
    """One worker."""
    torch.set_num_threads(1)
    compute_in(kind)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    try:
        loaded = load_run_data(data, config)
        started_s = time.process_time()
        Runner(data=loaded, config=config, data_path=data).run(RunSpec(method="equal", seed=0), f"{folder}/run")
        Path(folder, f"{rank}.txt").write_text(str(time.process_time() - started_s))
    finally:
        dist.destroy_process_group()


def carry_out(world: int, data: str, config: TrainConfig, kind: torch.dtype) -> Found:
    """One run on so many workers."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(work, args=(world, data, config, kind, folder), nprocs=world)
        history = load_run(f"{folder}/run").history
        cpu_s = sum(float(path.read_text()) for path in Path(folder).glob("*.txt"))
    return Found(
        losses=np.array([[score.loss_nats for score in record.heldout.values()] for record in history]), cpu_s=cpu_s
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--clips", type=int, default=160, help="training clips, V among them")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="exit with 1 when losses differ by more than rounding")
    given = parser.parse_args()
    rows: list[list[object]] = []
    largest = {"before": 0.0, "after": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        data = write_clips(Path(folder), given.clips)
        for norm, kind in CASES:
            one: Found | None = None
            for world in given.workers:
                found = carry_out(world, data, settings(norm, given.epochs), kind)
                one = one or found
                apart = np.abs(found.losses - one.losses).max(axis=1)
                differences = [f"{apart[at]:.1e}" for at in (0, -1)]
                precision = str(kind).removeprefix("torch.")
                rows.append([norm, precision, world, found.cpu_s, found.cpu_s / one.cpu_s, *differences])
                largest["before"] = max(largest["before"], float(apart[0]))
                if kind == torch.float64:
                    largest["after"] = max(largest["after"], float(apart[-1]))
    headers = [
        "BatchNorm",
        "computed in",
        "workers",
        "CPU s",
        "over the first",
        "losses apart before training",
        "after it",
    ]
    print(table(headers, rows))
    print(
        f"losses on {', '.join(map(str, given.workers))} workers: apart by {largest['before']:.1e} before training "
        f"(budget 0), {largest['after']:.1e} after it in float64 with BatchNorm over workers (budget {ROUNDING:g})"
    )
    return int(given.check and (largest["before"] > 0.0 or largest["after"] > ROUNDING))


if __name__ == "__main__":
    sys.exit(main())
