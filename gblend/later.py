"""Settings that change while a run trains, each from the end of an epoch on.

    --later "4 optim.learning_rate 0.02" "8 blend.fixed_weights [0.2, 0.3, 0.5]"

Up to the first change, a run is the run without it, to the bit. So a population (`gblend.population`) may take over the
state of another member with other settings, and what it ends with is a run that anybody can train from the start.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gblend.config import TrainConfig
from gblend.settings import with_settings

CHANGEABLE = (
    "optim.learning_rate",
    "blend.fixed_weights",
    "blend.smoothing",
    "blend.shrinkage",
    "blend.weight_cap",
    "blend.scale",
)
"""What can change: none of these decides which epochs, clips or networks there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One setting from an epoch on."""

    epoch: int
    """Finished epochs when it begins to hold."""
    name: str
    """Of the setting, dotted."""
    value: Any
    """JSON value."""

    def __str__(self) -> str:
        return f"{self.epoch} {self.name} {json.dumps(self.value)}"


def change_of(text: str) -> Change:
    """The inverse of ``str(change)``; a word needs no quotes.

    Raises:
        ValueError: It is not of this form.

    >>> change_of("8 blend.fixed_weights [0.2, 0.8]").value
    [0.2, 0.8]
    >>> str(change_of("3 blend.scale heads"))
    '3 blend.scale "heads"'
    """
    epoch, _, rest = text.strip().partition(" ")
    name, _, value = rest.strip().partition(" ")
    if not epoch.isdecimal() or not value.strip():
        raise ValueError(f"later must be of the form 'EPOCH NAME VALUE', got {text!r}")
    if name not in CHANGEABLE:
        raise ValueError(f"later can change {', '.join(CHANGEABLE)}, got {name}")
    try:  # every number that can change is a real one
        read = json.loads(value, parse_int=float)
    except json.JSONDecodeError:
        read = value.strip()
    return Change(epoch=int(epoch), name=name, value=read)


def changes_of(config: TrainConfig) -> list[Change]:
    """All changes, in the order in which they begin to hold."""
    return sorted(map(change_of, config.later), key=lambda change: change.epoch)


def change_epochs(config: TrainConfig) -> list[int]:
    """Epochs after which something changes, ascending."""
    return sorted({change.epoch for change in changes_of(config)})


def config_at(config: TrainConfig, epoch: int) -> TrainConfig:
    """The configuration that holds after so many finished epochs.

    >>> config = TrainConfig(name="doc", later=("4 optim.learning_rate 0.02",))
    >>> [config_at(config, epoch).optim.learning_rate for epoch in (3, 4)]
    [0.01, 0.02]
    """
    values = {change.name: change.value for change in changes_of(config) if change.epoch <= epoch}
    return with_settings(config, values) if values else config


def next_change(config: TrainConfig, epoch: int, end: int) -> int:
    """Until when the configuration of an epoch holds, at most until ``end``.

    >>> next_change(TrainConfig(name="doc", later=("4 blend.smoothing 0.5",)), 2, 10)
    4
    """
    return min([end, *(each for each in change_epochs(config) if each > epoch)])


def check_later(config: TrainConfig) -> None:
    """Raise ``ValueError`` where a change cannot be made, or would never hold."""
    changes = changes_of(config)
    for change in changes:
        if not 0 < change.epoch < config.epochs:
            raise ValueError(
                f"later changes {change.name} after epoch {change.epoch}: of {config.epochs} epochs it must be one "
                f"from 1 to {config.epochs - 1}"
            )
        config_at(config, change.epoch)
    moments = [(change.epoch, change.name) for change in changes]
    if len(set(moments)) < len(moments):
        raise ValueError(f"later changes a setting twice after the same epoch: {'; '.join(map(str, changes))}")


def with_change(later: Sequence[str], *, epoch: int, name: str, value: Any) -> tuple[str, ...]:
    """Changes and one more."""
    return (*later, str(Change(epoch=epoch, name=name, value=value)))
