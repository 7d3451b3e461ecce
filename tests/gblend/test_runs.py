"""What is said where a run is asked for and something else is named."""

import json
from pathlib import Path

import pytest

from gblend.runs import load_run


def comparison(root: Path, *, finished: tuple[str, ...], unfinished: tuple[str, ...] = ()) -> str:
    for name in (*finished, *unfinished):
        (root / "runs" / name).mkdir(parents=True)
    for name in finished:
        (root / "runs" / name / "result.json").write_text(json.dumps({}))
    return str(root)


def test_a_comparison_in_place_of_a_run_is_answered_with_a_run_of_it_that_has_a_network(tmp_path):
    place = comparison(tmp_path, finished=("ensemble-s0", "equal-s0"), unfinished=("dropout-s0",))
    with pytest.raises(ValueError, match=rf"holds no result\.json; .*such as {place}/runs/equal-s0$"):
        load_run(f"{place}/")


def test_a_comparison_without_a_finished_run_is_told_to_finish_one(tmp_path):
    with pytest.raises(ValueError, match="a comparison of which no run has finished"):
        load_run(comparison(tmp_path, finished=(), unfinished=("equal-s0",)))
