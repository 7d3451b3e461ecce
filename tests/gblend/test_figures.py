import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from gblend.aggregate import estimate_steps, loss_curves
from gblend.captions import ogr_caption, overfitting_caption, told_apart, weights_caption
from gblend.figures import accuracy_figure, loss_figure, weights_figure
from gblend.ogr_figure import ogr_figure, plane_limits
from gblend.records import EpochRecord
from gblend.runs import Run
from gblend.svg import HEAD_COLORS, head_colors, panel
from gblend.table import comparison_table
from gblend.verdict import verdict
from gblend.words import ogr_text
from tests.gblend.synthetic import estimate, history, result, score

HEADS = ("rgb", "flow", "fused")


def make_run(method: str, seed: int = 0, *, heads=HEADS, estimates=(), records: tuple[EpochRecord, ...] | None = None):
    records = history(heads, {}, seed=seed) if records is None else records
    run = result(method, seed, dict.fromkeys(heads, 0.5))
    return Run(name=f"{method}-{seed}", config={}, result=run, history=records, estimates=tuple(estimates))


def offline(seed: int = 0, o=(0.2, 0.6, 0.4), g=(0.4, 0.4, 0.5), w=(0.6, 0.1, 0.3), **kwargs) -> Run:
    return make_run("offline", seed, estimates=[estimate(HEADS, o, g, w, **kwargs)])


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]


def every_figure(runs: list[Run]):
    table = comparison_table([run.result for run in runs])
    return [accuracy_figure(table), loss_figure(runs), ogr_figure(runs), weights_figure(runs)]


def test_panels_are_whole_svg_that_asks_nothing_of_the_network_and_share_no_id():
    online = make_run(
        "online", estimates=[estimate(HEADS, (0.1,) * 3, (0.2,) * 3, (0.2, 0.2, 0.6), epoch=e) for e in (0, 6)]
    )
    found = [svg for figure in every_figure([offline(), online]) for svg in figure.panels]
    assert len(found) == 2 + 2 + 4 + 2
    ids = [name for svg in found for name in re.findall(r'\bid="([^"]*)"', svg)]
    assert len(ids) == len(set(ids))
    for svg in found:
        ET.fromstring(svg)
        assert "http" not in svg
        used = re.findall(r'(?:href="|url\()#([^")]*)', svg)
        assert set(used) <= set(ids)


def test_heads_keep_their_colour_variable_in_every_figure_and_none_is_left_as_a_placeholder():
    for figure in every_figure([offline(0), offline(1)]):
        joined = "".join(figure.panels)
        assert "#0101" not in joined
        assert "#0102" not in joined
        for index, head in enumerate(HEADS):
            assert f"var(--head-{index}, {HEAD_COLORS[head][0]})" in joined


def test_head_colours_are_distinct_and_readable_on_their_page():
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    colors = head_colors(("rgb", "flow", "logmel", "touch", "depth", "imu", "fused"))
    assert len(set(colors.values())) == 7
    for light, dark in colors.values():
        assert 1.05 / (luminance(light) + 0.05) >= 3
        assert (luminance(dark) + 0.05) / (luminance("#16181b") + 0.05) >= 3


def test_loss_figure_has_a_panel_per_method_on_one_scale():
    figure = loss_figure([make_run("uni:rgb", heads=("rgb",)), make_run("naive", heads=("fused",)), make_run("equal")])
    assert [next(t for t in texts(p) if t in ("uni:rgb", "naive", "equal")) for p in figure.panels] == [
        "uni:rgb",
        "naive",
        "equal",
    ]
    scales = [[t for t in texts(p) if re.fullmatch(r"\d\.\d\d", t)] for p in figure.panels]
    assert scales[0] == scales[1] == scales[2]


def test_training_is_dashed_held_out_solid_and_single_seeds_faint():
    (one,) = loss_figure([make_run("naive", heads=("fused",))]).panels
    (two,) = loss_figure([make_run("naive", s, heads=("fused",)) for s in (0, 1)]).panels
    assert one.count("stroke-dasharray") == 1
    assert "stroke-opacity: 0.3" not in one
    assert two.count("stroke-dasharray") == 3
    assert two.count("stroke-opacity: 0.3") == 4


def test_a_diverging_head_is_cut_and_the_figure_says_so():
    records = history(("fused",), {})
    wild = EpochRecord(
        epoch=13,
        train={"fused": score(0.1, 0.1)},
        heldout={"fused": score(0.1, 99.0)},
        weights={},
        learning_rate=0.01,
    )
    assert "cut" in loss_figure([make_run("naive", heads=("fused",), records=(*records, wild))]).note
    assert loss_figure([make_run("naive", heads=("fused",))]).note == ""


def test_curves_are_means_over_the_epochs_all_seeds_have():
    runs = [make_run("naive", 0, heads=("fused",)), make_run("naive", 1, heads=("fused",))]
    short = make_run("naive", 1, heads=("fused",), records=runs[1].history[:5])
    curve = loss_curves([runs[0], short])["fused"]
    assert curve.epochs == (0, 1, 2, 3, 4)
    assert curve.heldout[1, 4] == runs[1].history[4].heldout["fused"].loss_nats
    last = [run.history[4] for run in runs]
    gap = np.mean([r.heldout["fused"].loss_nats - r.train["fused"].loss_nats for r in last])
    assert curve.gap == pytest.approx(gap)


def test_offline_ogr_bars_are_labelled_with_the_ratio_of_the_means():
    runs = [offline(0, o=(0.2, 0.6, 0.4), g=(0.4, 0.4, 0.5)), offline(1, o=(0.4, 0.6, 0.4), g=(0.2, 0.4, 0.5))]
    bars, _ = ogr_figure(runs).panels
    assert {"1.0", "1.5", "0.80"} <= set(texts(bars))  # .3 / .3, .6 / .4, .4 / .5
    assert estimate_steps(runs)[0].heads[0].seed_ogr == pytest.approx((0.5, 2.0))


def test_the_plane_has_every_estimate_with_its_errors_and_lines_of_equal_ogr():
    steps = [((0.2, 0.6, 0.4), 0), ((0.1, 0.1, 0.3), 6)]
    made = [estimate(HEADS, o, (0.4, 0.4, 0.5), (0.3, 0.3, 0.4), epoch=epoch) for o, epoch in steps]
    _, plane = ogr_figure([make_run("online", 0, estimates=made)]).panels
    assert {"OGR 1", "0.5", "online: O against G"} <= set(texts(plane))
    assert plane.count('id="og0-LineCollection') == 12  # three heads, two estimates, an error each of G and O
    (left, right), (low, top) = plane_limits(estimate_steps([make_run("online", 0, estimates=made)])[0].heads)
    assert left < 0 < 0.5 + 0.04 < right
    assert low < 0 < 0.6 + 0.03 < top


def test_seeds_share_the_clips_so_the_error_of_their_mean_is_that_of_one():
    found = estimate_steps([offline(0), offline(1)])[0].heads[0]
    assert (found.generalization_error, found.overfitting_error) == (pytest.approx(0.04), pytest.approx(0.03))


@pytest.mark.parametrize(("error", "apart"), [(0.01, True), (0.2, False)])
def test_a_factor_between_ogrs_within_their_errors_is_said_to_be(error, apart):
    # ln 3 is 1.10. With an error of .01: .01/.2 + .01/.4 and .01/.6 + .01/.4, together .085; with .2: 1.71.
    run = offline(o=(0.2, 0.6, 0.4), g=(0.4, 0.4, 0.5))
    errors = {"overfitting_se": (error,) * 3, "generalization_se": (error,) * 3}
    judged = replace(run, estimates=tuple(replace(each, **errors) for each in run.estimates))
    rgb, flow, _ = estimate_steps([judged])[0].heads
    assert told_apart(rgb, flow) == apart
    assert ("may account for" in ogr_caption([judged])) != apart


@pytest.mark.parametrize(
    ("o", "g", "label"),
    [
        ((0.2, 0.6, 0.4), (0.0, 0.4, 0.5), "∞"),
        ((0.0, 0.6, 0.4), (0.0, 0.4, 0.5), "n/a"),
        ((math.nan, 0.6, 0.4), (0.4, 0.4, 0.5), "n/a"),
        ((40.0, 0.6, 0.4), (0.4, 0.4, 0.5), "100"),
    ],
)
def test_ogr_that_is_infinite_missing_or_huge_is_written_out(o, g, label):
    figure = ogr_figure([offline(o=o, g=g)])
    assert label in texts(figure.panels[0])
    assert bool(figure.note) == (label in ("∞", "100"))


def test_all_ogr_missing_still_draws():
    nothing = (math.nan,) * 3
    assert len(ogr_figure([offline(o=nothing, g=nothing, w=(1 / 3,) * 3)]).panels) == 2


def test_weights_are_stacked_per_super_epoch_with_the_means_written_in():
    steps = [((0.5, 0.2, 0.3), 0), ((0.1, 0.1, 0.8), 6)]
    runs = [
        make_run("online", s, estimates=[estimate(HEADS, (0.1,) * 3, (0.2,) * 3, w, epoch=e) for w, e in steps])
        for s in (0, 1)
    ]
    (svg,) = weights_figure(runs).panels
    assert {".50", ".20", ".30", ".10", ".80"} <= set(texts(svg))
    assert [(step.epoch, step.end_epoch) for step in estimate_steps(runs)] == [(0, 6), (6, 12)]


def test_a_figure_with_nothing_to_show_says_why():
    naive = make_run("naive", heads=("fused",), records=())
    assert "history" in loss_figure([naive]).missing
    assert "estimated weights" in ogr_figure([naive]).missing
    assert "estimated weights" in weights_figure([naive]).missing
    assert not any(figure.panels for figure in (loss_figure([naive]), ogr_figure([naive]), weights_figure([naive])))


def test_one_run_alone_has_an_accuracy_figure():
    table = comparison_table([result("naive", 0, {"fused": 0.25})])
    (svg,) = accuracy_figure(table).panels
    assert {"naive", ".250"} <= set(texts(svg))


def test_the_accuracy_axis_ends_where_accuracy_does():
    table = comparison_table([result("naive", seed, {"fused": value}) for seed, value in enumerate((0.5, 1.0))])
    (svg,) = accuracy_figure(table).panels
    ticks = [float(text) for text in texts(svg) if re.fullmatch(r"\d?\.\d\d", text)]
    assert max(ticks) <= 1.0


def test_heads_of_one_ogr_overfit_as_fast_as_each_other():
    caption = ogr_caption([offline(o=(0.201, 0.2, 0.4), g=(0.4, 0.4, 0.5))])
    assert "rgb overfits as fast as flow (OGR 0.50 against 0.50" in caption


def test_ogr_caption_names_the_fastest_and_the_slowest_with_the_factor():
    assert "flow overfits 3.0 times faster than rgb (OGR 1.5 against 0.50)" in ogr_caption([offline()])
    assert "Eq. 3" in ogr_caption([offline()])


def test_a_head_whose_held_out_loss_rose_is_named_and_not_ranked():
    caption = ogr_caption([offline(g=(0.4, -0.1, 0.5))])
    assert "flow did not fall (G ≤ 0" in caption
    assert "faster" not in caption


def test_overfitting_caption_gives_gap_and_turning_point_of_the_widest_head():
    runs = [make_run(f"uni:{head}", heads=(head,)) for head in ("rgb", "flow")]
    curves = {head: loss_curves([run])[head] for head, run in zip(("rgb", "flow"), runs, strict=True)}
    caption = overfitting_caption(runs)
    assert f"widest for flow ({curves['flow'].gap:.2f} nats after 12 epochs" in caption
    assert f"lowest after epoch {curves['flow'].best_epoch}" in caption
    assert f"narrowest for rgb ({curves['rgb'].gap:.2f})" in caption


def test_weights_caption_passes_on_the_first_warning_and_counts_the_others():
    run = offline()
    warned = replace(run, estimates=tuple(replace(e, warnings=("V is small",)) for e in (*run.estimates,) * 3))
    assert "Caution: V is small, and 2 more like it." in weights_caption([warned])
    assert "Caution" not in weights_caption([run])


def test_weights_caption_repeats_the_reason_when_there_is_one():
    assert "O = 0: flow" in weights_caption([offline(reason="O = 0: flow")])
    several = [offline(reason="O = 0: flow"), offline(1, reason="O = 0: rgb")]
    assert "stands beside the numbers above" in weights_caption(several)
    assert "O = 0" not in weights_caption(several)
    assert "gives most to rgb (.60)" in weights_caption([offline()])


def test_a_reason_that_does_not_hold_for_every_seed_says_for_which():
    step, *_ = estimate_steps([offline(), offline(1, reason="O = 0: rgb")])
    assert step.reasons == ("seed 1: O = 0: rgb",)


def test_the_verdict_calls_a_difference_noise_below_the_threshold_and_only_there():
    def table(gain: float):
        tests = {"naive": 0.5, "online": 0.5 + gain}
        runs = [result(m, s, {"fused": a + 0.002 * s}) for m, a in tests.items() for s in (0, 1)]
        return comparison_table(runs)

    assert table(0.05).noise == pytest.approx(0.098, abs=1e-3)
    near, far = verdict(table(0.05)), verdict(table(0.12))
    assert near.headline == (
        "Online G-Blend scores highest: .551 ± .001 test accuracy (2 seeds). "
        "The next, naive joint training, is .050 behind (within noise)."
    )
    assert "is .050 above naive joint training (within noise)." in near.facts[0]
    assert "is .120 above naive joint training (beyond noise)." in far.facts[0]
    assert "With 2 seeds, differences under .098 are within noise" in near.caution


def test_the_verdict_on_one_run_claims_nothing_about_other_seeds():
    found = verdict(comparison_table([result("naive", 0, {"fused": 0.5})]))
    assert found.headline == "Naive joint training reaches .500 test accuracy (one seed)."
    assert found.facts == ()
    assert "One seed says nothing" in found.caution
    assert "200 test clips" in found.caution


def test_equal_scores_are_level_not_behind():
    found = verdict(comparison_table([result(m, 0, {"fused": 0.5}) for m in ("naive", "equal")]))
    assert "are level with it." in found.headline


@pytest.mark.parametrize(("value", "text"), [(0.994, "0.99"), (0.999, "1.0"), (9.99, "10"), (1234.0, "1234")])
def test_ogr_text_rounds_before_it_chooses_digits(value, text):
    assert ogr_text(value) == text


def test_a_label_with_markup_stays_text():
    with panel("a", 'x < y & "z"', heads=(), width_px=100, height_px=100) as drawn:
        drawn.axes.set_title("a < b")
    assert ET.fromstring(drawn.svg[0]).get("aria-label") == 'x < y & "z"'
