"""What no search could use: said in one line before anything starts, not by trials that fail of it or ignore it."""

import importlib.util
from collections.abc import Mapping
from typing import Any

from gblend.config import ComputeConfig, TrainConfig
from gblend.contest import contestants
from gblend.methods import check_methods
from gblend.run_files import flat
from gblend.space import random_points
from jobs.spaces import CENTRES
from jobs.trial import Search
from schemas import Task


def require_usable(
    num_samples: int,
    max_concurrent: int | None,
    scheduler: str,
    search: str,
    seed: int,
    final_seeds: tuple[int, ...],
    config: TrainConfig,
    compute: ComputeConfig,
) -> None:
    """Raise ``ValueError`` where no search could be right."""
    if num_samples < 1:
        raise ValueError(f"--num-samples must be at least 1, got {num_samples}")
    if max_concurrent is not None and max_concurrent < 1:
        raise ValueError(f"--max-concurrent must be at least 1, got {max_concurrent}")
    if not final_seeds or seed in final_seeds or min(final_seeds) < 0:
        raise ValueError(
            f"--final-seeds must be one or more, not negative and not hold the seed of the search ({seed}), by which "
            f"the winner was chosen; got {' '.join(map(str, final_seeds)) or 'none'}"
        )
    if config.later:
        raise ValueError("--later is not for a search: it is what a trial of a population ends with; leave it out")
    if scheduler == "pbt" and search == "optuna":
        raise ValueError("--scheduler pbt moves the settings itself; use --search random or grid for where it begins")
    if scheduler == "pbt" and num_samples < 2:
        raise ValueError(f"--scheduler pbt needs a population of --num-samples 2 or more, got {num_samples}")
    if search == "optuna" and importlib.util.find_spec("optuna") is None:
        raise ValueError("--search optuna needs the package optuna; pip install 'gblend[tune]', or use another search")
    if compute.ingest == "ray":
        raise ValueError("--ingest ray is not for a search: its trials leave no CPUs to read clips on; use torch")
    if config.blend.probes == "spread":
        raise ValueError("--blend.probes spread is not for a search: its trials share the machines already; use shared")


def require_readers_of(search: Search, samples: int, tasks: Mapping[str, Task]) -> None:
    """Raise ``ValueError`` where the recipe sets what a trial, or what it may be compared with, does not read."""
    methods: dict[str, TrainConfig] = {}
    for drawn in random_points(search.space_of, seed=search.seed, count=samples):
        for each in contestants(drawn.made).values():
            methods.setdefault(each.method, each.config(search.recipe))
    for method, config in methods.items():
        check_methods([method], search.modalities, config, tasks)


def require_not_drawn(search: Search, samples: int, *, recipe: TrainConfig) -> None:
    """Raise ``ValueError`` where what changed ``recipe`` into the search's is what the space draws whatever it says."""
    before = flat(recipe.to_json())
    given = {name: value for name, value in flat(search.recipe.to_json()).items() if value != before.get(name)}
    for drawn in random_points(search.space_of, seed=search.seed, count=samples):
        for name in drawn.made.settings:
            if name in given and name not in CENTRES:
                flag = name.replace("_", "-")
                raise ValueError(
                    f"--{flag} {words(given[name])} would not be used: --space {search.space} draws it; "
                    "leave it out, or search a space that does not draw it"
                )


def words(value: Any) -> str:
    """As it is given on a command line."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
