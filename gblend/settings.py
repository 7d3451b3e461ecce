"""Settings by dotted name, as flags and documents call them: ``blend.first_epochs`` is a field of a field.

Trials of a search and the schedules it finds are lists of such names and values. They go into a configuration through
this one door, so that every check that a flag passes is passed by them as well.
"""

import difflib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from gblend.config import TrainConfig

Settings = Mapping[str, Any]
"""Values by dotted name."""


def with_settings(config: TrainConfig, settings: Settings) -> TrainConfig:
    """The configuration with some settings changed, those of a part all at once.

    Raises:
        ValueError: There is no such setting, or its value is refused.

    >>> with_settings(TrainConfig(name="doc"), {"epochs": 20, "blend.first_epochs": 4}).blend.first_epochs
    4
    """
    return _with(config, settings, "")


def setting_of(config: TrainConfig, name: str) -> Any:
    """The value of one setting.

    >>> setting_of(TrainConfig(name="doc"), "optim.learning_rate")
    0.01
    """
    part: Any = config
    for field in _checked(config, name).split("."):
        part = getattr(part, field)
    return part


def setting_names(config: Any, prefix: str = "") -> list[str]:
    """Every setting there is.

    >>> [name for name in setting_names(TrainConfig(name="doc")) if name.startswith("optim.w")]
    ['optim.weight_decay', 'optim.warmup_epochs']
    """
    names = []
    for field in fields(config):
        value = getattr(config, field.name)
        names += setting_names(value, f"{prefix}{field.name}.") if is_dataclass(value) else [f"{prefix}{field.name}"]
    return names


def _with(part: Any, settings: Settings, prefix: str) -> Any:
    changes: dict[str, Any] = {}
    within: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        first, _, rest = name.partition(".")
        if rest and is_dataclass(getattr(part, first, None)):
            within.setdefault(first, {})[rest] = value
        else:
            changes[_checked(part, name, prefix)] = tuple(value) if isinstance(value, list) else value
    for name, inner in within.items():
        changes[name] = _with(getattr(part, name), inner, f"{prefix}{name}.")
    return replace(part, **changes)


def _checked(part: Any, name: str, prefix: str = "") -> str:
    known = setting_names(part)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {prefix}{close[0]}?" if close else ""
        raise ValueError(f"there is no setting {prefix}{name}{hint}")
    return name
