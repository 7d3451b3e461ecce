import io

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.manifest import check_manifest, read_manifest
from pipelines.plan import from_bytes, plan_shards, rows_hash, to_bytes
from schemas.manifest import manifest_schema
from schemas.task import Task

TASKS = (Task(name="action", kind="single", classes=("x", "y")), Task(name="event", kind="multi", classes=("p", "q")))


def rows(n=7, **changes):
    base = [
        {
            "clip_id": f"c{i}",
            "uri": f"v{i}.mp4",
            "start_s": None,
            "end_s": None,
            "split": "val" if i % 3 == 2 else "train",
            "group": "g",
            "label.action": i % 2,
            "label.event": [0, 1] if i % 2 else None,
        }
        for i in range(n)
    ]
    base[-1].update(changes)
    return pa.Table.from_pylist(base, manifest_schema(TASKS))


def test_shards_follow_manifest_order_within_each_split():
    plans = plan_shards(check_manifest(rows(), what="m"), clips_per_shard=2)
    assert [(p.name, p.positions.tolist()) for p in plans] == [
        ("train/00000", [0, 1]),
        ("train/00001", [3, 4]),
        ("train/00002", [6]),
        ("val/00000", [2, 5]),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_id": "c0"}, "'c0' occurs 2 times"),
        ({"split": "dev"}, "unknown split 'dev'; allowed: train, val, test"),
        ({"label.action": 2}, r"label.action holds 2, allowed are 0\.\.1"),
        ({"label.event": [0, -1]}, "label.event holds -1"),
        ({"uri": "../x.mp4"}, "row 6 .*not a plain path below the video root"),
        ({"uri": "/x.mp4"}, "not a plain path"),
        ({"uri": "http://x/y.mp4"}, "not a plain path"),
        ({"start_s": 3.0, "end_s": 3.0}, r"span \[3.0, 3.0\)\) has a span that is empty"),
        ({"start_s": -1.0}, "begins before 0"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said_in_one_message(changes, message):
    with pytest.raises(ValueError, match=message):
        check_manifest(rows(**changes), what="clips.parquet")


def test_a_missing_column_is_named_with_the_remedy():
    with pytest.raises(ValueError, match=r"column 'split' \(string\) is missing.*gblend manifest"):
        check_manifest(rows().drop_columns(["split"]), what="clips.parquet")


def test_a_file_that_is_not_parquet_or_not_there_says_so(tmp_path):
    (tmp_path / "m.parquet").write_text("path,label\n")
    with pytest.raises(ValueError, match="not a Parquet file"):
        read_manifest(str(tmp_path / "m.parquet"))
    with pytest.raises(FileNotFoundError, match="no manifest at"):
        read_manifest(str(tmp_path / "none.parquet"))


def test_the_hash_covers_rows_and_class_names_and_survives_the_trip():
    table = rows()
    assert rows_hash(from_bytes(to_bytes(table))) == rows_hash(table)
    assert rows_hash(rows(uri="other.mp4")) != rows_hash(table)
    renamed = (Task(name="action", kind="single", classes=("x", "z")), TASKS[1])
    assert rows_hash(table.cast(manifest_schema(renamed))) != rows_hash(table)


def test_every_row_is_planned_exactly_once():
    plans = plan_shards(check_manifest(rows(101), what="m"), clips_per_shard=8)
    assert sorted(np.concatenate([p.positions for p in plans]).tolist()) == list(range(101))


def test_a_manifest_may_lie_at_any_fsspec_url():
    pq.write_table(rows(), sink := io.BytesIO())
    fsspec.filesystem("memory").pipe_file("/m/clips.parquet", sink.getvalue())
    assert read_manifest("memory://m/clips.parquet").table.num_rows == 7
    with pytest.raises(FileNotFoundError, match="no manifest at"):
        read_manifest("memory://m/none.parquet")


def test_an_empty_cell_is_named_by_its_column():
    table = rows()
    nullable = pa.schema([f.with_nullable(True) for f in table.schema], metadata=table.schema.metadata)
    holed = pa.Table.from_pylist([{**row, "split": None} for row in table.to_pylist()], nullable)
    with pytest.raises(ValueError, match="column 'split' has empty cells"):
        check_manifest(holed, what="m")


def spread(sources: list[int], *, ends: list[float] | None = None):
    """A manifest of spans of numbered sources, in the order given."""
    table = rows(len(sources)).to_pylist()
    for i, (row, source) in enumerate(zip(table, sources, strict=True)):
        end_s = ends[i] if ends else float(i + 1)
        row.update(uri=f"v{source}.mp4", start_s=end_s - 0.5, end_s=end_s, split="train")
    return check_manifest(pa.Table.from_pylist(table, manifest_schema(TASKS)), what="m")


@pytest.mark.parametrize("clips_per_shard", [1, 3, 7, 50])
def test_a_source_lies_in_as_few_shards_as_it_can(clips_per_shard):
    sources = np.random.default_rng(0).integers(0, 12, 60).tolist()
    plans = plan_shards(spread(sources), clips_per_shard=clips_per_shard)
    assert sorted(np.concatenate([p.positions for p in plans]).tolist()) == list(range(60))
    for source in set(sources):
        shards = [[p for p in plan.positions.tolist() if sources[p] == source] for plan in plans]
        used = sum(bool(found) for found in shards)
        assert used <= -(-sources.count(source) // clips_per_shard) + (sources.count(source) > clips_per_shard)
        places = [i for i, found in enumerate(shards) if found]
        assert places == list(range(places[0], places[0] + used))
    assert all(len(plan.positions) <= clips_per_shard for plan in plans)


def test_clips_of_a_source_are_in_the_order_in_which_they_end():
    (plan,) = plan_shards(spread([5, 3, 5, 5], ends=[9.0, 1.0, 2.0, 4.0]), clips_per_shard=8)
    assert plan.positions.tolist() == [2, 3, 0, 1]
