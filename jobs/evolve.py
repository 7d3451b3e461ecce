"""Between two generations of a population: who takes over from whom, written down before it is done."""

import json
from collections.abc import Callable
from typing import Any

from gblend.candidate import candidate
from gblend.population import Member, moved_on, takeovers
from gblend.records import read_json, write_json
from gblend.storage import exists
from gblend.trial_files import load_trials, take_over, trial_place
from jobs.trial import Search

GENERATIONS_FILE = "generations.json"


def evolve(search: Search, *, generation: int, epoch: int, say: Callable[[str], object]) -> None:
    """Let the worst members take over from the best at the end of a generation; what was done before stays as it is.

    Args:
        search: Whose trials are the members; none of them is in training.
        generation: From 0.
        epoch: At its end.
        say: Told in a line who goes on from whom.
    """
    path = f"{search.out}/{GENERATIONS_FILE}"
    known: list[dict[str, Any]] = read_json(path) if exists(path) else []
    if len(known) <= generation:
        known = [*known, _decided(search, generation, epoch)]
        write_json(path, known)
    for each in known[generation]["taken_over"]:
        found = candidate(each)
        new = take_over(
            trial_place(search.out, each["trial"]),
            trial_place(search.out, each["from"]),
            epoch=epoch,
            point=each["point"],
            found=found,
            later=found.settings.get("later", ()),
        )
        if new:
            say(f"trial {each['trial']} goes on from trial {each['from']} after epoch {epoch}")


def _decided(search: Search, generation: int, epoch: int) -> dict[str, Any]:
    members = {trial.number: trial for trial in load_trials(search.out) if trial.state == "running" and trial.reached}
    values = {number: trial.reached[-1].value for number, trial in members.items()}
    decided = []
    for number, other in takeovers(values, seed=search.seed, generation=generation).items():
        of = Member(point=members[other].point, candidate=members[other].candidate)
        member = moved_on(search.space_of, of, search.recipe, epoch=epoch, seed=(search.seed, generation, number))
        decided.append({"trial": number, "from": other, "point": member.point, **member.candidate.to_json()})
    stated = {"epoch": epoch, "objectives": {str(number): value for number, value in values.items()}}
    return json.loads(json.dumps({**stated, "taken_over": decided}))
