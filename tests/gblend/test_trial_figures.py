"""Figures of a search and their page: where values stand, and that every trial is shown."""

import math
import xml.etree.ElementTree as ET
from importlib import metadata

import pytest

from gblend.contest import EQUAL, FOUND, PAPER_SCHEDULE
from gblend.figures import Figure
from gblend.table import comparison_table
from gblend.trial_figures import (
    cost_figure,
    curves_figure,
    importance_figure,
    methods_of,
    parallel_axes,
    parallel_figure,
)
from gblend.tuning_page import facts, headline, write_tuning_page
from tests.gblend.synthetic import result
from tests.gblend.test_trials import trial

RATE, SHARE, RULE = "optim.learning_rate", "blend.floor", "blend.shrinkage"


def texts(figure: Figure) -> str:
    (svg,) = figure.panels
    return " ".join(element.text or "" for element in ET.fromstring(svg).iter() if element.tag.endswith("text"))


def axis_of(values: list, name: str = RATE):
    points = [{} if value is None else {name: value} for value in values]
    (axis,) = parallel_axes([trial(number, 0.5, point=point) for number, point in enumerate(points)])
    return axis


def test_many_numbers_stand_at_their_logarithms_where_they_span_more_than_a_decade():
    axis = axis_of([0.001, 0.01, 0.1, 0.002, 0.003, 0.004])
    expected = [math.log10(value / 0.001) / 2 for value in (0.001, 0.01, 0.1, 0.002, 0.003, 0.004)]
    assert [axis.heights[number] for number in range(6)] == pytest.approx(expected)
    assert axis.ticks == ((0.0, "0.001"), (1.0, "0.1"))


def test_many_numbers_stand_where_they_are_within_a_decade():
    axis = axis_of([2.0, 4.0, 3.0, 2.5, 3.5, 3.75])
    assert [axis.heights[number] for number in range(6)] == pytest.approx([0.0, 1.0, 0.5, 0.25, 0.75, 0.875])


def test_few_values_and_words_have_equal_distances_and_what_was_not_drawn_has_no_height():
    assert axis_of([0.25, 1.0, 0.5, None, 0.25]).heights == {0: 0.0, 1: 1.0, 2: 0.5, 4: 0.0}
    assert axis_of(["noise", "none", "all", None], RULE).heights == {0: 0.5, 1: 1.0, 2: 0.0}


def test_what_was_the_same_in_all_trials_has_no_axis():
    assert parallel_axes([trial(number, 0.5, point={SHARE: 0.1}) for number in range(3)]) == []


def trials() -> list:
    points = [{"method": "online", SHARE: 0.0}, {"method": "tracked"}, {"method": "online", SHARE: 0.1}]
    return [
        trial(0, 0.5, 0.75, point=points[0]),
        trial(1, 0.25, state="stopped", point=points[1]),
        trial(2, 0.5, 0.9, point=points[2], cost=6.0),
        trial(3, state="failed", reason="CUDA out of memory", point=points[0]),
    ]


def test_the_line_of_cost_names_those_trials_alone_that_none_beats():
    more = [*trials(), trial(4, 0.6, 0.7, cost=9.0)]
    said = texts(cost_figure(more, "accuracy", methods_of(more)))
    assert {"0", "2"} <= set(said.split())
    assert "4" not in said.split()


def test_a_figure_that_shows_nothing_says_why():
    failed = [trials()[3]]
    assert curves_figure(failed, "accuracy", ("online",)).missing == "No trial has come to the end of an epoch."
    assert parallel_figure(failed, ("online",)).missing == "Parallel coordinates need two trials that differ."
    assert cost_figure(failed, "accuracy", ("online",)).missing == "No trial was finished."
    assert importance_figure({}, "too few").missing == "too few"


def test_trials_that_did_not_draw_a_setting_are_said_to_pass_below_it():
    figure = parallel_figure(trials(), ("online",))
    assert figure.note == "A line below an axis is of a trial that did not draw it."
    assert ".900" in texts(figure)


def final_table(found=(0.9, 0.8, 0.85), paper=(0.8, 0.75, 0.7), equal=(0.85, 0.75, 0.8)):
    rows = {FOUND: found, PAPER_SCHEDULE: paper, EQUAL: equal}
    return comparison_table(
        [result(name, seed, {"fused": value}) for name, values in rows.items() for seed, value in enumerate(values)]
    )


def test_the_winner_is_compared_with_its_controls_seed_by_seed():
    against_paper, against_equal = facts([final_table()])
    # Differences .1, .05, .15 and three times .05, with their standard deviations (n - 1).
    assert against_paper.startswith("Against the paper's schedule (10, 5): +.100 ± .050, ")
    assert against_equal.startswith("Against equal weights: +.050 ± .000, ")


def test_the_headline_says_what_fresh_seeds_reach_beside_what_the_search_chose_by():
    said = headline(trials()[2], [final_table()], "accuracy")
    assert said == ("Trial 2 is best: online, .900 accuracy on val; with 3 fresh seeds it reaches .850 ± .050 on test.")
    assert headline(None, [], "accuracy") == "No trial was finished."


def test_the_page_of_a_search_without_a_winner_shows_every_trial_and_its_reason(tmp_path):
    given = [trial(0, state="failed", reason="CUDA <out> of memory"), trial(1, 0.25, state="stopped")]
    out = write_tuning_page(
        given,
        out=str(tmp_path / "report.html"),
        title="Search",
        tables=[],
        best_run=None,
        shares={},
        why_no_shares="It needs 6.",
        config={"epochs": 2, "final_seeds": (4, 5)},
        command="gblend tune",
    )
    page = (tmp_path / "report.html").read_text()
    assert out == str(tmp_path / "report.html")
    assert "No trial was finished." in page
    assert "CUDA &lt;out&gt; of memory" in page
    assert all(f'data-trial="{number}"' in page for number in (0, 1))
    assert "It needs 6." in page
    assert "<dt>final_seeds</dt><dd>[4, 5]</dd>" in page
    assert f"torch {metadata.version('torch')}" in page
