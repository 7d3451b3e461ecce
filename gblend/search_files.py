"""``search.json``: what decides a search, so that another one does not go on in its directory."""

import json
from collections.abc import Mapping
from typing import Any

from gblend.records import read_object, write_json
from gblend.storage import exists

SEARCH_FILE = "search.json"


def require_same_search(out: str, settings: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where another search is, with the differences."""
    path, now = f"{out.rstrip('/')}/{SEARCH_FILE}", _as_written(settings)
    there = read_object(path) if exists(path) else now
    changes = [
        f"{key}: {there.get(key)} there, {now.get(key)} now"
        for key in sorted({*there, *now})
        if there.get(key) != now.get(key)
    ]
    if changes:
        raise ValueError(f"{out} holds another search ({'; '.join(changes)}); choose another --out or delete it")


def write_search(out: str, settings: Mapping[str, Any]) -> None:
    """Write what decides a search."""
    write_json(f"{out.rstrip('/')}/{SEARCH_FILE}", _as_written(settings))


def _as_written(settings: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(settings)))
