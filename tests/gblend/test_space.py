"""Spaces, against brute force: every combination of all values, those that no space would draw left out."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from gblend.space import Domain, at, draw_by, grid_points, moved_point, random_point, random_points, some_of_grid

EPOCHS = 6


def space(draw):
    """A second length only where there is a second super-epoch, a fraction only for probes."""
    method = draw.choice("method", ("online", "tracked"))
    first = draw.integer("first", 1, EPOCHS if method == "online" else EPOCHS - 1)
    following = draw.integer("next", 1, EPOCHS - first) if first < EPOCHS else 0
    fraction = draw.choice("fraction", (0.5, 1.0)) if method == "online" else 1.0
    return method, first, following, fraction


def brute_force() -> list[dict]:
    """Every point, found without the space."""
    points = []
    for method, first, following, fraction in itertools.product(
        ("online", "tracked"), range(1, EPOCHS + 1), range(EPOCHS + 1), (0.5, 1.0, None)
    ):
        if method == "tracked" and first == EPOCHS:
            continue
        if (following == 0) != (first == EPOCHS) or following > EPOCHS - first:
            continue
        if (fraction is None) != (method == "tracked"):
            continue
        point = {"method": method, "first": first, "next": following or None, "fraction": fraction}
        points.append({name: value for name, value in point.items() if value is not None})
    return points


def key(point: dict) -> tuple:
    return tuple(sorted(point.items(), key=lambda item: item[0]))


def test_a_grid_has_every_valid_point_once_and_no_other():
    found = Counter(key(drawn.point) for drawn in grid_points(space))
    assert found == Counter(key(point) for point in brute_force())


def test_random_points_are_valid_and_come_to_all_of_them():
    found = {key(drawn.point) for drawn in random_points(space, seed=0, count=1000)}
    assert found == {key(point) for point in brute_force()}


def test_random_points_are_different_and_the_first_ones_do_not_depend_on_how_many():
    few, many = (random_points(space, seed=3, count=count) for count in (4, 9))
    assert [drawn.point for drawn in few] == [drawn.point for drawn in many][:4]
    assert len({key(drawn.point) for drawn in many}) == 9


def test_part_of_a_grid_is_taken_in_an_order_of_the_seed_and_all_of_it_where_asked_for():
    whole = [key(point) for point in brute_force()]
    few, more = ([key(drawn.point) for drawn in some_of_grid(space, seed=1, count=n)] for n in (5, 1000))
    assert more[:5] == few
    assert sorted(more, key=str) == sorted(whole, key=str)
    assert few != [key(drawn.point) for drawn in some_of_grid(space, seed=2, count=5)]


def test_of_a_grid_that_is_too_large_to_go_through_different_points_are_taken(monkeypatch):
    monkeypatch.setattr("gblend.space.MOST_GRID", 100)

    def large(draw):
        return [draw.real(f"x{at}", 0.0, 1.0) for at in range(8)]

    found = some_of_grid(large, seed=0, count=20)
    assert len({tuple(drawn.made) for drawn in found}) == 20
    assert {value for drawn in found for value in drawn.made} == {0.0, 0.5, 1.0}
    assert [drawn.made for drawn in some_of_grid(large, seed=0, count=3)] == [drawn.made for drawn in found[:3]]


def test_a_random_point_depends_on_seed_and_number_alone():
    def wide(draw):
        return draw.real("x", 0.0, 1.0)

    points = {random_point(wide, seed=seed, number=number).made for seed in (0, 1) for number in (0, 1)}
    assert len(points) == 4
    assert random_point(wide, seed=1, number=1).made in points


def test_what_a_point_stands_for_is_made_again_from_the_point():
    for drawn in grid_points(space):
        assert at(space, drawn.point).made == drawn.made


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ({"method": "online", "first": 6}, "has no fraction"),
        ({"method": "tracked", "first": 6}, "first cannot be 6"),
        ({"method": "tracked", "first": 5, "next": 1, "fraction": 1.0}, "does not draw fraction"),
        ({"method": "naive"}, "method cannot be 'naive'"),
        ({"method": "tracked", "first": 2.0, "next": 1}, "first cannot be 2.0"),
    ],
)
def test_a_point_that_is_not_in_the_space_is_refused(point, said):
    with pytest.raises(ValueError, match=said):
        at(space, point)


def test_a_moved_point_is_valid_and_only_what_may_move_has_moved():
    start = {"method": "online", "first": 2, "next": 3, "fraction": 1.0}
    seen = set()
    for seed in range(300):
        moved = moved_point(space, start, movable=("next", "fraction"), seed=(seed,)).point
        assert (moved["method"], moved["first"]) == ("online", 2)
        assert at(space, moved).point == moved
        seen.add((moved["next"], moved["fraction"]))
    assert seen == set(itertools.product((1, 2, 3, 4), (0.5, 1.0)))


def test_what_is_drawn_only_after_a_move_is_drawn_at_random():
    start = {"method": "online", "first": 6, "fraction": 1.0}
    moved = [moved_point(space, start, movable=("first",), seed=(seed,)).point for seed in range(300)]
    assert {point["next"] for point in moved if point["first"] < EPOCHS} >= {1, 2, 3}


@pytest.mark.parametrize("low", [1, 3])
def test_integers_on_a_log_scale_are_drawn_in_proportion_to_the_width_of_their_logarithm(low):
    domain, rng = Domain(name="n", kind="integer", low=low, high=8, scale="log"), np.random.default_rng(0)
    counts = Counter(domain.random(rng) for _ in range(4000))
    assert set(counts) == set(range(low, 9))
    for value, count in counts.items():
        share = math.log((value + 1) / value) / math.log(9 / low)
        assert count / 4000 == pytest.approx(share, abs=0.03)


def test_numbers_on_a_log_scale_are_uniform_in_their_logarithm():
    domain, rng = Domain(name="x", kind="real", low=1e-4, high=1e-2, scale="log"), np.random.default_rng(0)
    values = np.log10([domain.random(rng) for _ in range(2000)])
    assert values.min() >= -4
    assert values.max() <= -2
    assert np.histogram(values, bins=4, range=(-4, -2))[0] / 2000 == pytest.approx([0.25] * 4, abs=0.04)


@pytest.mark.parametrize(
    ("domain", "values"),
    [
        (Domain(name="n", kind="integer", low=2, high=5), (2, 3, 4, 5)),
        (Domain(name="n", kind="integer", low=1, high=2, scale="log", points=3), (1, 2)),
        (Domain(name="n", kind="integer", low=1, high=20, points=2), (1, 20)),
        (Domain(name="x", kind="real", low=1e-4, high=1e-2, scale="log", points=3), (1e-4, 1e-3, 1e-2)),
        (Domain(name="x", kind="real", low=0.5, high=0.5, points=3), (0.5,)),
    ],
)
def test_a_grid_holds_both_ends_and_each_value_once(domain, values):
    assert domain.grid() == pytest.approx(values)


def test_a_move_stays_in_the_domain_and_reaches_neighbours():
    domain, rng = Domain(name="n", kind="integer", low=1, high=4), np.random.default_rng(0)
    assert {domain.moved(1, rng) for _ in range(80)} == {1, 2, 3, 4}
    real = Domain(name="x", kind="real", low=0.1, high=1.0, scale="log")
    moved = [real.moved(0.9, rng) for _ in range(80)]
    assert min(moved) >= 0.1
    assert max(moved) == 1.0
    assert 0.9 * 0.8 in moved


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda draw: (draw.real("x", 0.0, 1.0), draw.real("x", 0.0, 1.0)), "x is drawn twice"),
        (lambda draw: draw.integer("n", 3, 2), "n must have low <= high, got 3 and 2"),
        (lambda draw: draw.real("x", 0.0, 1.0, scale="log"), "x must be positive on a log scale, got 0.0"),
        (lambda draw: draw.choice("c", ()), "c has no value"),
    ],
)
def test_a_space_that_makes_no_sense_says_so(bad, said):
    with pytest.raises(ValueError, match=said):
        draw_by(bad, lambda domain: domain.random(np.random.default_rng(0)))
