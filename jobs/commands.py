"""Commands that a page names: the one that is running, and the one that trains given runs again, from their settings:
recipe, data, methods, seeds, workers, and a flag for each setting that is not the recipe's.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gblend.config import ComputeConfig
from gblend.run_files import flat, with_defaults
from gblend.runs import Run
from jobs.cli import split_speech
from jobs.recipes import RECIPES

ABOUT_THE_RUN = ("name", "method", "seed", "data", "data_fingerprint")
"""In ``config.json`` beside the settings of `TrainConfig`."""


def command_line() -> str:
    """The command that is running, as somebody would type it anywhere, however it was to speak."""
    program = Path(sys.argv[0])
    called = f"python -m jobs.{program.stem}" if program.suffix == ".py" else program.name
    return shlex.join([*called.split(), *split_speech(sys.argv[1:])[1]])


def train_commands(runs: Sequence[Run]) -> list[str]:
    """One line for all runs whose settings agree in everything but method and seed, and that as many workers trained;
    runs of recipes that are not ours, or without settings, have none.
    """
    found: dict[tuple[str, str, tuple[str, ...]], list[Run]] = {}
    for run in runs:
        flags = changed_flags(run.config)
        if flags is not None and run.config.get("data"):
            workers = () if run.result.workers == ComputeConfig().workers else ("--workers", str(run.result.workers))
            found.setdefault((run.config["name"], run.config["data"], (*flags, *workers)), []).append(run)
    lines = []
    for (recipe, data, flags), of_settings in found.items():
        methods = list(dict.fromkeys(run.result.method for run in of_settings))
        seeds = sorted({run.result.seed for run in of_settings})
        given = ["--data", data, "--out", "OUT", "--methods", *methods, "--seeds", *map(str, seeds)]
        lines.append(shlex.join(["gblend", "compare", recipe, *given, *flags]))
    return lines


def changed_flags(config: Mapping[str, Any]) -> list[str] | None:
    """Flags for the settings that differ from the recipe's; None where no recipe of ours is named, or a flag cannot say
    a setting.

    >>> from jobs.recipes import small_cpu
    >>> changed_flags({**small_cpu().to_json(), "epochs": 15, "method": "equal"})
    ['--epochs', '15']
    """
    if config.get("name") not in RECIPES:
        return None
    base, flags = flat(RECIPES[config["name"]]().to_json()), []
    for key, value in flat(with_defaults(config)).items():
        if key in ABOUT_THE_RUN or base.get(key) == value:
            continue
        values = value if isinstance(value, list) else [value]
        if key.startswith("model.encoders.other.") or any(isinstance(each, list | dict) for each in values):
            return None
        flags += ["--" + key.replace("_", "-"), *("None" if each is None else str(each) for each in values)]
    return flags
