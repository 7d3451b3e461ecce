"""Shuffled samples per CPU-second of the training loader, over a bare loop that maps, decodes and cuts the same
windows.

    python -m benchmarks.loader [--clips 240] [--rounds 12] [--check]        (about three minutes)

Clips are of the size that preprocessing leaves: 10 s at 10 frames/s, short side 128, JPEG frames and flow, log-mel, in
shards of 40 clips. Windows are those of the recipe small-cpu (8 frames, every second one, resized and cropped) and of
the paper's networks scaled down with their input (16 frames, flow, jitter, mirror, masks).

The bare loop is what somebody would write for this one task: `pyarrow` memory maps, one `cv2.imdecode`, one resize and
one crop a frame, one interpolation, arrays stacked into tensors; it knows where every window lies. The loader decides
windows, masks and labels, checks files, and makes batches as training gets them. Both read the same windows in the same
order, in one process on one thread; their arrays are compared first, bit by bit. They take turns, and each turn of the
loader is compared with the turns of the loop before and after it; the median of the ratios counts. Loader processes
and Ray Data (``--ingest ray``) have rows of their own, by the clock, because they are there to use other cores.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import torch

from benchmarks.table import table
from gblend.batches import Batch, training_batches, training_loader
from gblend.clip_dataset import ClipDataset
from gblend.config import InputConfig, TrainConfig
from gblend.data import RunData, load_run_data
from gblend.feeder import Feeding
from gblend.inputs import Window, choose_window
from gblend.ray_feeder import feed_from_ray
from gblend.windows import frame_indices, mel_positions
from jobs.recipes import small_cpu
from jobs.session import connect
from schemas import FeatureSpec, RgbSpec
from tests.gblend.shards import Clip, write_dataset

BUDGET = 0.90
"""Least share of the bare loop's samples per CPU-second."""

FPS, SECONDS, HEIGHT, WIDTH = 10.0, 10, 128, 170
PER_SHARD = 40
ENTROPY = (0, 0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What is read."""

    name: str
    """In the table."""
    modalities: tuple[str, ...]
    """Of the network."""
    input: InputConfig
    """Windows."""

    def config(self) -> TrainConfig:
        """A run that reads it."""
        return replace(small_cpu(), modalities=self.modalities, input=self.input)


TASKS = (
    Task(name="small-cpu: rgb, logmel", modalities=("rgb", "logmel"), input=small_cpu().input),
    Task(name="small-cpu: rgb, flow, logmel", modalities=("rgb", "flow", "logmel"), input=small_cpu().input),
    Task(
        name="16 x 112 px, augmented",
        modalities=("rgb", "flow", "logmel"),
        input=InputConfig(
            frames=16,
            scale_px=128,
            jitter_px=(128, 160),
            crop_px=112,
            flip="horizontal",
            time_masks=(2, 20),
            band_masks=(2, 8),
        ),
    ),
)


def write_clips(folder: Path, count: int) -> str:
    """A data set of ``count`` training clips and two of test; a few different ones, because writing them takes long."""
    rng = np.random.default_rng(0)
    spec = FeatureSpec(rgb=RgbSpec(fps=FPS, short_side_px=HEIGHT))
    frames = int(FPS * SECONDS)

    def pictures(height: int, channels: int) -> np.ndarray:
        """Textured and moving: about as many bytes a frame as camera footage."""
        coarse = rng.integers(0, 256, (40, 60, channels), dtype=np.uint8)
        large = cv2.resize(coarse, (2 * WIDTH, 2 * height), interpolation=cv2.INTER_CUBIC).reshape(
            2 * height, 2 * WIDTH, channels
        )
        return np.stack([large[i % height :, i % WIDTH :][:height, :WIDTH] for i in range(frames)])

    kinds = [
        {
            "frames": pictures(HEIGHT, 3),
            "flow": pictures(2 * HEIGHT, 1)[:-1, ..., 0],
            "logmel": rng.normal(16.0, 8.0, (SECONDS * 100, spec.logmel.mels)).astype(np.float16),
        }
        for _ in range(4)
    ]
    splits = {
        split: [Clip(name=f"{split}{i}", label=i % 3, **kinds[i % 4]) for i in range(size)]
        for split, size in (("train", count), ("test", 2))
    }
    return write_dataset(folder, splits, spec=spec, per_shard=PER_SHARD)


class BareLoop:
    """Maps, decodes, cuts."""

    def __init__(self, run: RunData, task: Task, data: str, batches: list[list[int]]) -> None:
        assert isinstance(run.train, ClipDataset)
        index = run.train.index
        self.task = task
        self.spec = FeatureSpec(rgb=RgbSpec(fps=FPS, short_side_px=HEIGHT))
        self.files = {
            (shard, name): pa.ipc.open_file(pa.memory_map(f"{data}/{shard}/{name}.arrow"))
            for shard in set(index.shards)
            for name in task.modalities
        }
        self.labels = torch.tensor(index.labels[""].to_pylist())
        self.batches = [[(i, index.shards[i], int(index.rows[i]), self._window(run, i)) for i in b] for b in batches]

    def _window(self, run: RunData, i: int) -> Window:
        assert isinstance(run.train, ClipDataset)
        clip = run.train.reader.read(run.train.index.shards[i], int(run.train.index.rows[i]))
        return choose_window(clip, self.task.input, np.random.default_rng((*ENTROPY, i)))

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        for batch in self.batches:
            found: dict[str, list[np.ndarray]] = {name: [] for name in self.task.modalities}
            for _, shard, row, window in batch:
                for name in self.task.modalities:
                    stored = self.files[shard, name].get_batch(row)
                    found[name].append(
                        self._sound(stored, window) if name == "logmel" else self._images(name, stored, window)
                    )
            yield (
                {name: torch.from_numpy(np.stack(arrays)) for name, arrays in found.items()},
                self.labels[[i for i, *_ in batch]],
            )

    def _images(self, name: str, stored: pa.RecordBatch, window: Window) -> np.ndarray:
        given, crop = self.task.input, self.task.input.crop_px
        images = stored.column("frames" if name == "rgb" else "fields")[0].values
        short = window.short_side_px or given.scale_px or HEIGHT
        size = (round(WIDTH * (short / HEIGHT)), short)
        top, left = round(window.top * (short - crop)), round(window.left * (size[0] - crop))
        channels = (crop, crop, 3) if name == "rgb" else (2, crop, crop)
        cut = np.empty((given.frames, *channels), np.uint8)
        shown = frame_indices(window.start_frame, stored=len(images), frames=given.frames, step=given.frame_step)
        for at, i in enumerate(shown.tolist()):
            data = np.frombuffer(images[i].as_buffer(), dtype=np.uint8)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB if name == "rgb" else cv2.IMREAD_GRAYSCALE)
            assert image is not None
            planes, places = ([image], [cut[at]]) if name == "rgb" else (image.reshape(2, HEIGHT, WIDTH), cut[at])
            for plane, place in zip(planes, places, strict=True):
                if short != HEIGHT:
                    how = cv2.INTER_AREA if short < HEIGHT else cv2.INTER_LINEAR
                    plane = cv2.resize(plane, size, interpolation=how)
                plane = plane[top : top + crop, left : left + crop]
                if window.mirrored:
                    cv2.flip(plane, 1, place)
                else:
                    place[:] = plane
        if name == "flow" and window.mirrored:
            cut[:, 0] = 255 - cut[:, 0]
        return cut

    def _sound(self, stored: pa.RecordBatch, window: Window) -> np.ndarray:
        given, spec = self.task.input, self.spec.logmel
        values = stored.column("values").flatten().to_numpy().reshape(-1, spec.mels).astype(np.float32)
        at = mel_positions(
            start_s=window.start_frame / FPS,
            window_s=given.frames * given.frame_step / FPS,
            hop_s=spec.hop_s,
            frames=given.mel_frames,
            alignment=given.mel_alignment,
        )
        lower = np.floor(at).astype(int)
        share = (at - lower).astype(np.float32)[:, None]
        padded = np.concatenate([values, np.full((1, spec.mels), spec.silence, np.float32)])
        below, above = np.minimum(lower, len(values)), np.minimum(lower + 1, len(values))
        logmel = padded[below] * (1.0 - share) + padded[above] * share
        for masks, width, axis in (
            (window.time_masks, given.time_masks[1], 0),
            (window.band_masks, given.band_masks[1], 1),
        ):
            for mask_width, place in masks:
                covered = mask_width * width
                start = int(place * (logmel.shape[axis] - covered))
                np.moveaxis(logmel, axis, 0)[start : start + int(covered)] = spec.mean
        return logmel


def require_same(loader: Sequence[Batch], loop: BareLoop) -> None:
    """Both sides read the same, or there is nothing to compare."""
    for batch, (arrays, labels) in zip(loader, loop, strict=True):
        assert torch.equal(batch.labels[""], labels)
        for name, values in arrays.items():
            assert torch.equal(batch.arrays[name], values), f"{name} differs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """One pass."""

    cpu_s: float
    """User and system time of this process."""
    wall_s: float
    """By the clock."""


def spend(batches: Callable[[], Iterator | BareLoop]) -> Cost:
    """One pass over all batches."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for _ in batches():
        pass
    return Cost(cpu_s=time.process_time() - cpu_s, wall_s=time.perf_counter() - wall_s)


def compare(data: str, task: Task, *, rounds: int, processes: Sequence[int]) -> list[list[object]]:
    """Rows of the table for one task: the loader here, and in loader processes."""
    run = load_run_data(data, task.config())
    batches = training_batches(len(run.train), batch_size=16, entropy=ENTROPY, rank=0, world=1)
    loop = BareLoop(run, task, data, batches)
    ways = {"in this process": run} | {
        f"{count} loader process{'es' if count > 1 else ''}": load_run_data(
            data, task.config(), Feeding(processes=count)
        )
        for count in processes
    }
    ways["Ray Data, one reader"] = load_run_data(data, task.config())
    feed_from_ray(ways["Ray Data, one reader"], readers=1)
    ratios: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    costs: dict[str, list[Cost]] = {way: [] for way in ("bare loop", *ways)}
    for fed in ways.values():
        require_same(list(training_loader(fed.train, batches, ENTROPY)), loop)
    before = spend(lambda: loop)
    for _ in range(rounds):
        for way, fed in ways.items():
            cost = spend(lambda fed=fed: training_loader(fed.train, batches, ENTROPY))
            after = spend(lambda: loop)
            ratios[way].append(
                ((before.cpu_s + after.cpu_s) / 2 / cost.cpu_s, (before.wall_s + after.wall_s) / 2 / cost.wall_s)
            )
            costs[way].append(cost)
            costs["bare loop"].append(after)
            before = after
    return [
        [
            task.name,
            way,
            len(run.train) / statistics.median(cost.wall_s for cost in found),
            statistics.median(cpu for cpu, _ in ratios[way]) if way == "in this process" else "-",
            statistics.median(wall for _, wall in ratios[way]) if way in ways else 1.0,
        ]
        for way, found in costs.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=240, help="training clips, V among them")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2], help="loader processes")
    parser.add_argument("--check", action="store_true", help="exit with 1 when the budget is not met")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = write_clips(Path(folder), given.clips)
        with connect(num_cpus=2):
            for task in TASKS:
                rows += compare(data, task, rounds=given.rounds, processes=given.processes)
    print(table(["windows", "read", "samples/s", "samples/CPU-s over bare loop", "samples/s over bare loop"], rows))
    ratio = min(float(str(row[3])) for row in rows if row[1] == "in this process")
    print(f"loader over bare loop: {ratio:.2f} of its samples per CPU-second (budget {BUDGET:.2f})")
    return int(given.check and ratio < BUDGET)


if __name__ == "__main__":
    sys.exit(main())
