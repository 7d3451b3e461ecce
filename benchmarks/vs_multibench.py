"""Accuracy and CPU time beside MultiBench's Gradient-Blending, on the same tensors and from the same parameters.

    git clone https://github.com/pliang279/MultiBench
    python -m benchmarks.vs_multibench MultiBench [--seeds 5] [--clips 600] [--epochs 30]         (about five minutes)

Two modalities of random vectors share the class: ``a`` has few dimensions and shows it weakly, ``b`` has many and can
be learned by heart. Both sides get the same split, V of the same size, encoders, heads, initial parameters, optimiser
(SGD without momentum, constant rate) and super-epochs. MultiBench is run as shipped and with its switch ``delta``; its
V is the first part of the training set, and its prediction a fused head that goes on training on frozen features after
every super-epoch and is kept where the validation loss is lowest. Ours are naive, equal and online, the run as it ends,
and online with its fused head refitted for as many epochs in all; ours never see the validation clips. MultiBench
starts eight loader processes for every epoch; here it gets none, and none of its progress meters, so that CPU time is
that of the method.
"""

import argparse
import contextlib
import copy
import importlib
import io
import statistics
import sys
import tempfile
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.table import table
from gblend.config import BlendConfig, OptimConfig, TrainConfig
from gblend.data import RunData
from gblend.fusion import Concat
from gblend.heads import FUSED, by_key
from gblend.methods import RunSpec
from gblend.model import BlendModel
from gblend.refit import refit
from gblend.training import Training
from schemas import FeatureSpec, Task

CLASSES, DIMS, HIDDEN, BATCH, RATE = 6, {"a": 8, "b": 200}, 32, 32, 0.05
SIGNAL = {"a": 0.9, "b": 0.35}
"""Distance of the classes' centres from the origin, in standard deviations a dimension."""
HOLDOUT_SHARE = 0.2
VAL_CLIPS, TEST_CLIPS = 400, 4000


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Clips as tensors."""

    values: dict[str, Tensor]
    """Per modality, (clips, dim)."""
    labels: Tensor
    """(clips)."""

    def take(self, chosen: slice) -> "Split":
        """Some of the clips."""
        return Split(values={name: v[chosen] for name, v in self.values.items()}, labels=self.labels[chosen])

    def dataset(self) -> TensorDataset:
        """As MultiBench wants it: one tensor a modality, the label last."""
        return TensorDataset(*self.values.values(), self.labels)


class TensorClips:
    """A split as `gblend.clip_dataset.WindowDataset`; every window is the whole clip."""

    tasks = by_key([Task(name="class", kind="single", classes=tuple(map(str, range(CLASSES))))])

    def __init__(self, split: Split, names: tuple[str, ...]) -> None:
        self._split, self._names = split, names

    def __len__(self) -> int:
        return len(self._split.labels)

    def __getitem__(self, draw: tuple[int, Any]) -> dict[str, Any]:
        position = draw[0]
        return {
            "position": position,
            "labels": {"": int(self._split.labels[position])},
            "arrays": {name: self._split.values[name][position].numpy() for name in self._names},
            "present": dict.fromkeys(self._names, True),
        }

    def only(self, modalities: tuple[str, ...]) -> "TensorClips":
        """The same clips, with no other modality than these."""
        return TensorClips(self._split, tuple(name for name in self._names if name in modalities))


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One training."""

    accuracy: float
    """On the test clips."""
    cpu_s: float
    """User and system time of this process."""
    weights: tuple[float, ...]
    """Of the last estimate, the fused head last; empty without one."""


def make_split(clips: int, centres: dict[str, np.ndarray], rng: np.random.Generator) -> Split:
    """Clips around the centres of their classes, with unit noise."""
    labels = rng.integers(0, CLASSES, clips)
    values = {name: centre[labels] + rng.normal(size=(clips, DIMS[name])) for name, centre in centres.items()}
    tensors = {name: torch.from_numpy(v.astype(np.float32)) for name, v in values.items()}
    return Split(values=tensors, labels=torch.from_numpy(labels))


class Encoder(nn.Sequential):
    """Two layers with BatchNorm and dropout, which is where measuring in training mode shows."""

    def __init__(self, dim: int) -> None:
        super().__init__(
            nn.Linear(dim, HIDDEN),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
        )
        self.output_dim = HIDDEN


def make_parts(seed: int) -> BlendModel:
    """The network both sides start from."""
    torch.manual_seed(seed)
    fused = nn.Sequential(nn.Linear(2 * HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    return BlendModel(
        encoders={name: Encoder(dim) for name, dim in DIMS.items()},
        heads={**{name: nn.Linear(HIDDEN, CLASSES) for name in DIMS}, FUSED: fused},
    )


def ours(model: BlendModel, *, train: Split, test: Split, method: str, asked: argparse.Namespace, seed: int) -> Outcome:
    """One of our methods; ``online + refit`` predicts with the refitted head."""
    held = round(HOLDOUT_SHARE * len(train.labels))
    names = tuple(DIMS)
    data = RunData(
        train=TensorClips(train.take(slice(held, None)), names),
        train_slice=list(range(held)),
        heldout=TensorClips(train.take(slice(held)), names),
        splits={"test": TensorClips(test, names)},
        modalities=names,  # pyright: ignore[reportArgumentType]
        spec=FeatureSpec(),
    )
    config = TrainConfig(
        name="vs-multibench",
        epochs=asked.epochs,
        batch_size=BATCH,
        optim=OptimConfig(name="sgd", learning_rate=RATE, momentum=0.0, weight_decay=0.0, schedule="constant"),
        blend=BlendConfig(
            first_epochs=asked.super_epoch,
            next_epochs=asked.super_epoch,
            refit_epochs=asked.refit_epochs * (asked.epochs // asked.super_epoch),
        ),
    )
    plain = method.removesuffix(" + refit")
    network = model if plain != "naive" else model.branch(FUSED)
    fresh_head = copy.deepcopy(model.heads[FUSED].state_dict())
    work = Training(data=data, config=config, spec=RunSpec(method=plain, seed=seed), model=network, needed={})
    began_s = time.process_time()
    work.train()
    predicting = network.branch(FUSED)
    if plain != method:
        predicting = refit(network, data, config, fresh_head=fresh_head, seed=seed)
    cpu_s = time.process_time() - began_s
    return Outcome(
        accuracy=_accuracy(lambda values: predicting(dict(zip(DIMS, values, strict=True)), _all(test))[FUSED], test),
        cpu_s=cpu_s,
        weights=work.estimates[-1].weights if work.estimates else (),
    )


def _all(split: Split) -> dict[str, Tensor]:
    return {name: torch.ones(len(split.labels), dtype=torch.bool) for name in DIMS}


def _accuracy(network: Callable[[list[Tensor]], Tensor], split: Split) -> float:
    with torch.no_grad():
        said = network(list(split.values.values())).argmax(dim=1)
    return float((said == split.labels).float().mean())


class Joined(Concat):
    """Concatenation as MultiBench calls it, on a list."""

    def __init__(self) -> None:
        super().__init__([HIDDEN, HIDDEN])


def theirs(
    model: BlendModel, *, module: Any, train: Split, val: Split, test: Split, asked: argparse.Namespace, delta: bool
) -> Outcome:
    """MultiBench's training; its best network, as it saves it."""
    found: list[list[float]] = []
    module.delta = delta
    estimate = module.gb_estimate

    def noted(*args: Any, **kwargs: Any) -> list[float]:
        found.append(estimate(*args, **kwargs))
        return found[-1]

    module.gb_estimate = noted
    began_s = time.process_time()
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            module.train(
                [model.encoders[name] for name in DIMS],
                model.heads[FUSED],
                [model.heads[name] for name in DIMS],
                Joined(),
                DataLoader(train.dataset(), batch_size=BATCH, shuffle=True),
                DataLoader(val.dataset(), batch_size=BATCH),
                asked.epochs,
                RATE,
                gb_epoch=asked.super_epoch,
                v_rate=HOLDOUT_SHARE,
                optimtype=torch.optim.SGD,
                finetune_epoch=asked.refit_epochs,
                savedir=f"{folder}/best.pt",
                track_complexity=False,
            )
            cpu_s = time.process_time() - began_s
            # A whole pickled module, of this process's own making.
            best = torch.load(f"{folder}/best.pt", weights_only=False).eval()
    finally:
        module.gb_estimate = estimate
    return Outcome(accuracy=_accuracy(best, test), cpu_s=cpu_s, weights=tuple(found[-1]))


@contextlib.contextmanager
def multibench(checkout: Path) -> Iterator[Any]:
    """Their module, without what its reports need (memory meters, plots, progress bars)."""
    if not (checkout / "training_structures/gradient_blend.py").is_file():
        raise ValueError(f"{checkout} is no checkout of MultiBench: it has no training_structures/gradient_blend.py")
    aside = {
        "eval_scripts.complexity": ("all_in_one_train", "all_in_one_test"),
        "eval_scripts.robustness": ("relative_robustness", "effective_robustness", "single_plot"),
        "tqdm": ("tqdm",),
    }
    before = dict(sys.modules)
    for name, functions in aside.items():
        stand_in: Any = types.ModuleType(name)
        stand_in.__spec__ = ModuleSpec(name, None)
        for function in functions:
            setattr(stand_in, function, lambda *args: args[0])
        sys.modules[name] = stand_in
    sys.path.insert(0, str(checkout))
    try:
        module: Any = importlib.import_module("training_structures.gradient_blend")
        module.DataLoader = lambda *args, num_workers, **kwargs: DataLoader(*args, **kwargs)
        yield module
    finally:
        sys.path.remove(str(checkout))
        for name in set(sys.modules) - set(before):
            del sys.modules[name]
        sys.modules.update(before)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vs_multibench", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("checkout", type=Path, help="of github.com/pliang279/MultiBench")
    parser.add_argument("--seeds", type=int, default=5, help="trainings a method")
    parser.add_argument("--clips", type=int, default=600, help="training clips, V among them")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--super-epoch", type=int, default=10, help="epochs between estimates, and of each probe")
    parser.add_argument("--refit-epochs", type=int, default=5, help="of the fused head, a super-epoch")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[Outcome]] = defaultdict(list)
    with multibench(asked.checkout) as module:
        for seed in range(asked.seeds):
            rng = np.random.default_rng(seed)
            centres = {name: SIGNAL[name] * rng.normal(size=(CLASSES, dim)) for name, dim in DIMS.items()}
            centres["b"] /= np.sqrt(DIMS["b"] / DIMS["a"])
            train, val, test = (make_split(n, centres, rng) for n in (asked.clips, VAL_CLIPS, TEST_CLIPS))
            shared = {"train": train, "test": test, "asked": asked}
            runs: dict[str, Callable[[BlendModel], Outcome]] = {
                "MultiBench, as shipped": partial(theirs, module=module, val=val, delta=False, **shared),
                "MultiBench, delta": partial(theirs, module=module, val=val, delta=True, **shared),
                **{
                    f"gblend {method}": partial(ours, method=method, seed=seed, **shared)
                    for method in ("naive", "equal", "online", "online + refit")
                },
            }
            for name, run in runs.items():
                found[name].append(run(make_parts(seed)))
    print(report(found, asked))
    return 0


def report(found: dict[str, list[Outcome]], asked: argparse.Namespace) -> str:
    """The table, differences paired by seed, and the headline."""
    shipped = found["MultiBench, as shipped"]
    rows: list[list[object]] = []
    for name, outcomes in found.items():
        accuracies = [outcome.accuracy for outcome in outcomes]
        differences = [outcome.accuracy - other.accuracy for outcome, other in zip(outcomes, shipped, strict=True)]
        weights = outcomes[-1].weights
        rows.append(
            [
                name,
                f"{statistics.mean(accuracies):.3f} +- {_sd(accuracies):.3f}",
                f"{statistics.mean(differences):+.3f} +- {_sd(differences):.3f}",
                statistics.mean(outcome.cpu_s for outcome in outcomes),
                " ".join(f"{weight:.3f}" for weight in weights) or "-",
            ]
        )
    ours_s, theirs_s = (
        statistics.mean(o.cpu_s for o in found[name]) for name in ("gblend online + refit", "MultiBench, as shipped")
    )
    gain = statistics.mean(
        a.accuracy - b.accuracy for a, b in zip(found["gblend online + refit"], shipped, strict=True)
    )
    headers = ["method", "test accuracy", "over shipped", "CPU s", "last weights (a, b, fused; last seed)"]
    return "\n".join(
        [
            f"{asked.clips} training clips, {asked.epochs} epochs, {asked.seeds} seeds, chance {1 / CLASSES:.3f}",
            "",
            table(headers, rows),
            "",
            f"gblend online + refit over MultiBench as shipped: accuracy {gain:+.3f}, CPU time {ours_s / theirs_s:.2f}",
        ]
    )


def _sd(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else float("nan")


if __name__ == "__main__":
    sys.exit(main())
