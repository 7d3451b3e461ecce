"""``search.json``: what decides a search, so that another one does not go on in its directory."""

import json
from collections.abc import Mapping
from typing import Any

from gblend.records import read_object, write_json
from gblend.storage import exists

SEARCH_FILE = "search.json"


def require_same_search(out: str, settings: Mapping[str, Any]) -> None:
    """Write what decides a search, or compare it with what is there.

    Raises:
        ValueError: Another search is there, with the differences.
    """
    path, now = f"{out.rstrip('/')}/{SEARCH_FILE}", json.loads(json.dumps(dict(settings)))
    if not exists(path):
        write_json(path, now)
        return
    there = read_object(path)
    changes = [
        f"{key}: {there.get(key)} there, {now.get(key)} now"
        for key in sorted({*there, *now})
        if there.get(key) != now.get(key)
    ]
    if changes:
        raise ValueError(f"{out} holds another search ({'; '.join(changes)}); choose another --out or delete it")
