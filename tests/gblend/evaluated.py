"""A data set of noisy clips on disk, and runs on it that finish in seconds."""

from pathlib import Path

import numpy as np

from gblend.config import BlendConfig, InputConfig
from gblend.data import load_run_data
from gblend.methods import RunSpec
from gblend.runner import Runner
from schemas import FeatureSpec, RgbSpec, Task
from tests.gblend.shards import Clip, write_dataset
from tests.gblend.tiny import CLASSES, tiny_config

ACTION = Task(name="action", kind="single", classes=CLASSES)
EVENT = Task(name="event", kind="multi", classes=("x", "y"))
SPEC = FeatureSpec(rgb=RgbSpec(fps=10.0, short_side_px=16))
CONFIG = tiny_config(
    epochs=2,
    missing="zero",
    input=InputConfig(frames=2, frame_step=2, crop_px=8, scale_px=10, mel_frames=8),
    blend=BlendConfig(first_epochs=1, next_epochs=1, refit_epochs=1, holdout_share=0.25),
    predict_by="stack",
)


def noisy_clip(name: str, seed: int, *, sound: bool = True, frames: int = 9, **given) -> Clip:
    """Noise that shows a little of the label ``seed % 3``; no two frames are alike."""
    rng = np.random.default_rng(seed)
    level = 60 * (seed % 3)
    mel = rng.normal(10 + seed % 3, 3.0, (10 * frames, 40)).astype(np.float16)
    return Clip(
        name=name,
        frames=rng.integers(level, level + 100, (frames, 16, 24, 3)).astype(np.uint8) if frames else None,
        flow=rng.integers(level, level + 100, (frames - 1, 32, 24)).astype(np.uint8) if frames > 1 else None,
        logmel=mel if sound else None,
        **given,
    )


def write_noisy(root: Path, *, tasks: tuple[Task, ...] = (ACTION,), spec: FeatureSpec = SPEC) -> str:
    """24 clips to train on, 4 of val and 7 of test: one without sound, one shorter than a window, one of one frame."""
    splits = {}
    for split, count in (("train", 24), ("val", 4), ("test", 7)):
        splits[split] = [
            noisy_clip(
                f"{split}{i}",
                100 * len(split) + i,
                sound=i != 1,
                frames={2: 2, 3: 1}.get(i, 9),
                labels={
                    "action": None if i == 4 and len(tasks) > 1 else (100 * len(split) + i) % 3,
                    "event": [at for at in (0, 1) if (i + at) % 3 == 0],
                },
            )
            for i in range(count)
        ]
    return write_dataset(root, splits, spec=spec, tasks=tasks, per_shard=5)


def train_on(data: str, directory: Path, method: str, config=CONFIG) -> str:
    """A run on a data set, in this process."""
    runner = Runner(data=load_run_data(data, config), config=config, data_path=data)
    runner.run(RunSpec(method=method, seed=0), str(directory))
    return str(directory)
