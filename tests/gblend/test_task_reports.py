"""Tables, verdict and report of several tasks, and of several labels: everything names what it is about."""

import re
from dataclasses import replace

import numpy as np
import pytest

from gblend.joint import score_branches, score_tasks
from gblend.outputs import HELDOUT, HeadOutputs, save_outputs
from gblend.per_class import load_gains
from gblend.records import HeadScore, PredictionScores, run_result, to_json
from gblend.report import write_report
from gblend.run_files import OUTPUTS_FILE
from gblend.runs import load_run
from gblend.table import comparison_table, comparison_tables
from gblend.table_text import to_text
from gblend.verdict import verdict
from gblend.ways import tables_json, way_rows
from gblend.worker import describe
from tests.gblend.synthetic import estimate, history, result, write_run


def two_tasks(method, seed, verb, noun, action, *, heads=("rgb", "fused")):
    """The last head predicts; the others are at .1."""
    scores = {
        **{f"verb/{head}": verb if head == heads[-1] else 0.1 for head in heads},
        **{f"noun/{head}": noun if head == heads[-1] else 0.1 for head in heads},
        **{head: action if head == heads[-1] else 0.1 for head in heads},
    }
    run = result(method, seed, scores)
    return replace(run, heads=tuple(name for name in run.heads if "/" in name))


RUNS = [
    two_tasks("uni:rgb", 0, 0.5, 0.3, 0.2, heads=("rgb",)),
    two_tasks("naive", 0, 0.6, 0.25, 0.18, heads=("fused",)),
    two_tasks("equal", 0, 0.55, 0.4, 0.25),
]


def several_labels(method, seed, value, head="fused"):
    score = HeadScore(loss_nats=0.2, metrics={"mAP": value, "mAUC": 0.9, "d_prime": 1.81, "LRAP": 0.7}, count=200)
    return replace(result(method, seed, {head: 0.0}), scores={"val": {head: score}, "test": {head: score}})


MULTI = [several_labels("uni:rgb", s, 0.3 + s / 100, "rgb") for s in (0, 1)]
MULTI += [several_labels("naive", s, 0.4 + s / 50) for s in (0, 1)]


def test_there_is_a_table_for_all_tasks_together_and_one_for_each():
    tables = comparison_tables(RUNS)
    assert [table.task for table in tables] == ["", "verb", "noun"]
    assert [table.measure for table in tables] == [
        "accuracy of verb and noun together",
        "verb accuracy",
        "noun accuracy",
    ]
    assert all(table.heads == ("rgb", "fused") for table in tables)
    assert [table.row("equal").test["fused"].mean for table in tables] == [0.25, 0.55, 0.4]
    assert [table.row("equal").differences["best single"].mean for table in tables] == pytest.approx([0.05, 0.05, 0.1])


def test_one_task_has_one_table_with_the_names_it_always_had():
    (table,) = comparison_tables([result("naive", 0, {"fused": 0.5})])
    assert (table.task, table.tasks, table.measure) == ("", (), "accuracy")


def test_a_table_of_several_labels_names_its_metric_and_has_the_others_beside_it():
    text = to_text(comparison_table(MULTI))
    head, *_ = text.splitlines()
    assert head.split()[:6] == ["method", "rgb", "fused", "mAUC", "d'", "LRAP"]
    assert "mAP on test" in text
    assert "ccuracy" not in text


def test_the_noise_of_map_is_that_of_the_seeds_and_the_verdict_says_so():
    table = comparison_table(MULTI)
    assert table.clips_95 is None
    assert table.noise == table.noise_95
    found = verdict(table)
    assert "test mAP (2 seeds)" in found.headline
    assert "what the choice of 200 test clips adds is not known for mAP" in found.caution
    assert "ccuracy" not in " ".join([found.headline, *found.facts, found.caution])


def test_the_verdict_of_several_tasks_has_a_line_for_each():
    main, *others = comparison_tables(RUNS)
    found = verdict(main, others)
    assert found.headline.startswith("Equal weights score highest: .250 test accuracy of verb and noun together")
    assert found.facts[-2].startswith("verb: Naive joint training scores highest: .600 test verb accuracy")
    assert found.facts[-1].startswith("noun: Equal weights score highest: .400 test noun accuracy")


def test_the_progress_line_names_the_metric():
    assert "fused mAP val 0.400, test 0.400" in describe(MULTI[2])
    assert "fused accuracy of all tasks together val 0.250" in describe(RUNS[2])


def verbs_and_events(method, seed, verbs, *, heads=("fused",)):
    """A network that answers for three clips' events, and for so many clips' verbs of ten."""
    events = np.zeros((10, 2), dtype=bool)
    events[:3, 0] = True
    truths = {"verb": np.zeros(10, dtype=int), "event": events}
    answered = {"verb": np.arange(10) < verbs, "event": np.arange(10) < 3}
    tasks = {
        key: HeadOutputs(
            heads=heads,
            log_probs=np.log(np.full((1, 10, 2), 0.5)),
            counted=answered[key][None],
            labels=truths[key],
            positions=np.arange(10),
        )
        for key in truths
    }
    outputs = {key: {"val": said, "test": said, HELDOUT: said} for key, said in tasks.items()}
    run = result(method, seed, {f"{key}/{head}": 0.5 for key in tasks for head in heads})
    return replace(
        run, scores=score_branches(outputs), predictions=None if method.startswith("uni:") else score_tasks(outputs)
    )


def test_tasks_scored_on_other_clips_are_not_paired_by_their_mean_metric_either():
    runs = [verbs_and_events("uni:rgb", 0, 10, heads=("rgb",)), verbs_and_events("equal", 0, 5)]
    table = comparison_tables(runs)[0]
    assert table.metric == "mean"
    assert table.row("equal").differences == {}
    (row,) = way_rows(runs, table)
    assert row.over_best_single == {}
    alike = [runs[0], verbs_and_events("equal", 0, 10)]
    table = comparison_tables(alike)[0]
    assert table.row("equal").differences["best single"].mean == 0.0
    assert way_rows(alike, table)[0].over_best_single["fused"].mean == 0.0


def test_clips_of_several_tasks_are_said_to_be_added_up():
    table = comparison_tables([verbs_and_events("equal", 0, 5)])[0]
    assert table.clips == 3 + 5
    assert "8 test clips (added up over the tasks)" in verdict(table).caution


def test_ways_and_the_document_are_of_each_task():
    scores = {
        f"{task}{way}": RUNS[2].scores["test"]["fused"] for task in ("", "verb/", "noun/") for way in ("fused", "mean")
    }
    scores["noun/mean"] = replace(scores["noun/mean"], metrics={"accuracy": 0.44})
    said = PredictionScores(
        scores={"val": scores, "test": scores}, ranking=("verb/fused",), stack_weights={}, stack_clips=60
    )
    runs = [*RUNS[:2], replace(RUNS[2], predictions=said)]
    tables = comparison_tables(runs)
    ways = [way_rows(runs, table) for table in tables]
    assert ways[2][0].scores["mean"].mean == 0.44
    assert ways[2][0].over_best_single["mean"].mean == pytest.approx(0.14)
    values = tables_json(tables, ways)
    assert values["metric"] == "accuracy"
    assert list(values["by_task"]) == ["verb", "noun"]
    assert values["by_task"]["noun"]["ways"][0]["scores"]["mean"]["mean"] == 0.44


def written(folder, runs):
    found = []
    for run in runs:
        place = folder / f"{run.method.replace(':', '-')}-s{run.seed}"
        heads = [head for head in run.heads if head != "mean"]
        records = history(heads, dict.fromkeys(heads, 0.5)) if "/" not in heads[0] else two_histories(heads)
        estimates = [
            estimate(of, (0.2, 0.4), (0.5, 0.6), (0.7, 0.3))
            for of in (("verb/rgb", "verb/fused"), ("noun/rgb", "noun/fused"))
            if run.method == "offline"
        ]
        write_run(place, run, records, estimates)
        found.append(load_run(str(place)))
    return found


def two_histories(heads):
    """Histories are made by branch; the tasks get the same curves under their own names."""
    branches = tuple(dict.fromkeys(head.split("/")[1] for head in heads))
    return [
        replace(
            record,
            train={head: record.train[head.split("/")[1]] for head in heads},
            heldout={head: record.heldout[head.split("/")[1]] for head in heads},
        )
        for record in history(branches, dict.fromkeys(branches, 0.5))
    ]


def test_the_report_of_two_tasks_has_tables_and_panels_of_each(tmp_path):
    unseen = replace(two_tasks("offline", 0, 0.6, 0.4, 0.3), untrained_classes={"noun": 12, "verb": 1})
    runs = written(tmp_path, [*RUNS, unseen])
    page = (tmp_path / "report.html").as_posix()
    write_report(runs, out=page, title="Two tasks")
    text = (tmp_path / "report.html").read_text()
    assert re.findall(r"<h3>(.*?)</h3>", text)[:3] == ["accuracy of verb and noun together", "verb", "noun"]
    for title in ("naive, verb", "naive, noun", "offline, verb: OGR = |O / G|", "offline, noun: O against G"):
        assert title in text, title
    assert "For verb, trained alone" in text
    assert "Offline G-Blend for noun gives most to rgb (.70)" in text
    assert "no training clip of 12 noun classes; no training clip of 1 verb class<" in text
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))


def test_all_tasks_show_the_method_that_is_recommended(tmp_path, monkeypatch):
    """Naive is best for verb alone, equal for noun and for both together."""
    shown = []
    monkeypatch.setattr("gblend.report.load_gains", lambda runs, table, names, *, joint: shown.append(joint))
    monkeypatch.setattr("gblend.report.load_confusion", lambda runs, table, names, *, method: shown.append(method))
    write_report(written(tmp_path, RUNS), out=str(tmp_path / "report.html"), title="Two tasks")
    assert shown == ["equal"] * 4
    assert "Use equal weights" in (tmp_path / "report.html").read_text()


def test_the_report_of_several_labels_calls_nothing_accuracy(tmp_path):
    for run in MULTI:
        write_run(tmp_path / f"{run.method[:3]}-s{run.seed}", run)
    runs = [load_run(str(tmp_path / f"{run.method[:3]}-s{run.seed}")) for run in MULTI]
    write_report(runs, out=str(tmp_path / "report.html"), title="Several labels")
    text = (tmp_path / "report.html").read_text()
    assert ">test mAP</th>" in text
    assert not re.findall("ccuracy", re.sub('(#|id=")accuracy', "", text))


def test_every_table_of_estimates_has_the_unit_of_its_own_task(tmp_path):
    run = two_tasks("offline", 0, 0.6, 0.4, 0.5)
    several = {name: replace(s, metrics={"mAP": s.value}) for name, s in run.scores["test"].items() if "noun/" in name}
    run = replace(run, scores={split: {**heads, **several} for split, heads in run.scores.items()})
    (run,) = written(tmp_path, [run])
    write_report([run], out=str(tmp_path / "report.html"), title="Verbs and several nouns")
    text = (tmp_path / "report.html").read_text()
    units = re.findall(r'data-estimates="offline, (\w+)".*?Means over seeds, in ([\w ]+);', text, re.DOTALL)
    assert units == [("verb", "nats"), ("noun", "nats per class")]


def test_gains_of_several_labels_are_of_the_average_precision_of_each_class(tmp_path):
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
    good, bad = np.where(truth, -0.1, -2.0), np.where(truth[::-1], -0.1, -2.0)
    bad[:, 1] = good[:, 1]
    for run, said in ((MULTI[0], bad), (MULTI[2], good)):
        place = tmp_path / run.method[:3]
        write_run(place, run)
        outputs = HeadOutputs(
            heads=run.heads,
            log_probs=said[None].astype(np.float32),
            counted=np.ones((1, 4), dtype=bool),
            labels=truth,
            positions=np.arange(4),
        )
        save_outputs(f"{place}/{OUTPUTS_FILE}", {"": {"test": outputs}})
    runs = [load_run(str(tmp_path / name)) for name in ("uni", "nai")]
    gains = load_gains(runs, comparison_table([run.result for run in runs]), ("low", "high"), joint="naive")
    assert gains.metric == "average precision"
    # Ranked last, two clips of four have the precision 1/2 (ties count together); ranked first, 1.
    assert {found.name: (found.clips, found.gains) for found in gains.classes} == {
        "low": (2, (0.5,)),
        "high": (2, (0.0,)),
    }


def test_a_result_of_before_there_were_other_metrics_can_still_be_read():
    run = result("naive", 0, {"fused": 0.5})
    values = to_json(run)
    for heads in values["scores"].values():
        for score in heads.values():
            score["accuracy"] = score.pop("metrics")["accuracy"]
    assert run_result(values) == run
