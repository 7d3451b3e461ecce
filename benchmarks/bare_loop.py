"""The work of preprocessing without a framework: the fastest plain loop we know for the same features.

    python -m benchmarks.bare_loop VIDEOS OUT [PROCESSES]

It shares no code with the pipeline. One process a core takes every n-th file; frames are picked by time stamp before
they are scaled, one reformatter serves a file, and all encoded bytes are appended to one plain file a process. No
check of spans, sizes, limits or paths, no ledger, no resuming, no damaged file. It prints its CPU seconds by stage.
"""

import json
import math
import subprocess
import sys
import time
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
import torchaudio
from av.audio.resampler import AudioResampler
from av.video.reformatter import Interpolation, VideoReformatter

FPS, SHORT_SIDE_PX, JPEG_QUALITY, FLOW_QUALITY, BOUND_PX = 15.0, 128, 90, 95, 20.0
RATE_HZ, WINDOW, HOP, MELS, GAIN = 16_000, 256, 160, 40, 1.0807e9
STAGES = ("decode", "sound", "scale", "flow", "mel", "jpeg", "write")


class Loop:
    """What is kept from file to file, and the time by stage."""

    def __init__(self) -> None:
        self.spent_s: defaultdict[str, float] = defaultdict(float)
        self.stored: Counter[str] = Counter()
        self._dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._power = torchaudio.transforms.Spectrogram(
            n_fft=WINDOW, hop_length=HOP, power=2.0, center=True, pad_mode="constant"
        )
        filters = torchaudio.functional.melscale_fbanks(WINDOW // 2 + 1, 0.0, RATE_HZ / 2, MELS, RATE_HZ)
        self._filters = filters / filters.sum(0)

    def clip(self, path: Path, out: Any) -> None:
        """One file, from disk to encoded bytes."""
        frames, samples, seconds = self._decode(path)
        gray = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]
        at_s = time.thread_time()
        fields = [self._flow(first, second) for first, second in pairwise(gray)]
        at_s = self._spent("flow", at_s)
        mel = self._mel(samples, seconds)
        at_s = self._spent("mel", at_s)
        rgb = [_jpeg(frame, JPEG_QUALITY) for frame in frames]
        flow = [_jpeg(field, FLOW_QUALITY) for field in fields]
        at_s = self._spent("jpeg", at_s)
        for data in (*rgb, *flow, mel.tobytes()):
            out.write(data)
        self._spent("write", at_s)
        self.stored.update(clips=1, rgb=sum(map(len, rgb)), flow=sum(map(len, flow)), logmel=mel.nbytes)

    def _decode(self, path: Path) -> tuple[list[np.ndarray], np.ndarray, float]:
        reformatter, resampler = VideoReformatter(), AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
        frames: list[np.ndarray] = []
        pieces: list[np.ndarray] = []
        seconds = 0.0
        at_s = time.thread_time()
        file: Any = av.open(str(path))
        with file as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            video.thread_type = "NONE"
            for packet in container.demux(video, audio):
                if packet.stream is video:
                    for frame in packet.decode():
                        seconds = frame.time + 1 / float(video.average_rate)
                        if frame.time + 1e-3 >= len(frames) / FPS:
                            at_s = self._spent("decode", at_s)
                            scale = SHORT_SIDE_PX / min(frame.width, frame.height)
                            small = reformatter.reformat(
                                frame,
                                width=2 * round(frame.width * scale / 2),
                                height=2 * round(frame.height * scale / 2),
                                format="bgr24",
                                interpolation=Interpolation.AREA,
                                threads=1,
                            )
                            frames.append(small.to_ndarray())
                            at_s = self._spent("scale", at_s)
                    at_s = self._spent("decode", at_s)
                else:
                    for frame in packet.decode():
                        pieces += map(_samples, resampler.resample(frame))
                    at_s = self._spent("sound", at_s)
            pieces += map(_samples, resampler.resample(None))
        self._spent("sound", at_s)
        return frames, np.concatenate(pieces)[: round(seconds * RATE_HZ)], seconds

    def _flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        flow = self._dis.calc(first, second, None)
        levels = cv2.addWeighted(flow, 255 / (2 * BOUND_PX), flow, 0.0, 127.5, dtype=cv2.CV_8U)
        return np.concatenate(cv2.split(levels))

    def _mel(self, samples: np.ndarray, seconds: float) -> np.ndarray:
        count = math.ceil((seconds - 1e-3) * RATE_HZ / HOP)
        with torch.inference_mode():
            energy = (self._power(torch.from_numpy(samples))[:, :count].T @ self._filters) * GAIN
            return torch.where(energy > math.e, energy.clamp_min(math.e).log(), energy / math.e).numpy().astype("f2")

    def _spent(self, stage: str, since_s: float) -> float:
        now_s = time.thread_time()
        self.spent_s[stage] += now_s - since_s
        return now_s


def _samples(piece: Any) -> np.ndarray:
    return np.frombuffer(piece.planes[0], np.float32, piece.samples)


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def run_share(videos: Path, out: Path, *, share: int, shares: int) -> dict[str, Any]:
    """Every ``shares``-th file, in this process."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    loop = Loop()
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{share}.bin").open("wb") as file:
        for path in sorted(videos.iterdir())[share::shares]:
            loop.clip(path, file)
    return {"spent_s": dict(loop.spent_s), "stored": dict(loop.stored)}


def main(videos: str, out: str, processes: str = "1", share: str | None = None) -> None:
    if share is not None:
        print(json.dumps(run_share(Path(videos), Path(out), share=int(share), shares=int(processes))))
        return
    command = [sys.executable, "-m", "benchmarks.bare_loop", videos, out, processes]
    running = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(int(processes))]
    told = [json.loads(process.communicate()[0]) for process in running]
    print(json.dumps({key: dict(sum((Counter(part[key]) for part in told), Counter())) for key in told[0]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
