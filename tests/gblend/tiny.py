"""Clips in memory and networks of a few hundred parameters: the method's behaviour without files or cluster."""

import numpy as np

from gblend.clip_dataset import Draw, Sample
from gblend.config import BlendConfig, InputConfig, ModelConfig, OptimConfig, TrainConfig
from gblend.data import RunData
from gblend.heads import by_key
from gblend.labels import label_value
from schemas import FeatureSpec, Task

MODALITIES = ("rgb", "flow", "logmel")
CLASSES = ("a", "b", "c")
TASK = Task(name="action", kind="single", classes=CLASSES)
VERB = Task(name="verb", kind="single", classes=CLASSES)
NOUN = Task(name="noun", kind="single", classes=("cup", "pan"))
EVENT = Task(name="event", kind="multi", classes=("first", "not last", "even first"))
"""Several labels, of clip i by its action i mod 3: clips of the last action have none."""
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


def labels_of(task: Task, clip: int) -> int | list[int] | None:
    """Label of a clip as a data set stores it; of a task with ``unlabelled`` in its name every fourth clip has none."""
    if "unlabelled" in task.name and clip % 4 == 1:
        return None
    if task.kind == "multi":
        return [at for at, has in enumerate((clip % 3 == 0, clip % 3 < 2, clip % 6 == 0)) if has]
    return clip % len(task.classes)


class MemoryClips:
    """Clips whose arrays are a noisy picture of their label; a random window adds noise decided by the draw."""

    def __init__(
        self, count: int, *, seed: int, absent: dict[str, list[int]] | None = None, tasks: tuple[Task, ...] = (TASK,)
    ) -> None:
        rng = np.random.default_rng(seed)
        self.tasks = by_key(tasks)
        self.labels = np.arange(count) % len(CLASSES)
        self._labels = {key: [labels_of(task, i) for i in range(count)] for key, task in self.tasks.items()}
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

    def labelled_as(self, key: str, labels: list) -> None:
        """Give all clips other labels for a task."""
        self._labels = {**self._labels, key: labels}

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
            "labels": {key: label_value(self._labels[key][position], task) for key, task in self.tasks.items()},
            "arrays": arrays,
            "present": {name: bool(self._present[name][position]) for name in self._modalities},
        }

    def only(self, modalities) -> "MemoryClips":
        fewer = object.__new__(MemoryClips)
        fewer.__dict__.update(self.__dict__, _modalities=tuple(m for m in self._modalities if m in modalities))
        return fewer


def tiny_data(
    *,
    train: int = 24,
    heldout: int = 9,
    absent: dict[str, list[int]] | None = None,
    tasks: tuple[Task, ...] = (TASK,),
) -> RunData:
    return RunData(
        train=MemoryClips(train, seed=1, absent=absent, tasks=tasks),
        train_slice=list(range(heldout)),
        heldout=MemoryClips(heldout, seed=2, absent=absent, tasks=tasks),
        splits={"val": MemoryClips(6, seed=3, tasks=tasks), "test": MemoryClips(7, seed=4, tasks=tasks)},
        modalities=MODALITIES,
        spec=FeatureSpec(),
        heldout_ids=tuple(f"clip{i}" for i in range(heldout)),
        excluded={},
    )
