import dataclasses
import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from gblend import table as tables
from gblend import table_text
from gblend.records import PredictionScores, judged_by, to_json, write_json
from gblend.runs import load_run, load_runs, unfinished_runs
from gblend.table_text import deciding_cells
from gblend.verdict import verdict
from tests.gblend.synthetic import estimate, history, result, score, write_run


def both_seeds(method: str, *tests: dict[str, float], **kwargs):
    return [result(method, seed, test, **kwargs) for seed, test in enumerate(tests)]


RESULTS = [
    *both_seeds("online", {"rgb": 0.40, "logmel": 0.30, "fused": 0.52}, {"rgb": 0.42, "logmel": 0.32, "fused": 0.56}),
    *both_seeds("naive", {"fused": 0.50}, {"fused": 0.48}),
    *both_seeds("uni:logmel", {"logmel": 0.55}, {"logmel": 0.55}, val={"logmel": 0.40}),
    *both_seeds("uni:rgb", {"rgb": 0.45}, {"rgb": 0.47}, val={"rgb": 0.46}),
    *both_seeds("equal", {"fused": 0.51}, {"fused": 0.57}, branch_epochs=12.0, seconds=40.0),
]


def test_rows_follow_the_methods_order_and_heads_the_modalities():
    table = tables.comparison_table(RESULTS)
    assert [row.method for row in table.rows] == ["uni:rgb", "uni:logmel", "naive", "equal", "online"]
    assert table.heads == ("rgb", "logmel", "fused")
    assert [row.primary for row in table.rows] == ["rgb", "logmel", "fused", "fused", "fused"]


def test_mean_and_sample_sd_per_head_are_those_of_the_statistics_module():
    row = tables.comparison_table(RESULTS).row("online")
    assert row is not None
    for head, values in {"rgb": [0.40, 0.42], "logmel": [0.30, 0.32], "fused": [0.52, 0.56]}.items():
        assert row.test[head].mean == pytest.approx(statistics.fmean(values))
        assert row.test[head].sd == pytest.approx(statistics.stdev(values))


def judged_by_stack(method: str, fused: tuple[float, ...], stack: tuple[float, ...]):
    """Runs whose heads are stacked; scored alike on val and test."""
    runs = both_seeds(method, *({"rgb": 0.1, "fused": value} for value in fused))
    return [
        dataclasses.replace(
            run,
            predict_by="stack",
            predictions=PredictionScores(
                scores={split: {"fused": score(one), "stack": score(other)} for split in ("val", "test")},
                ranking=("fused", "rgb"),
                stack_weights={"rgb": 0.5, "fused": 0.5},
                stack_clips=60,
            ),
        )
        for run, one, other in zip(runs, fused, stack, strict=True)
    ]


def test_networks_of_several_heads_are_compared_by_the_way_they_are_judged_by():
    runs = [
        *both_seeds("uni:rgb", {"rgb": 0.50}, {"rgb": 0.52}),
        *both_seeds("naive", {"fused": 0.40}, {"fused": 0.42}),
        *judged_by_stack("equal", (0.30, 0.32), (0.60, 0.66)),
    ]
    table = tables.comparison_table(runs)
    row = table.row("equal")
    assert row is not None
    assert table.heads == ("rgb", "fused", "stack")
    assert row.primary == "stack"
    assert row.test["stack"].values == (0.60, 0.66)
    assert row.test["fused"].values == (0.30, 0.32)
    assert row.differences["best single"].values == pytest.approx((0.10, 0.14))
    assert row.differences["naive"].values == pytest.approx((0.20, 0.24))
    # By the noise of what is compared: three pairs of seeds, of which two differ by .02 and one by .06.
    pooled = math.sqrt((2 * 0.0002 + 0.0018) / 3)
    assert table.noise_95 == pytest.approx(scipy.stats.t.ppf(0.975, 3) * pooled, rel=1e-3)


def test_runs_judged_by_different_ways_are_refused_and_can_be_judged_by_one():
    runs = [*judged_by_stack("equal", (0.3,), (0.6,)), result("online", 0, {"rgb": 0.1, "fused": 0.4})]
    with pytest.raises(ValueError, match="judged by fused and by stack; choose one for all with --predict-by"):
        tables.comparison_table(runs)
    row = tables.comparison_table([judged_by(run, "fused") for run in runs]).row("equal")
    assert row is not None
    assert (row.primary, row.test["fused"].values) == ("fused", (0.3,))


def test_the_verdict_says_what_judges_and_compares_fused_heads_with_each_other():
    runs = [*both_seeds("naive", {"fused": 0.41}, {"fused": 0.41}), *judged_by_stack("equal", (0.3, 0.32), (0.6, 0.66))]
    facts = verdict(tables.comparison_table(runs)).facts
    assert any(fact.startswith("Equal weights are .220 above naive joint training") for fact in facts)
    assert (
        "Networks of several heads are judged by the stack of their heads, naive ones by the fused head, their only "
        "one. Fused head against fused head, equal weights are .100 below naive joint training."
    ) in facts


def test_the_note_under_the_table_says_what_judges():
    runs = [*both_seeds("naive", {"fused": 0.41}), *judged_by_stack("equal", (0.3,), (0.6,))]
    assert "the only head or, of several, the stack" in table_text.to_text(tables.comparison_table(runs))
    assert "the only head or, of several, the fused one" in table_text.to_text(tables.comparison_table(RESULTS))


def test_differences_are_paired_by_seed_with_hand_computed_numbers():
    row = tables.comparison_table(RESULTS).row("online")
    assert row is not None
    naive, equal = row.differences["naive"], row.differences["equal"]
    assert naive.values == pytest.approx((0.02, 0.08))
    assert naive.mean == pytest.approx(0.05)
    assert naive.sd == pytest.approx(0.06 / math.sqrt(2))
    assert equal.values == pytest.approx((0.01, -0.01))
    assert equal.mean == pytest.approx(0.0)


def test_the_best_single_modality_is_chosen_on_val_though_another_is_better_on_test():
    table = tables.comparison_table(RESULTS)
    assert table.best_single == "uni:rgb"
    row = table.row("naive")
    assert row is not None
    assert row.differences["best single"].against == "uni:rgb"
    assert row.differences["best single"].values == pytest.approx((0.05, 0.01))


def test_a_method_is_not_compared_with_itself():
    table = tables.comparison_table(RESULTS)
    assert {row.method: tuple(row.differences) for row in table.rows} == {
        "uni:rgb": ("naive", "equal"),
        "uni:logmel": ("naive", "equal", "best single"),
        "naive": ("equal", "best single"),
        "equal": ("naive", "best single"),
        "online": ("naive", "equal", "best single"),
    }


def test_only_common_seeds_are_paired_whatever_the_order_of_the_runs():
    runs = [
        result("naive", 3, {"fused": 0.5}),
        result("online", 1, {"fused": 0.9}),
        result("online", 3, {"fused": 0.6}),
    ]
    row = tables.comparison_table(runs).row("online")
    assert row is not None
    assert row.seeds == (1, 3)
    assert row.differences["naive"].seeds == (3,)
    assert row.differences["naive"].values == pytest.approx((0.1,))
    assert row.differences["naive"].sd is None


def test_one_seed_has_no_sd_and_no_seed_noise():
    table = tables.comparison_table([result("naive", 0, {"fused": 0.5})])
    assert table.rows[0].test["fused"] == tables.Spread(values=(0.5,), mean=0.5, sd=None)
    assert table.noise_95 is None
    assert table.best_single is None
    assert " ± " not in table_text.to_text(table).splitlines()[2]


def test_seed_noise_is_the_least_significant_difference_of_a_pooled_t_test():
    table = tables.comparison_table(RESULTS)
    groups = [[0.52, 0.56], [0.50, 0.48], [0.55, 0.55], [0.45, 0.47], [0.51, 0.57]]
    pooled = math.sqrt(np.mean([np.var(group, ddof=1) for group in groups]))
    assert table.noise_95 == pytest.approx(scipy.stats.t.ppf(0.975, df=5) * pooled, rel=1e-3)  # sqrt(2 / 2) = 1


def test_seed_noise_shrinks_with_the_seeds_to_where_a_t_test_gives_five_percent():
    naive = [0.50, 0.52, 0.54]
    gain = tables.comparison_table(
        [result(m, s, {"fused": a}) for m in ("naive", "equal") for s, a in enumerate(naive)]
    ).noise_95
    assert gain is not None
    assert scipy.stats.ttest_ind([a + gain for a in naive], naive).pvalue == pytest.approx(0.05, abs=1e-4)


def test_clip_noise_is_that_of_the_difference_of_two_binomials():
    table = tables.comparison_table([result("naive", 0, {"fused": 0.5})])
    assert table.clips_95 == pytest.approx(1.96 * math.sqrt(2 * 0.25 / 200))


@pytest.mark.parametrize("freedom", [1, 2, 7, 15, 16, 30, 31, 40, 100, 5000])
def test_student_t_agrees_with_scipy(freedom):
    assert tables.student_t_95(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), abs=2e-3)


def test_cost_is_the_mean_over_seeds_and_keeps_what_was_borrowed_apart():
    runs = [
        result("offline", 0, {"fused": 0.5}, branch_epochs=60.0, borrowed_epochs=48.0, seconds=10.0),
        result("offline", 1, {"fused": 0.5}, branch_epochs=62.0, borrowed_epochs=48.0, seconds=20.0),
    ]
    row = tables.comparison_table(runs).rows[0]
    assert (row.branch_epochs, row.borrowed_epochs, row.seconds) == (61.0, 48.0, 15.0)


def test_two_runs_of_one_method_and_seed_are_refused():
    with pytest.raises(ValueError, match="two runs of 'naive' have seed 0"):
        tables.comparison_table([result("naive", 0, {"fused": 0.5})] * 2)


def test_no_runs_are_refused():
    with pytest.raises(ValueError, match="no run to compare"):
        tables.comparison_table([])


def test_without_a_test_split_the_validation_split_is_compared_and_named():
    run = result("naive", 0, {"fused": 0.5})
    val_only = type(run)(**{**{f: getattr(run, f) for f in run.__slots__}, "scores": {"val": {"fused": score(0.4)}}})
    table = tables.comparison_table([val_only])
    assert table.split == "val"
    assert ".400" in table_text.to_text(table)
    assert "Accuracy on val" in table_text.to_text(table)


def test_table_json_is_strict_json_with_the_same_numbers():
    table = tables.comparison_table([*RESULTS, result("fixed", 0, {"fused": math.nan})])
    values = json.loads(json.dumps(table.to_json(), allow_nan=False))
    online = next(row for row in values["rows"] if row["method"] == "online")
    assert online["test"]["fused"]["mean"] == pytest.approx(0.54)
    assert next(row for row in values["rows"] if row["method"] == "fixed")["test"]["fused"]["mean"] is None


def test_text_columns_line_up_and_show_every_number():
    lines = table_text.to_text(tables.comparison_table(RESULTS)).splitlines()
    table_lines = [line for line in lines if line.startswith(("method", "uni", "naive", "equal", "online"))]
    assert len({len(line) for line in table_lines}) == 1
    assert ".540 ± .028" in lines[-3]
    assert "+.050 ± .042" in lines[-3]


@pytest.mark.parametrize("form", [table_text.to_text, table_text.to_markdown])
def test_under_the_table_it_says_what_the_cost_counts(form):
    *_, last = form(tables.comparison_table(RESULTS)).splitlines()
    assert "probes included" in last
    assert "Refitting a fused head on frozen trunks is in the seconds, not in the epochs." in last


def test_markdown_has_one_row_a_method_and_as_many_cells_as_titles():
    lines = [
        line for line in table_text.to_markdown(tables.comparison_table(RESULTS)).splitlines() if line.startswith("|")
    ]
    assert len(lines) == 2 + 5
    assert len({line.count("|") for line in lines}) == 1


def test_a_run_directory_reads_back_what_was_written(tmp_path: Path):
    run = result("offline", 1, {"rgb": 0.4, "fused": 0.5})
    records = history(("rgb", "fused"), {"rgb": 0.3, "fused": 0.7})
    estimates = [estimate(("rgb", "fused"), (0.2, 0.0), (0.4, 0.0), (1.0, 0.0), reason="G = 0")]
    write_run(tmp_path / "offline-1", run, records, estimates, {"method": "offline", "optim": {"lr": 0.01}})
    found = load_run(str(tmp_path / "offline-1"))
    assert (found.name, found.result, found.history) == ("offline-1", run, records)
    assert found.config["optim"]["lr"] == 0.01
    assert found.estimates[0].ogr[0] == 0.5
    assert math.isnan(found.estimates[0].ogr[1])


def test_a_comparison_directory_gives_its_runs_by_name_and_names_the_unfinished(tmp_path: Path):
    write_run(tmp_path / "runs" / "naive-1", result("naive", 1, {"fused": 0.5}))
    write_run(tmp_path / "runs" / "naive-0", result("naive", 0, {"fused": 0.5}))
    write_json(str(tmp_path / "runs" / "online-0" / "config.json"), {})
    assert [run.name for run in load_runs(str(tmp_path))] == ["naive-0", "naive-1"]
    assert unfinished_runs(str(tmp_path)) == ("online-0",)


def test_missing_and_foreign_files_are_one_clear_line(tmp_path: Path):
    write_json(str(tmp_path / "old" / "result.json"), {"method": "naive"})
    (tmp_path / "empty").mkdir()
    (tmp_path / "none" / "runs").mkdir(parents=True)
    write_json(str(tmp_path / "cut" / "result.json"), to_json(result("naive", 0, {"fused": 0.5})))
    (tmp_path / "cut" / "history.jsonl").write_text('{"epoch": 0, "tra')
    for name, message in {
        "absent": "does not exist",
        "empty": "holds no result.json",
        "old": "not written by this version",
        "none": "no finished run",
        "cut": "not written by this version",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            load_runs(str(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_noise_of_seeds_and_of_clips_add_as_variances():
    runs = [result("naive", seed, {"fused": 0.5 + 0.02 * seed}) for seed in (0, 1, 2)]
    table = tables.comparison_table(runs)
    assert table.noise == pytest.approx(math.sqrt(table.noise_95**2 + table.clips_95**2))


def test_the_noise_of_val_is_that_of_the_same_scores_on_test():
    values = {"naive": (0.5, 0.58), "equal": (0.61, 0.6)}
    runs = [
        result(method, seed, {"fused": 0.7}, val={"fused": value})
        for method, each in values.items()
        for seed, value in enumerate(each)
    ]
    same = [result(run.method, run.seed, {"fused": run.scores["val"]["fused"].value}) for run in runs]
    assert tables.comparison_table(runs).val_noise == pytest.approx(tables.comparison_table(same).noise)


def test_one_seed_leaves_the_noise_unknown():
    runs = [result(method, 0, {"fused": accuracy}) for method, accuracy in (("naive", 0.5), ("equal", 0.9))]
    assert tables.comparison_table(runs).noise is None


def test_a_table_wider_than_the_terminal_shows_what_decides_and_says_where_the_rest_is():
    table = tables.comparison_table(RESULTS)
    wide, narrow = table_text.to_text(table), table_text.to_text(table, columns=80)
    assert max(map(len, wide.splitlines()[:2])) > 80
    assert max(map(len, narrow.splitlines())) <= 80
    assert narrow.splitlines()[0].split("  ")[0] == "method"
    assert "online      .540 ± .028" in narrow
    assert "the report has all" in " ".join(narrow.split())


def test_a_table_that_fits_the_terminal_is_shown_whole():
    table = tables.comparison_table(RESULTS)
    whole = table_text.to_text(table).splitlines()
    assert table_text.to_text(table, columns=200).splitlines()[: len(table.rows) + 2] == whole[: len(table.rows) + 2]


def test_a_cut_table_says_of_how_many_seeds_methods_are_where_they_differ_and_has_no_empty_column():
    runs = [result("naive", seed, {"fused": 0.5}) for seed in (0, 1)] + [result("equal", 0, {"fused": 0.6})]
    titles, lines = deciding_cells(tables.comparison_table(runs))
    assert titles == ["method", "score", "vs naive", "vs equal", "epochs", "seeds"]
    assert {line[0]: line[-1] for line in lines} == {"naive": "2", "equal": "1"}
