r"""Tensors of your own, one a clip, to a modality of a finished dataset.

ray job submit --working-dir . -- \
    python -m jobs.column --data s3://b/data --name pose --values s3://b/pose.parquet
"""

import sys
from dataclasses import asdict
from typing import Literal

from jobs.cli import run
from jobs.places import absolute
from jobs.terminal import Result, say, say_aside
from pipelines.column import ColumnConfig, add_column


def column(*, data: str, name: str, values: str, on_change: Literal["refuse", "redo"] = "refuse") -> Result:
    """Store a tensor for every clip beside its frames, flow and log-mel, as a modality to train on.

    The file has the columns `clip_id` and `name` (or one only beside `clip_id`): numbers, or lists of numbers nested as
    the tensor has axes, the channels last: a vector, or (time, channels). All have one shape. A clip that the file
    leaves out, or whose cell is empty, is without the modality. Run again after it was stopped, it finishes.

    Args:
        data: Dataset directory, as `gblend preprocess` writes it.
        name: Of the modality, for `--modalities` and `uni:NAME`: letters, digits and underscores.
        values: Parquet file, path or fsspec URL.
        on_change: What to do when the dataset has this column with other values.
    """
    config = ColumnConfig(data=absolute(data), name=name, values=absolute(values), on_change=on_change)
    made = add_column(config, say=say_aside)
    say(f"{made.present} of {made.clips} clips have {name}, shape {'x'.join(map(str, made.spec.shape))}")
    say(f"{made.shards} shards ({made.kept_shards} kept); {made.elsewhere} rows are of clips that are not stored")
    counts = {key: value for key, value in asdict(made).items() if key != "spec"}
    return Result(place=config.data, numbers={"modality": name, "shape": list(made.spec.shape), **counts})


if __name__ == "__main__":
    sys.exit(run(column, prog="python -m jobs.column"))
