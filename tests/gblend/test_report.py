import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from gblend.records import PredictionScores
from gblend.report import settings, write_report
from gblend.runs import load_runs
from gblend.samples import SampleClip
from gblend.summary import DatasetSummary, Loss
from schemas import Task
from tests.gblend.synthetic import estimate, history, result, score, write_run

HEADS = ("rgb", "logmel", "fused")
VOID = {"meta", "img", "br", "link", "input", "image", "use", "path"}


class Page(HTMLParser):
    """Tables as rows of text, sections, SVG elements and every reference to a resource."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, list[str]] = {}
        self.sections: dict[str, str] = {}
        self.svgs: dict[str, int] = {}
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.section = ""
        self.row: list[str] | None = None
        self.key = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = values["id"]
            self.sections[self.section] = ""
        if tag == "svg":
            self.svgs[self.section] = self.svgs.get(self.section, 0) + 1
        self.references += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data") and v]
        if tag == "tr":
            self.row = []
            self.key = values.get("data-method") or values.get("data-run") or values.get("data-split") or ""
        if tag in ("td", "th") and self.row is not None:
            self.row.append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag
        if tag == "tr":
            if self.key and self.row is not None:
                self.rows[self.key] = [" ".join(cell.split()) for cell in self.row]
            self.row = None

    def handle_data(self, data):
        if self.section:
            self.sections[self.section] += data
        if self.row:
            self.row[-1] += data


def write_comparison(directory: Path) -> None:
    for seed in (0, 1):
        step = 0.02 * seed
        runs = {
            "uni:rgb": result("uni:rgb", seed, {"rgb": 0.40 + step}),
            "uni:logmel": result("uni:logmel", seed, {"logmel": 0.50}),
            "naive": result("naive", seed, {"fused": 0.45 + step}),
            "equal": result("equal", seed, {"rgb": 0.41, "logmel": 0.48, "fused": 0.60}),
            "offline": result(
                "offline",
                seed,
                {"rgb": 0.39, "logmel": 0.47, "fused": 0.55 + step},
                branch_epochs=48.0,
                borrowed_epochs=36.0,
            ),
        }
        for method, run in runs.items():
            estimates = []
            if method == "offline":
                estimates = [estimate(HEADS, (0.4, 0.2, 0.5), (0.4, 0.8, 0.5), (0.1, 0.8, 0.1), reason="O = 0: none")]
            config = {"method": method, "seed": seed, "data": "/data", "optim": {"learning_rate": 0.01}}
            write_run(
                directory / "runs" / f"{method.replace(':', '-')}-s{seed}",
                run,
                history(run.heads, {}),
                estimates,
                config,
            )


SAMPLES = (
    SampleClip(
        clip_id="clip<1>",
        split="train",
        label="fire",
        fps=8.0,
        mel_s=0.5,
        rgb=np.zeros((3, 16, 16, 3), np.uint8),
        flow=np.ones((3, 16, 16, 2), np.float32),
        logmel=np.zeros((50, 40), np.float32),
    ),
    SampleClip(clip_id="clip2", split="test", label="noop", fps=8.0, mel_s=0.5, rgb=np.zeros((3, 16, 16, 3), np.uint8)),
)
SUMMARY = DatasetSummary(
    path="/data",
    tasks=(Task(name="action", kind="single", classes=("noop", "fire")),),
    counts={"train": {"ok": 90, "failed": 7, "skipped": 3}, "test": {"ok": 41, "failed": 0, "skipped": 0}},
    losses=(
        Loss(
            split="train",
            status="failed",
            stage="open",
            reason="unreadable",
            clips=7,
            clip_id="c",
            example="moov <missing>",
        ),
    ),
    features={"rgb": {"fps": 15.0, "codec": "jpeg"}},
    shards=5,
    versions={"av": "18.1.0"},
)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    tmp_path = tmp_path_factory.mktemp("comparison")
    write_comparison(tmp_path)
    out = str(tmp_path / "site" / "report.html")
    written = write_report(
        load_runs(str(tmp_path)),
        out=out,
        title="Study <1>",
        samples=SAMPLES,
        dataset_summary=SUMMARY,
        command="gblend compare small-cpu",
    )
    assert written == out
    return Path(out).read_text(encoding="utf-8")


def test_sections_come_in_order(text):
    assert list(Page(text).sections) == [
        "methods",
        "accuracy",
        "losses",
        "epochs",
        "ogr",
        "weights",
        "classes",
        "confusion",
        "samples",
        "data",
        "words",
        "settings",
    ]
    assert text.index('id="verdict"') < text.index('id="methods"')


def test_ways_of_predicting_have_a_section_of_their_own(tmp_path):
    write_comparison(tmp_path)
    runs = load_runs(str(tmp_path))
    scores = {"test": {"fused": score(0.5), "stack": score(0.62)}}
    said = PredictionScores(scores=scores, ranking=("fused",), stack_weights={"fused": 1.0}, stack_clips=60)
    chosen = [replace(r, result=replace(r.result, predictions=said)) if r.result.method == "equal" else r for r in runs]
    page = Page(Path(write_report(chosen, out=str(tmp_path / "r.html"), title="t")).read_text("utf-8"))
    assert list(page.sections)[:2] == ["methods", "ways"]
    assert ".620" in page.sections["ways"]
    assert "refitted" in page.sections["ways"]


def test_every_method_row_has_its_hand_computed_numbers(text):
    rows = Page(text).rows
    # method, what predicts, to naive, to equal, to best single, branch epochs, borrowed, own s, rgb, logmel; what the
    # fused head reaches is always what predicts
    expected = {
        "uni:rgb": ".410 ± .014|−.050 ± .000|−.190 ± .014|−.090 ± .014|12||30|.410 ± .014|",
        "naive": ".460 ± .014||−.140 ± .014|−.040 ± .014|12||30||",
        "equal": ".600 ± .000|+.140 ± .014||+.100 ± .000|12||30|.410 ± .000|.480 ± .000",
        "offline": ".560 ± .014|+.100 ± .000|−.040 ± .014|+.060 ± .014|48|36|30|.390 ± .000|.470 ± .000",
    }
    assert {method: "|".join(rows[method][1:]) for method in expected} == expected
    assert {"uni:rgb", "uni:logmel", "naive", "equal", "offline"} <= set(rows)


def test_every_figure_is_there_with_every_panel(text):
    assert Page(text).svgs == {"accuracy": 2, "losses": 5, "epochs": 10, "ogr": 2, "weights": 1, "samples": 1}


def test_the_page_asks_nothing_of_the_network(text):
    page = Page(text)
    assert page.references
    assert all(reference.startswith(("data:image/", "#")) for reference in page.references)
    assert not page.tags & {"link", "iframe", "object", "base"}
    assert text.count("<script") == text.count("<script>") == 1  # which has no source
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)\)", text))


def test_ids_are_unique_on_the_page(text):
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))


def test_every_tag_is_closed(text):
    assert Page(text).open == []


def test_captions_carry_the_numbers_of_these_runs(text):
    sections = Page(text).sections
    assert "rgb overfits 4.0 times faster than logmel (OGR 1.0 against 0.25)" in sections["ogr"]
    assert "Eq. 3" in sections["ogr"]
    assert "gives most to logmel (.80)" in sections["weights"]
    assert "Proposition 1" in sections["weights"]
    assert "O = 0: none" in sections["weights"]
    assert (
        "logmel head of the joint networks reaches .480 at best (equal weights), trained alone .500"
        in sections["accuracy"]
    )
    assert re.search(r"widest for fused \(\d\.\d\d nats after 12 epochs", sections["losses"])


def test_the_verdict_names_the_highest_its_seeds_and_the_noise(text):
    head = " ".join(text[: text.index('id="methods"')].split())
    assert (
        "Equal weights score highest: .600 ± .000 test accuracy (2 seeds). The next, offline G-Blend, is .040 behind"
        in head
    )
    assert "With 2 seeds, differences under .102 are within noise" in head


def test_distances_to_the_baselines_stand_in_words_below_the_table(text):
    assert "Offline G-Blend is .100 above naive joint training (within noise)" in Page(text).sections["methods"]


def test_the_estimate_table_lists_every_head_with_g_o_ogr_and_weight(text):
    flat = " ".join(re.sub(r"<[^>]*>", " ", text[text.index('data-estimates="offline"') :]).split())
    for row in ("rgb .400 ± .040 .400 ± .030 1.0 .100", "logmel .800 ± .040 .200 ± .030 0.25 .800"):
        assert row in flat


def test_samples_show_what_is_there_and_say_what_is_absent(text):
    section = text[text.index('id="samples"') : text.index('id="data"')]
    assert section.count("data:image/webp") == 3
    assert section.count('class="absent"') == 2
    assert "clip&lt;1&gt;" in section


def test_the_data_section_counts_and_explains(text):
    page = Page(text)
    assert page.rows["train"] == ["train", "90", "7", "3"]
    assert page.rows["test"] == ["test", "41", "0", "0"]
    assert "failed, open, unreadable" in page.sections["data"]
    assert "moov <missing>" in page.sections["data"]
    assert "2 classes, single label: noop, fire" in page.sections["data"]
    assert "fps 15.0, codec jpeg" in page.sections["data"]


@pytest.mark.parametrize(
    ("failed", "said"),
    [
        (0, "Every clip of the manifest is in the shards."),
        (7, "The data set has no ledger that says why clips are missing."),
    ],
)
def test_without_a_ledgers_reasons_the_data_section_says_whether_clips_are_missing(tmp_path, failed, said):
    write_run(tmp_path / "run", result("naive", 3, {"fused": 0.25}), history(("fused",), {}))
    summary = replace(SUMMARY, losses=(), counts={"train": {"ok": 90, "failed": failed, "skipped": 0}})
    out = write_report(
        load_runs(str(tmp_path / "run")), out=str(tmp_path / "r.html"), title="", dataset_summary=summary
    )
    assert said in Page(Path(out).read_text(encoding="utf-8")).sections["data"]


@pytest.mark.parametrize(
    ("split", "said"), [("test", "Methods are chosen on val, and told with test."), ("val", "on val.")]
)
def test_the_words_say_what_methods_are_chosen_on_and_told_with(tmp_path, split, said):
    scored = result("naive", 0, {"fused": 0.25}, val={"fused": 0.5})
    found = replace(scored, scores={name: each for name, each in scored.scores.items() if name in ("val", split)})
    write_run(tmp_path / "run", found, history(("fused",), {}))
    out = write_report(load_runs(str(tmp_path / "run")), out=str(tmp_path / "r.html"), title="")
    (words,) = [line for line in Path(out).read_text(encoding="utf-8").splitlines() if "Methods are chosen on" in line]
    assert words.removesuffix("</dd>").endswith(said)


def test_settings_versions_runs_and_command_are_listed(text):
    page = Page(text)
    assert "optim.learning_rate" in page.sections["settings"]
    assert "av 18.1.0" in page.sections["settings"]
    assert "gblend compare small-cpu" in page.sections["settings"]
    assert page.rows["offline-s1"][:4] == ["offline-s1", "12", "500", "60"]


def test_text_from_the_data_is_escaped(text):
    assert "<title>Study &lt;1&gt;</title>" in text
    assert "moov &lt;missing&gt;" in text


def test_both_colour_schemes_phones_and_paper_are_provided_for(text):
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "width=device-width" in text
    css = text[text.index("<style>") : text.index("</style>")]
    defined = set(re.findall(r"(--[\w-]+):", css))
    assert set(re.findall(r"var\((--[\w-]+)", text)) <= defined


def test_one_run_alone_makes_a_whole_page(tmp_path: Path):
    write_run(tmp_path / "run", result("naive", 3, {"fused": 0.25}), history(("fused",), {}))
    out = write_report(load_runs(str(tmp_path / "run")), out=str(tmp_path / "r.html"), title="One run")
    text = Path(out).read_text(encoding="utf-8")
    page = Page(text)
    assert list(page.sections) == [
        "methods",
        "accuracy",
        "losses",
        "epochs",
        "ogr",
        "weights",
        "classes",
        "confusion",
        "words",
        "settings",
    ]
    assert page.rows["naive"] == ["naive", ".250", "12", "", "30"]
    assert page.svgs == {"accuracy": 1, "losses": 1, "epochs": 2}
    assert "No run estimated weights" in page.sections["ogr"]
    assert "No run estimated weights" in page.sections["weights"]
    assert "Naive joint training reaches .250 test accuracy (one seed)." in text


def test_settings_that_differ_are_listed_with_every_value_and_those_not_set_left_out():
    assert settings([{"a": {"b": [1, 2]}, "m": "naive"}, {"a": {"b": [1, 2]}, "m": "equal", "x": None}]) == [
        ("a.b", "[1, 2]"),
        ("m", "naive · equal"),
    ]


def test_every_colour_of_the_figures_is_declared_for_both_pages_where_a_way_of_predicting_is_drawn(tmp_path):
    judged = replace(
        result("equal", 0, {"rgb": 0.4, "logmel": 0.3, "fused": 0.5}),
        predict_by="stack",
        predictions=PredictionScores(
            scores={split: {"fused": score(0.5), "stack": score(0.6)} for split in ("val", "test")},
            ranking=("fused", "rgb", "logmel"),
            stack_weights=dict.fromkeys(HEADS, 1 / 3),
            stack_clips=60,
        ),
    )
    write_run(tmp_path / "runs" / "equal-s0", judged, history(HEADS, dict.fromkeys(HEADS, 1 / 3)))
    write_report(load_runs(str(tmp_path)), out=str(tmp_path / "report.html"), title="Stacked")
    text = (tmp_path / "report.html").read_text()
    used = set(re.findall(r"var\(--head-(\d+)", text))
    declared = re.findall(r"--head-(\d+):", text)
    assert used <= set(declared)
    assert all(declared.count(index) == 2 for index in used)
    legends = re.findall(r'<ul class="legend">.*?</ul>', text, flags=re.DOTALL)
    assert ["stack" in legend for legend in legends] == [True, *[False] * (len(legends) - 1)]
