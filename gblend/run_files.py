"""What a run directory holds, and how a finished run is told from another.

config.json      everything that decides the run; written first: nothing with other settings is put beside it
state/           where the run is, while it is not finished (`gblend.state_files`)
inputs.json      what the network reads and is asked (`gblend.run_inputs`)
holdout.json     clip ids of V
history.jsonl    every head's losses after every epoch
weights.jsonl    every estimate of weights, where the method makes some
predictions.npz  what every head says about V and every scored split
losses.npz       a single branch at every moment, clip by clip: the full-length probe of its head
checkpoint.pt    parameters and buffers
refit.pt         those of the fused head trained anew on the same trunks
result.json      scores and cost; written last: with it, the run is finished

An ensemble trains nothing: it has no history, losses or checkpoint.
"""

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gblend.config import TrainConfig
from gblend.data import RunData
from gblend.methods import RunSpec
from gblend.records import RunResult, judged_by, read_object, read_result
from gblend.storage import exists, read_bytes, write_bytes

CONFIG_FILE, RESULT_FILE, HOLDOUT_FILE = "config.json", "result.json", "holdout.json"
INPUTS_FILE = "inputs.json"
HISTORY_FILE, WEIGHTS_FILE, LOSSES_FILE = "history.jsonl", "weights.jsonl", "losses.npz"
CHECKPOINT_FILE, REFIT_FILE, OUTPUTS_FILE = "checkpoint.pt", "refit.pt", "predictions.npz"
STATE_DIRECTORY = "state"

PREDICT_BY = "predict_by"
"""Runs may differ in it: it decides how a run is read, not what it is."""

PROBES = ("probes", "probe_pass")
"""Runs may differ in this setting of ``blend``, too, under its name and an older one: where probes train changes no
bit."""


def run_settings(spec: RunSpec, config: TrainConfig, data: RunData, data_path: str) -> dict[str, Any]:
    """``config.json``: everything that decides the run."""
    return {
        **config.to_json(),
        "method": spec.method,
        "seed": spec.seed,
        "data": data_path,
        "data_fingerprint": data.fingerprint,
    }


def what_decides(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that runs may differ in.

    >>> what_decides({"epochs": 3, "blend": {"probes": "spread", "smoothing": 0.5}, "predict_by": "stack"})
    {'epochs': 3, 'blend': {'smoothing': 0.5}}
    """
    found = {key: value for key, value in settings.items() if key != PREDICT_BY}
    if "blend" in found:
        found["blend"] = {key: value for key, value in found["blend"].items() if key not in PROBES}
    return found


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``config.json`` of a run that may be older than some settings: one that it lacks had what is its default now.

    >>> old = {"name": "doc", "epochs": 3, "optim": {"name": "adamw"}}
    >>> new = with_defaults(old)
    >>> new["epochs"], new["micro_batches"], new["optim"]["name"], new["optim"]["clip_norm"]
    (3, 1, 'adamw', None)
    """
    return _filled(settings, TrainConfig(name="").to_json())


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """One level of settings.

    >>> flat({"epochs": 3, "optim": {"name": "adamw"}})
    {'epochs': 3, 'optim.name': 'adamw'}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= (
            {f"{key}.{name}": each for name, each in flat(value).items()} if isinstance(value, dict) else {key: value}
        )
    return found


def settings_to_keep(directory: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What ``config.json`` is to hold: what it holds, where `finished_run` found the same run there, begun by an older
    version. What was saved of that run names those settings.
    """
    path = f"{directory}/{CONFIG_FILE}"
    there = read_object(path) if exists(path) else settings
    return {**there, PREDICT_BY: settings[PREDICT_BY]}


def finished_run(directory: str, settings: dict[str, Any]) -> RunResult | None:
    """The result of a finished run, judged as ``settings`` say; None when there is none.

    Raises:
        ValueError: A run is there, finished or not, that has other settings.
    """
    finished = exists(f"{directory}/{RESULT_FILE}")
    if not finished and not exists(f"{directory}/{CONFIG_FILE}"):
        return None
    stored = with_defaults(read_object(f"{directory}/{CONFIG_FILE}"))
    there, now = flat(what_decides(stored)), flat(what_decides(settings))
    for named in (there, now):
        if "data" in named:  # Older versions kept it as it was typed, with a slash at the end of a URL.
            named["data"] = str(named["data"]).rstrip("/")
    changes = [
        f"{key}: {there.get(key)} there, {now.get(key)} now"
        for key in sorted({*there, *now})
        if there.get(key) != now.get(key)
    ]
    if changes:
        raise ValueError(
            f"{directory} holds {'a finished' if finished else 'an unfinished'} run with other settings "
            f"({'; '.join(changes)}); choose another --out or delete it"
        )
    return judged_by(read_result(f"{directory}/{RESULT_FILE}"), settings[PREDICT_BY]) if finished else None


def _filled(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with defaults for those that are missing, in sections as well."""
    given = {
        key: _filled(value, defaults[key]) if isinstance(value, dict) and isinstance(defaults.get(key), dict) else value
        for key, value in values.items()
    }
    return {**defaults, **given}


def save_checkpoint(module: nn.Module, path: str) -> None:
    """Parameters and buffers only."""
    stored = io.BytesIO()
    torch.save(module.state_dict(), stored)
    write_bytes(path, stored.getvalue())


def load_checkpoint(module: nn.Module, path: str) -> None:
    """Read `save_checkpoint`'s file into a network of the same shape; runs no code from it."""
    module.load_state_dict(read_checkpoint(path))


def read_checkpoint(path: str) -> Mapping[str, Tensor]:
    """Parameters and buffers by name."""
    return torch.load(io.BytesIO(read_bytes(path)), weights_only=True, map_location="cpu")
