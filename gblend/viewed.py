"""Clips through all of their windows (`gblend.views`), as measuring takes them.

A window is a sample of its own, numbered ``clip * views + view``: what measures central windows measures these, on any
number of workers. Every image is decoded once for all windows of a clip, whose samples come one after another; by each
of two processes, where both read windows of the clip, because they are in different batches.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from torch.utils.data import Dataset

from gblend.clip_dataset import Draw, Feed, Sample
from gblend.clips import ClipIndex, ClipReader, Encoded, StoredClip
from gblend.config import InputConfig
from gblend.inputs import Window, count_starts, cut_window, decode_image
from gblend.labels import label_value
from gblend.views import Views
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


class DecodedImages(Sequence[Encoded]):
    """The images of a clip as if they were stored raw: each is decoded when a window first shows it, and kept."""

    def __init__(self, images: Sequence[Encoded], modality: Literal["rgb", "flow"]) -> None:
        self._images = images
        self._modality: Literal["rgb", "flow"] = modality
        self._decoded: dict[int, pa.Buffer] = {}

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, at: int) -> pa.Buffer:  # pyright: ignore[reportIncompatibleMethodOverride]
        if at not in self._decoded:
            self._decoded[at] = pa.py_buffer(decode_image(self._images[at], self._modality))
        return self._decoded[at]


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewedClip:
    """A clip ready to be cut into its windows."""

    clip: StoredClip
    """Its images are decoded, once for all windows."""
    windows: list[Window]
    """In order."""
    seen: Seen
    """Its spec is of decoded images."""

    @classmethod
    def of(cls, clip: StoredClip, seen: Seen, modalities: Sequence[str]) -> "ViewedClip":
        """Images of these modalities can be cut. Windows lie where all that the clip holds has frames."""
        spec = seen.spec
        windows = seen.views.windows(starts=count_starts(clip, seen.input), height=clip.height, width=clip.width)
        decoded = {}
        for name in ("rgb", "flow"):
            images, codec = (clip.rgb, spec.rgb.codec) if name == "rgb" else (clip.flow, spec.flow.codec)
            if images is not None and name in modalities and codec != "raw":
                decoded[name] = DecodedImages(images, name)
        raw = replace(spec, rgb=replace(spec.rgb, codec="raw"), flow=replace(spec.flow, codec="raw"))
        return cls(clip=replace(clip, **decoded), windows=windows, seen=replace(seen, spec=raw))

    def cut(self, view: int, modalities: tuple[str, ...]) -> dict[str, np.ndarray]:
        """The arrays of one window (`gblend.inputs.cut_window`); modalities are among those it was made for."""
        seen = self.seen
        return cut_window(self.clip, self.windows[view], seen.input, seen.spec, modalities, columns=seen.columns)


class ViewedClips(Dataset):
    """All windows of stored clips, as a `gblend.clip_dataset.WindowDataset`; none of them is random."""

    feed: Feed | None = None
    """Where its batches come from; None: it is read on the spot."""

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
        self.reader = reader
        self.modalities = modalities
        self._seen = seen
        self._last: tuple[int, ViewedClip] | None = None

    def only(self, modalities: tuple[str, ...]) -> "ViewedClips":
        """Decode these modalities only; windows stay where they are."""
        fewer = copy.copy(self)
        fewer.modalities = tuple(name for name in self.modalities if name in modalities)
        fewer._last = None
        return fewer

    @property
    def reads(self) -> tuple[str, ...]:
        """As of `gblend.clip_dataset.ClipDataset`."""
        return tuple(name for name in self.reader.modalities if name in self.modalities or name in ("rgb", "flow"))

    def shard_of(self, position: int) -> str:
        """Where the clip of a window is stored."""
        return self.index.shards[position // self.views.count]

    def to_read(self) -> "ViewedClips":
        """As of `gblend.clip_dataset.ClipDataset`."""
        lean = copy.copy(self)
        lean.feed, lean._last = None, None
        lean.index = replace(self.index, clip_ids=(), groups=(), uris=(), present={})
        return lean

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.index.rows) * self.views.count

    def __getitem__(self, draw: Draw) -> Sample:
        position, entropy = draw
        assert entropy is None, "no window is drawn at random"
        at, view = divmod(position, self.views.count)
        if self._last is None or self._last[0] != at:
            stored = self.reader.read(self.index.shards[at], int(self.index.rows[at]), self.reads)
            self._last = at, ViewedClip.of(stored, self._seen, self.modalities)
        viewed = self._last[1]
        return {
            "position": position,
            "labels": {key: label_value(self.index.labels[key][at].as_py(), task) for key, task in self.tasks.items()},
            "arrays": viewed.cut(view, self.modalities),
            "present": {name: viewed.clip.has(name) for name in self.modalities},
        }
