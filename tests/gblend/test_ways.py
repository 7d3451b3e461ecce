from dataclasses import replace

import pytest

from gblend.records import PredictionScores
from gblend.table import comparison_table
from gblend.ways import way_cells, way_rows
from tests.gblend.synthetic import result, score


def with_ways(run, **accuracies):
    scores = {split: {way.replace("_", "-"): score(a) for way, a in accuracies.items()} for split in ("val", "test")}
    said = PredictionScores(scores=scores, ranking=("fused", "rgb"), stack_weights={"fused": 1.0}, stack_clips=60)
    return replace(run, predictions=said)


RESULTS = [
    result("uni:rgb", 0, {"rgb": 0.40}),
    result("uni:rgb", 1, {"rgb": 0.50}),
    result("naive", 0, {"fused": 0.45}),
    with_ways(result("equal", 1, {"rgb": 0.3, "fused": 0.52}), fused=0.52, mean=0.58, stack=0.60, best_head=0.52),
    with_ways(result("equal", 0, {"rgb": 0.3, "fused": 0.50}), fused=0.50, mean=0.54, stack=0.52, best_head=0.50),
    with_ways(result("online", 0, {"rgb": 0.3, "fused": 0.50}), fused=0.50, refit=0.55, mean=0.51, stack=0.53),
]


def rows():
    return way_rows(RESULTS, comparison_table(RESULTS))


def test_methods_with_several_heads_have_a_row_and_seeds_are_in_order():
    assert [(row.method, row.seeds) for row in rows()] == [("equal", (0, 1)), ("online", (0,))]


def test_a_way_has_the_mean_and_the_spread_of_its_seeds():
    stack = rows()[0].scores["stack"]
    assert stack.values == (0.52, 0.60)
    assert stack.mean == pytest.approx(0.56)
    assert stack.sd == pytest.approx(0.08 / 2**0.5)


def test_differences_are_to_the_best_single_modality_of_the_same_seed():
    over = rows()[0].over_best_single["stack"]
    assert over.values == pytest.approx((0.52 - 0.40, 0.60 - 0.50))
    assert rows()[1].over_best_single["refit"].values == pytest.approx((0.15,))


def test_there_is_no_difference_to_a_run_on_other_clips():
    fewer = [replace(r, scores={s: {"rgb": score(0.4, count=150)} for s in ("val", "test")}) for r in RESULTS[:2]]
    results = [*fewer, *RESULTS[2:]]
    assert all(not row.over_best_single for row in way_rows(results, comparison_table(results)))


def test_cells_leave_out_what_no_method_has():
    titles, lines = way_cells(rows()[:1])
    assert titles[:5] == ["method", "fused", "best-head", "mean", "stack"]
    assert lines[0][:5] == ["equal", ".510 ± .014", ".510 ± .014", ".560 ± .028", ".560 ± .057"]
    assert lines[0][titles.index("stack vs best single")] == "+.110 ± .014"


def test_without_a_method_of_several_heads_there_is_nothing():
    assert way_rows(RESULTS[:3], comparison_table(RESULTS[:3])) == ()
