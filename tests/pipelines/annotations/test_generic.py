import pytest

from pipelines.annotations import from_csv, parse_csv, parse_jsonl
from pipelines.preflight import build


def test_json_lines_read_like_csv_and_lists_are_several_labels(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"path": "a.mp4", "start": 0, "end": 2.5, "label": ["x", 2], "split": "train"}\n'
    )
    (tmp_path / "a.csv").write_text("path,start,end,label,split\na.mp4,0,2.5,x|2,train\n")
    drop = ["line"]
    one, other = (from_csv(str(tmp_path / name)) for name in ("a.jsonl", "a.csv"))
    assert one.table.drop_columns(drop) == other.table.drop_columns(drop)
    assert one.tasks == other.tasks


@pytest.mark.parametrize(
    "path", ["../x.mp4", "a/../../x", "/etc/x", "http://h/x.mp4", "concat:a.ts|b.ts", "file:x.mp4"]
)
def test_a_path_that_leads_out_of_the_root_is_refused_with_its_line(path):
    with pytest.raises(ValueError, match=r"x.csv, line 2: path .* is not a plain path below the video root"):
        parse_csv(f"path,split,label\n{path},train,x\n", what="x.csv")


def test_odd_json_lines_are_listed(official):
    made = parse_jsonl(
        official("constructed/manifest_edge.jsonl").replace('"label":', '"split":"val","label":'),
        what="e.jsonl",
        bad_rows="report",
    )
    assert [row.line for row in made.bad] == [3, 5, 6, 7]
    with pytest.raises(ValueError, match="two rows share the clip id 'a' but differ in"):
        build(made, files=["good.mp4", "-i.mp4"])
    table, report = build(made, files=["good.mp4", "-i.mp4"], bad_rows="report")
    assert table["clip_id"].to_pylist() == ["a", "f"]
    assert [row.line for row in report.bad] == [3, 5, 6, 7, 9]
    assert report.missing == ("missing.mp4",)
    assert report.annotated == report.found + report.missing_clips + len(report.duplicates) + len(report.bad)
