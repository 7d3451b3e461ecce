"""Clips through all of their windows (`gblend.views`), as measuring takes them.

A window is a sample of its own, numbered ``clip * views + view``: what measures central windows measures these, on any
number of workers. Every image is decoded once for all windows of a clip, whose samples come one after another.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from torch.utils.data import Dataset

from gblend.clip_dataset import Draw, Sample
from gblend.clips import ClipIndex, ClipReader, StoredClip
from gblend.config import InputConfig
from gblend.inputs import Window, count_starts, cut_window, decode_image
from gblend.labels import label_value
from gblend.views import Views
from gblend.windows import frame_indices
from schemas import FeatureSpec, Task, TensorSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """How a run sees a clip."""

    views: Views
    """Which windows."""
    input: InputConfig
    """Their size, as in training."""
    spec: FeatureSpec
    """How the clip is stored."""
    columns: Mapping[str, TensorSpec]
    """Modalities of the user's own, as the run standardised them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewedClip:
    """A clip ready to be cut: the images of its windows are decoded."""

    clip: StoredClip
    """Images that no window shows are as they were stored."""
    windows: list[Window]
    """In order."""
    seen: Seen
    """Its spec is of decoded images."""

    @classmethod
    def of(cls, clip: StoredClip, seen: Seen, modalities: Sequence[str]) -> "ViewedClip":
        """Decode what the windows show of these modalities. They lie where all that the clip holds has frames."""
        config, spec = seen.input, seen.spec
        windows = seen.views.windows(starts=count_starts(clip, config), height=clip.height, width=clip.width)
        decoded = {}
        for name in ("rgb", "flow"):
            images, codec = (clip.rgb, spec.rgb.codec) if name == "rgb" else (clip.flow, spec.flow.codec)
            if images is None or name not in modalities or codec == "raw":
                continue
            shown = {
                int(at)
                for window in windows
                for at in frame_indices(
                    window.start_frame, stored=len(images), frames=config.frames, step=config.frame_step
                )
            }
            decoded[name] = [
                pa.py_buffer(decode_image(image, name)) if at in shown else image for at, image in enumerate(images)
            ]
        raw = replace(spec, rgb=replace(spec.rgb, codec="raw"), flow=replace(spec.flow, codec="raw"))
        return cls(clip=replace(clip, **decoded), windows=windows, seen=replace(seen, spec=raw))

    def cut(self, view: int, modalities: tuple[str, ...]) -> dict[str, np.ndarray]:
        """The arrays of one window (`gblend.inputs.cut_window`); modalities are among those decoded."""
        seen = self.seen
        return cut_window(self.clip, self.windows[view], seen.input, seen.spec, modalities, columns=seen.columns)


class ViewedClips(Dataset):
    """All windows of stored clips, as a `gblend.clip_dataset.WindowDataset`; none of them is random."""

    def __init__(
        self,
        index: ClipIndex,
        reader: ClipReader,
        seen: Seen,
        *,
        tasks: Mapping[str, Task],
        modalities: tuple[str, ...],
    ) -> None:
        self.index = index
        self.views = seen.views
        self.tasks = tasks
        self._reader = reader
        self._seen = seen
        self._modalities = modalities
        self._last: tuple[int, ViewedClip] | None = None

    def only(self, modalities: tuple[str, ...]) -> "ViewedClips":
        """Decode these modalities only; windows stay where they are."""
        fewer = copy.copy(self)
        fewer._modalities = tuple(name for name in self._modalities if name in modalities)
        fewer._last = None
        return fewer

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.index) * self.views.count

    def __getitem__(self, draw: Draw) -> Sample:
        position, entropy = draw
        assert entropy is None, "no window is drawn at random"
        at, view = divmod(position, self.views.count)
        if self._last is None or self._last[0] != at:
            stored = self._reader.read(self.index.shards[at], int(self.index.rows[at]))
            self._last = at, ViewedClip.of(stored, self._seen, self._modalities)
        viewed = self._last[1]
        return {
            "position": position,
            "labels": {key: label_value(self.index.labels[key][at].as_py(), task) for key, task in self.tasks.items()},
            "arrays": viewed.cut(view, self._modalities),
            "present": {name: viewed.clip.has(name) for name in self._modalities},
        }
