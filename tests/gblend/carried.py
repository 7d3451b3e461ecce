"""Runs carried out in this process on tiny data, and what they left."""

from pathlib import Path

import torch

from gblend.methods import RunSpec, with_needed
from gblend.records import (
    epoch_record,
    estimate_record,
    read_json,
    read_lines,
    write_json,
)
from gblend.runner import Runner
from tests.gblend.tiny import MODALITIES, tiny_config, tiny_data


def carry_out(directory: Path, method: str, *, config=None, probes=None, seed: int = 0, data=None):
    runner = Runner(data=data or tiny_data(), config=config or tiny_config(), data_path="memory")
    return runner.run(RunSpec(method=method, seed=seed), str(directory), probes)


def carry_out_offline(root: Path, config=None):
    runs = with_needed([RunSpec(method="offline", seed=0)], MODALITIES, config or tiny_config())
    for run in runs[:-1]:
        carry_out(root / run.name, run.method, config=config)
    probes = dict(zip((*MODALITIES, "fused"), (str(root / run.name) for run in runs), strict=False))
    carry_out(root / "offline", "offline", config=config, probes=probes)
    return estimate_record(read_lines(str(root / "offline" / "weights.jsonl"))[0])


def carry_out_single(root: Path, config=None) -> dict[str, str]:
    """The single-modality runs, by head."""
    places = {head: root / f"uni-{head}" for head in MODALITIES}
    for head, place in places.items():
        carry_out(place, f"uni:{head}", config=config)
    return {head: str(place) for head, place in places.items()}


def forget_new_settings(directory: Path) -> dict:
    """Give a run the ``config.json`` of a version that did not know two settings, one of them in a section."""
    config = read_json(str(directory / "config.json"))
    del config["micro_batches"], config["optim"]["clip_norm"]
    write_json(str(directory / "config.json"), config)
    return config


def parameters(directory: Path) -> dict[str, torch.Tensor]:
    return torch.load(directory / "checkpoint.pt", weights_only=True)


def assert_same_bits(left: Path, right: Path) -> None:
    one, other = parameters(left), parameters(right)
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert torch.equal(values, other[name]), name


def history_of(directory: Path):
    return [epoch_record(line) for line in read_lines(str(directory / "history.jsonl"))]


def estimates_of(directory: Path):
    return [estimate_record(line) for line in read_lines(str(directory / "weights.jsonl"))]
