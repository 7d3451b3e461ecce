"""What the winner of a search is compared with, at fresh seeds: the paper's schedule and equal weights.

All of them train with the optimiser that the search found, so that differences are of the schedules and not of a
learning rate that was searched for one of them alone.
"""

from typing import Any

from gblend.candidate import Candidate
from gblend.config import BlendConfig
from gblend.later import change_of
from gblend.methods import READERS

FOUND, PAPER_SCHEDULE, EQUAL = "found", "online (10, 5)", "equal"
"""Names of the rows."""


def contestants(found: Candidate) -> dict[str, Candidate]:
    """The winner and its controls, by name.

    >>> rows = contestants(Candidate(method="tracked", settings={"blend.first_epochs": 2, "optim.learning_rate": 0.1}))
    >>> [(name, row.method, row.settings["optim.learning_rate"]) for name, row in rows.items()]
    [('found', 'tracked', 0.1), ('online (10, 5)', 'online', 0.1), ('equal', 'equal', 0.1)]
    """
    optimizer = {name: value for name, value in found.settings.items() if name.startswith("optim.")}
    later = tuple(change for change in found.settings.get("later", ()) if change_of(change).name.startswith("optim."))
    if later:
        optimizer["later"] = later
    # A sum of weights is a step size, so equal weights have the winner's; the paper's is 1.
    sums = {"blend.scale": found.settings.get("blend.scale", BlendConfig().scale)}
    return {
        FOUND: found,
        PAPER_SCHEDULE: Candidate(method="online", settings={**plain(), **PAPER, **optimizer}),
        EQUAL: Candidate(method="equal", settings={**plain(), **sums, **optimizer}),
    }


PAPER: dict[str, Any] = {"blend.first_epochs": 10, "blend.next_epochs": 5}
"""Super-epochs of the paper's experiments."""


def plain() -> dict[str, Any]:
    """Every setting of estimates as in the paper, whatever a recipe has; but for where probes train, which changes none
    of them.
    """
    return {f"blend.{name}": getattr(BlendConfig(), name) for name in READERS if name != "probes"}
