"""Clips in memory and networks of a few hundred parameters: the method's behaviour without files or cluster."""

import numpy as np

from gblend.config import BlendConfig, InputConfig, ModelConfig, OptimConfig, TrainConfig
from gblend.data import Draw, RunData, Sample
from schemas import FeatureSpec

MODALITIES = ("rgb", "flow", "logmel")
CLASSES = ("a", "b", "c")
FRAMES, SIDE, MEL_FRAMES = 2, 8, 8


def tiny_config(**changes) -> TrainConfig:
    settings = {
        "name": "tiny",
        "epochs": 3,
        "batch_size": 6,
        "input": InputConfig(frames=FRAMES, crop_px=SIDE, mel_frames=MEL_FRAMES),
        "model": ModelConfig(
            visual_layers=(1,), visual_width=4, audio_layers=(1,), audio_width=4, fused_hidden=8, fused_dropout=0.2
        ),
        "optim": OptimConfig(learning_rate=0.05),
        "blend": BlendConfig(first_epochs=2, next_epochs=1),
    }
    return TrainConfig(**{**settings, **changes})


class MemoryClips:
    """Clips whose arrays are a noisy picture of their label; a random window adds noise decided by the draw."""

    def __init__(self, count: int, *, seed: int, absent: dict[str, list[int]] | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.labels = np.arange(count) % len(CLASSES)
        level = 60 * self.labels
        self._arrays = {
            "rgb": np.clip(
                level[:, None, None, None, None] + rng.integers(0, 60, (count, FRAMES, SIDE, SIDE, 3)), 0, 255
            ),
            "flow": np.clip(
                level[:, None, None, None, None] + rng.integers(0, 90, (count, FRAMES, 2, SIDE, SIDE)), 0, 255
            ),
            "logmel": (self.labels[:, None, None] + rng.normal(0, 2.0, (count, MEL_FRAMES, 40))).astype(np.float32),
        }
        self._present = {name: np.ones(count, dtype=bool) for name in MODALITIES}
        for name, clips in (absent or {}).items():
            self._present[name][clips] = False
        self._modalities = MODALITIES
        self.drawn: list[Draw] = []

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, draw: Draw) -> Sample:
        position, entropy = draw
        self.drawn.append(draw)
        arrays = {}
        for name in self._modalities:
            values = self._arrays[name][position]
            if entropy is not None:
                values = values + np.random.default_rng(entropy).integers(0, 5)
            arrays[name] = np.clip(values, 0, 255).astype(np.float32 if name == "logmel" else np.uint8)
        return {
            "position": position,
            "label": int(self.labels[position]),
            "arrays": arrays,
            "present": {name: bool(self._present[name][position]) for name in self._modalities},
        }

    def only(self, modalities) -> "MemoryClips":
        fewer = object.__new__(MemoryClips)
        fewer.__dict__.update(self.__dict__, _modalities=tuple(m for m in self._modalities if m in modalities))
        return fewer


def tiny_data(*, train: int = 24, heldout: int = 9, absent: dict[str, list[int]] | None = None) -> RunData:
    return RunData(
        train=MemoryClips(train, seed=1, absent=absent),
        train_slice=list(range(heldout)),
        heldout=MemoryClips(heldout, seed=2, absent=absent),
        splits={"val": MemoryClips(6, seed=3), "test": MemoryClips(7, seed=4)},
        modalities=MODALITIES,
        classes=CLASSES,
        spec=FeatureSpec(),
        heldout_ids=tuple(f"clip{i}" for i in range(heldout)),
        excluded={},
    )
