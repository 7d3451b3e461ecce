"""What lies in the directory of a trial: enough to go on with it, or to know how it ended.

trial.json     what is trained: the point, what it stands for, the seed; written first, and changed only where the
               trial takes over from another one (`gblend.population`)
reached.json   its objective after every epoch; written by worker 0 of its training
run/           the run directory (`gblend.run_files`), with the state of the run while it is not finished
end.json       how it ended, and of a failed one why; written last

A trial whose ``end.json`` is there is not touched again; one that has none goes on where its run was last saved.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

from gblend.candidate import Candidate, candidate
from gblend.records import read_json, to_json, write_json
from gblend.run_files import CHECKPOINT_FILE, CONFIG_FILE, STATE_DIRECTORY, what_decides
from gblend.space import Point
from gblend.state_files import adopt
from gblend.storage import delete, entries, exists
from gblend.trials import Reached, Trial, reached

TRIAL_FILE, REACHED_FILE, END_FILE, RUN_DIRECTORY = "trial.json", "reached.json", "end.json", "run"

TRIALS_DIRECTORY = "trials"


def trial_place(out: str, number: int) -> str:
    """Directory of a trial of a search.

    >>> trial_place("s3://b/sweep", 7)
    's3://b/sweep/trials/0007'
    """
    return f"{out.rstrip('/')}/{TRIALS_DIRECTORY}/{number:04d}"


def begin_trial(place: str, *, number: int, point: Point, found: Candidate, seed: int) -> None:
    """Say what is trained there; the same trial again changes nothing.

    Raises:
        ValueError: Another trial is there.
    """
    stated = json.loads(json.dumps({"number": number, "point": point, **found.to_json(), "seed": seed}))
    there = _read(f"{place}/{TRIAL_FILE}")
    if there is None:
        write_json(f"{place}/{TRIAL_FILE}", stated)
    elif there != stated:
        keys = sorted({*there, *stated})
        changes = [f"{k}: {there.get(k)} there, {stated.get(k)} now" for k in keys if there.get(k) != stated.get(k)]
        raise ValueError(f"{place} holds another trial: {'; '.join(changes)}; choose another --out or delete it")


def take_over(place: str, of: str, *, epoch: int, point: Point, found: Candidate, later: Sequence[str]) -> bool:
    """Let a trial go on from where another one is, with settings that differ from there on; False: it has done so.

    Args:
        place: Directory of the trial.
        of: That of the other one, which is not in training now.
        epoch: How far it is.
        point: Where the trial is in the space from now on.
        found: What it trains by, from the start.
        later: The changes in ``found``.
    """
    stated, theirs = read_json(f"{place}/{TRIAL_FILE}"), read_json(f"{of}/{RUN_DIRECTORY}/{CONFIG_FILE}")
    taken = stated.get("taken_over", [])
    if any(each["epoch"] == epoch for each in taken):
        return False
    mine, run = {**theirs, "later": list(later)}, f"{place}/{RUN_DIRECTORY}"
    delete(run)
    write_json(f"{run}/{CONFIG_FILE}", mine)
    adopt(
        f"{run}/{STATE_DIRECTORY}",
        what_decides(mine),
        of=f"{of}/{RUN_DIRECTORY}/{STATE_DIRECTORY}",
        their_settings=what_decides(theirs),
    )
    write_json(f"{place}/{REACHED_FILE}", read_json(f"{of}/{REACHED_FILE}"))
    taken = [*taken, {"epoch": epoch, "trial": read_json(f"{of}/{TRIAL_FILE}")["number"]}]
    # Written last: without it all of this is done again.
    write_json(f"{place}/{TRIAL_FILE}", {**stated, "point": point, **found.to_json(), "taken_over": taken})
    return True


def write_reached(place: str, metric: str, found: Sequence[Reached]) -> None:
    """Write all values of the objective so far."""
    write_json(f"{place}/{REACHED_FILE}", {"metric": metric, "reached": [to_json(each) for each in found]})


def read_reached(place: str) -> tuple[Reached, ...]:
    """All values of the objective so far."""
    return tuple(reached(each) for each in (_read(f"{place}/{REACHED_FILE}") or {"reached": []})["reached"])


def end_trial(place: str, state: Literal["finished", "stopped", "failed"], reason: str = "") -> None:
    """Say how it ended, once: what was said first holds."""
    if _read(f"{place}/{END_FILE}") is None:
        write_json(f"{place}/{END_FILE}", {"state": state, "reason": " ".join(reason.split())})


def load_trial(place: str) -> Trial | None:
    """The trial in a directory; None when none was begun there."""
    stated = _read(f"{place}/{TRIAL_FILE}")
    if stated is None:
        return None
    measured = _read(f"{place}/{REACHED_FILE}") or {"metric": "", "reached": []}
    end: dict[str, Any] = _read(f"{place}/{END_FILE}") or {"state": "running", "reason": ""}
    return Trial(
        number=stated["number"],
        point=stated["point"],
        candidate=candidate(stated),
        seed=stated["seed"],
        state=end["state"],
        reason=end["reason"],
        metric=measured["metric"],
        reached=tuple(reached(each) for each in measured["reached"]),
        directory=place,
        checkpoint=_checkpoint(place, end["state"]),
    )


def load_trials(out: str) -> list[Trial]:
    """All trials of a search, by number."""
    names = entries(f"{out.rstrip('/')}/{TRIALS_DIRECTORY}")
    found = (load_trial(trial_place(out, int(name))) for name in names if name.isdecimal())
    return [trial for trial in found if trial is not None]


def _checkpoint(place: str, state: str) -> str:
    run = f"{place}/{RUN_DIRECTORY}"
    if state == "finished":
        return f"{run}/{CHECKPOINT_FILE}"
    numbers = [name for name in entries(f"{run}/{STATE_DIRECTORY}") if name.isdecimal()]
    return f"{run}/{STATE_DIRECTORY}/{numbers[-1]}" if numbers else ""


def _read(path: str) -> Any:
    """A document, or None where there is none."""
    return read_json(path) if exists(path) else None
