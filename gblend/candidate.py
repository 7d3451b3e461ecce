"""What a search decides about a training: the method, and settings in place of a recipe's. ``best.json`` holds one.

The document can be given to any training of the same recipe (``--schedule best.json``): what it says replaces what the
recipe says, and a flag on the command line replaces what it says.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gblend.config import BlendConfig, TrainConfig
from gblend.methods import BLENDS, READERS
from gblend.records import write_json
from gblend.settings import with_settings
from gblend.storage import read_bytes

FORMAT = 1
"""Of the document."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A method and its settings."""

    method: str
    """One that trains all heads (`gblend.methods`)."""
    settings: dict[str, Any] = field(default_factory=dict)
    """By dotted name (`gblend.settings`), in place of the recipe's."""

    def __post_init__(self) -> None:
        if self.method not in BLENDS:
            raise ValueError(f"a schedule is of a method that blends ({', '.join(BLENDS)}), got {self.method!r}")

    def config(self, recipe: TrainConfig) -> TrainConfig:
        """The recipe's configuration with these settings. A method without probes gets the default of where they train.

        >>> found = Candidate(method="online", settings={"blend.first_epochs": 4})
        >>> found.config(TrainConfig(name="doc")).blend.first_epochs
        4
        """
        no_probes = {} if self.method in READERS["probes"] else {"blend.probes": BlendConfig().probes}
        return with_settings(recipe, {**no_probes, **self.settings})

    def to_json(self) -> dict[str, Any]:
        """JSON values; lists for tuples."""
        return json.loads(json.dumps({"method": self.method, "settings": self.settings}))


def candidate(values: Mapping[str, Any]) -> Candidate:
    """The inverse of `Candidate.to_json`.

    >>> found = Candidate(method="fixed", settings={"blend.fixed_weights": (0.5, 0.5)})
    >>> candidate(found.to_json()) == found
    True
    """
    settings = {
        name: tuple(value) if isinstance(value, list) else value for name, value in dict(values["settings"]).items()
    }
    return Candidate(method=values["method"], settings=settings)


def write_schedule(path: str, found: Candidate, *, about: Mapping[str, Any]) -> None:
    """Write ``best.json``.

    Args:
        path: Where.
        found: What it is to say.
        about: Where it comes from, for people; nothing reads it.
    """
    write_json(path, {"format": FORMAT, **found.to_json(), "about": dict(about)})


def read_schedule(path: str) -> Candidate:
    """Read ``best.json``.

    Raises:
        ValueError: There is no such file, or it is none of these.
    """
    try:
        values = json.loads(read_bytes(path))
    except FileNotFoundError:
        raise ValueError(f"there is no schedule {path}; `gblend tune` writes one as OUT/best.json") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no schedule ({error}); `gblend tune` writes one as OUT/best.json") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        stated = values.get("format") if isinstance(values, dict) else None
        raise ValueError(f"{path} is no schedule of format {FORMAT} (it says {stated}); `gblend tune` writes best.json")
    try:
        return candidate(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no schedule (it lacks or spoils {error}); `gblend tune` writes best.json"
        ) from None
