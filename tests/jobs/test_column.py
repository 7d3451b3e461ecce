"""The job: what it prints, what it returns, and its exit status."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from schemas.layout import DatasetInfo
from tests.gblend.shards import gradient_clip, write_dataset


@pytest.fixture
def values(tmp_path):
    pq.write_table(pa.table({"clip_id": ["a"], "touch": [[1.0, 2.0]]}), tmp_path / "v.parquet")
    return str(tmp_path / "v.parquet")


def test_a_dataset_whose_shards_are_not_finished_is_one_line_and_exit_1(tmp_path, values, capsys):
    data = write_dataset(tmp_path / "data", {"train": [gradient_clip("a")]})
    before = DatasetInfo.loads((tmp_path / "data/dataset.json").read_text(), what="x")
    assert main(["column", "--data", data, "--name", "touch", "--values", values]) == 1
    assert capsys.readouterr().err == (
        f"error: shard train/00000 of {data} is not finished; run `gblend preprocess` again first\n"
    )
    assert DatasetInfo.loads((tmp_path / "data/dataset.json").read_text(), what="x") == before


def test_credentials_in_a_url_are_refused_without_repeating_them(values, capsys):
    assert main(["column", "--data", "s3://id:secret@bucket/data", "--name", "touch", "--values", values]) == 1
    told = capsys.readouterr().err
    assert "must not hold credentials" in told
    assert "secret" not in told
