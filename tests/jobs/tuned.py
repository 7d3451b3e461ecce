"""A data set of a few pictures and ramps, and the smallest training there is over it."""

from collections.abc import Sequence
from pathlib import Path

from gblend.config import BlendConfig, ComputeConfig, InputConfig, ModelConfig, OptimConfig, TrainConfig
from schemas import FeatureSpec, RgbSpec
from tests.gblend.shards import gradient_clip, write_dataset

CONFIG = TrainConfig(
    name="tiny",
    modalities=("rgb", "logmel"),
    epochs=3,
    batch_size=6,
    input=InputConfig(frames=2, crop_px=8, mel_frames=8),
    model=ModelConfig(visual_layers=(1,), visual_width=4, audio_layers=(1,), audio_width=4, fused_hidden=8),
    optim=OptimConfig(learning_rate=0.05),
    blend=BlendConfig(holdout_share=0.25, first_epochs=1, next_epochs=1, refit_epochs=0),
)
COMPUTE = ComputeConfig(workers=1, restarts=0)


def write_data(root: Path, *, splits: Sequence[str] = ("train", "val", "test")) -> str:
    """Twelve clips to train on, six to choose by, six to test on."""
    counts = {"train": 12, "val": 6, "test": 6}
    root.mkdir(parents=True, exist_ok=True)
    return write_dataset(
        root,
        {
            split: [gradient_clip(f"{split}{i}", seed=3 * i, label=i % 3) for i in range(count)]
            for split, count in counts.items()
            if split in splits
        },
        spec=FeatureSpec(rgb=RgbSpec(fixed_size_px=(20, 24))),
    )
