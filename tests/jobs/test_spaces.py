"""The recipes' spaces: every point of the grid, and random ones, give a run that gblend accepts and that reads them."""

import itertools
import math
from dataclasses import replace

import pytest

from gblend.methods import check_methods
from gblend.schedule import super_epochs
from gblend.space import grid_points, random_points
from jobs.recipes import RECIPES, small_cpu
from jobs.spaces import SPACES, blends, schedules, weights

HEADS = ("rgb", "logmel", "fused")
TASKS = ("verb/rgb", "verb/logmel", "verb/fused", "noun/rgb", "noun/logmel", "noun/fused")


def space_of(config, *, space=blends, heads=HEADS):
    return lambda draw: space(draw, config, heads)


def short(epochs: int):
    return replace(small_cpu(), epochs=epochs, modalities=("rgb", "logmel"))


def schedules_and_probes(epochs: int):
    """The space in which one thing depends most on another, and the lengths of super-epochs."""

    def space(draw):
        found = schedules(draw, short(epochs), HEADS)
        first, following = (found.settings.get(f"blend.{name}_epochs", 1) for name in ("first", "next"))
        return found.method, found.settings, super_epochs(epochs, first, following)

    return space


def test_schedules_of_a_grid_are_those_of_brute_force():
    found = {
        (drawn.made[0], drawn.point["blend.first_epochs"], drawn.point.get("blend.next_epochs"))
        for drawn in grid_points(schedules_and_probes(3))
    }
    wanted = {
        (method, first, following)
        for method, first, following in itertools.product(("online", "tracked"), (1, 2, 3), (1, 2, 3, None))
        if not (method == "tracked" and first == 3)
        if (following is None) == (first == 3)
        if following is None or following <= 3 - first
    }
    assert found == wanted


def test_settings_of_probes_are_drawn_where_there_are_probes_and_nowhere_else():
    for drawn in grid_points(schedules_and_probes(4)):
        (method, settings, lengths), point = drawn.made, drawn.point
        own = [] if method == "tracked" else lengths[point["blend.reuse"] == "offline" :]
        assert ("blend.probe_fraction" in point) == bool(own)
        assert ("blend.probe_epochs" in point) == (max(own, default=1) > 1)
        assert point.get("blend.probe_epochs", 1) <= max(own, default=1)
        assert {"method": method, **settings} == point


def test_smoothing_is_drawn_only_where_there_is_an_estimate_before():
    config = short(3)
    for drawn in random_points(space_of(config), seed=0, count=60):
        lengths = super_epochs(3, drawn.point["blend.first_epochs"], drawn.point.get("blend.next_epochs", 1))
        estimates = len(lengths) - (drawn.made.method == "tracked")
        assert ("blend.smoothing" in drawn.point) == (estimates > 1)


def test_the_end_of_a_probe_is_drawn_only_where_a_probe_has_epochs_to_choose_from():
    seen = set()
    for drawn in random_points(space_of(short(3)), seed=0, count=60):
        point, online = drawn.point, drawn.made.method == "online"
        lengths = super_epochs(3, point["blend.first_epochs"], point.get("blend.next_epochs", 1))
        longest = max(lengths if online else lengths[:-1])
        chooses = min(longest, point.get("blend.probe_epochs", longest)) > 1
        assert ("blend.probe_end" in point) == chooses
        seen.add(chooses)
    assert seen == {True, False}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("space", SPACES)
def test_random_points_of_every_recipe_are_accepted(name, space):
    config = replace(RECIPES[name](), modalities=("rgb", "logmel"))
    for drawn in random_points(space_of(config, space=SPACES[space]), seed=0, count=25):
        check_methods([drawn.made.method], ("rgb", "logmel"), drawn.made.config(config))


def test_a_run_of_one_epoch_has_one_super_epoch_and_no_tracked():
    drawn = random_points(space_of(short(1)), seed=0, count=20)
    assert {each.made.method for each in drawn} == {"online"}
    assert not any("blend.next_epochs" in each.point for each in drawn)


@pytest.mark.parametrize("heads", [HEADS, TASKS])
def test_weights_are_shares_in_every_task(heads):
    for drawn in random_points(space_of(short(3), space=weights, heads=heads), seed=1, count=10):
        shares = drawn.made.settings["blend.fixed_weights"]
        assert drawn.made.method == "fixed"
        assert len(shares) == len(heads)
        for start in range(0, len(heads), 3):
            assert math.fsum(shares[start : start + 3]) == pytest.approx(1.0)
            ratio = drawn.point[f"weight.{heads[start]}"] / drawn.point[f"weight.{heads[start + 1]}"]
            assert shares[start] / shares[start + 1] == pytest.approx(ratio)
