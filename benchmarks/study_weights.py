r"""What moves the weights? Every way of estimating them, from the full-length probes that `benchmarks.study` trained.

    python -m benchmarks.study_weights sets/both-300/data --out study --epochs 30 [--rate 0.01] [--seeds 5]

The first n epochs of a full-length probe are, but for its random numbers, the probe of length n that an online run
starts with, so one set of runs serves every length, end point, measure and rule; nothing is trained. Per way: the
weights, mean and sd over the seeds; how far their mean is from equal weights; and the share of the weight that another
V would move (from the bootstrap) and that another seed does (half the sum of absolute differences, mean over pairs of
seeds). Where these are as large as the distance to equal weights, the estimate says nothing.
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.study_runs import Setup, cell_name, place
from benchmarks.table import table
from gblend.blend_config import ROBUST, BlendConfig
from gblend.estimate import estimate
from gblend.heads import FUSED
from gblend.moments import Measured, load_moments
from gblend.probes import losses_of
from gblend.run_files import LOSSES_FILE

HEADS = {"rgb": "uni:rgb", "logmel": "uni:logmel", FUSED: "naive"}
"""Head to the variant whose run is its probe."""

WAYS: dict[str, dict[str, Any]] = {
    "paper": {},
    "best-v": {"probe_end": "best-v"},
    "accuracy": {"measure": "accuracy"},
    "floor": {"overfitting_floor": "standard-error"},
    "shrinkage": {"shrinkage": "noise"},
    "floor and shrinkage": {"overfitting_floor": "standard-error", "shrinkage": "noise"},
    "robust": ROBUST,
}
"""Rules beyond the formula, one at a time, and together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One way at one length."""

    weights: np.ndarray
    """(seeds, heads)."""
    moved: float
    """Mean over seeds of the share that a resample of V and T' moves."""

    @property
    def between_seeds(self) -> float:
        """Share of the weight that lies elsewhere in another seed, mean over pairs.

        >>> Found(weights=np.array([[1.0, 0.0], [0.5, 0.5]]), moved=0.0).between_seeds
        0.5
        """
        pairs = list(itertools.combinations(self.weights, 2))
        return statistics.mean(0.5 * float(np.abs(one - other).sum()) for one, other in pairs) if pairs else np.nan

    @property
    def from_equal(self) -> float:
        """Share of the weight by which the mean weights differ from equal ones."""
        mean = self.weights.mean(axis=0)
        return 0.5 * float(np.abs(mean - 1 / mean.size).sum())


def find(probes: Sequence[dict[str, list[Measured]]], length: int, rules: dict[str, Any]) -> Found:
    """Weights of every seed from the first ``length`` epochs of its probes."""
    config = BlendConfig(**rules)
    records = [
        estimate(
            {head: losses_of(of_seed[head][: length + 1], head, config) for head in HEADS},
            config,
            epoch=0,
            probe_epochs=length,
        )
        for of_seed in probes
    ]
    return Found(
        weights=np.array([record.weights for record in records]),
        moved=statistics.mean(record.weights_moved for record in records),
    )


def probes_of(setup: Setup, rate: float, seed: int) -> dict[str, list[Measured]]:
    """The finished runs of one seed at every moment, by head."""
    return {head: load_moments(str(place(setup, variant, rate, seed) / LOSSES_FILE)) for head, variant in HEADS.items()}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--out", required=True)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    setup = Setup(data=given.data, out=given.out, optimizer=given.optimizer, epochs=given.epochs, without=())
    probes = [probes_of(setup, given.rate, seed) for seed in range(given.seeds)]
    lengths = [length for length in (1, 2, 5, 10, 20, 30) if length < given.epochs] + [given.epochs]
    lines = []
    for length in lengths:
        for way, rules in WAYS.items():
            found = find(probes, length, rules)
            sd = found.weights.std(axis=0, ddof=1) if given.seeds > 1 else np.full(len(HEADS), np.nan)
            cells = [f"{mean:.2f}+-{each:.2f}" for mean, each in zip(found.weights.mean(axis=0), sd, strict=True)]
            shares = (found.from_equal, found.moved, found.between_seeds)
            lines.append([length, way, *cells, *(f"{share:.2f}" for share in shares)])
    print(f"{cell_name(given.data)}, rate {given.rate:g}, {given.seeds} seeds\n")
    print(table(["probe epochs", "way", *HEADS, "from equal", "moved by V", "by the seed"], lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
