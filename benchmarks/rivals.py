"""What people preprocess video with today, on the same files, as far as it is installed.

    python -m benchmarks.rivals NAME VIDEOS OUT PROCESSES

None does the same work: each entry says what it does. They are set up as their documentation does, with the same
frame rate and size, one process a core and one thread a process. Nothing here is needed by the project: decord,
torchcodec, imageio-ffmpeg and video2dataset are used where they can be imported or found, and named where not.
"""

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

FPS, SHORT_SIDE_PX = 15, 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Rival:
    """A tool to compare with."""

    does: str
    """Which part of the work it does, and what else."""
    missing: Callable[[], str | None]
    """Why it cannot run here; None when it can."""
    run: Callable[[Path, Path, int], None]
    """Process all files of a folder into another, with so many processes."""


def ffmpeg() -> str | None:
    """An ffmpeg binary: on the PATH, or in the package imageio-ffmpeg."""
    found = shutil.which("ffmpeg")
    if found is None and importlib.util.find_spec("imageio_ffmpeg"):
        import imageio_ffmpeg  # pyright: ignore[reportMissingImports]

        return imageio_ffmpeg.get_ffmpeg_exe()
    return found


def _needs_ffmpeg() -> str | None:
    return None if ffmpeg() else "no ffmpeg on the PATH and no package imageio-ffmpeg"


def _needs_torchcodec() -> str | None:
    if importlib.util.find_spec("torchcodec") is None:
        return "the package torchcodec is not installed"
    # It imports without its libraries and fails at the first file.
    code = "from torchcodec.decoders import VideoDecoder; VideoDecoder(b'')"
    tried = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return "torchcodec finds no shared FFmpeg libraries" if "Could not load" in tried.stderr else None


def _needs_decord() -> str | None:
    return None if importlib.util.find_spec("decord") else "the package decord is not installed"


def _needs_video2dataset() -> str | None:
    if shutil.which("video2dataset") is None:
        return "no video2dataset on the PATH"
    return _needs_ffmpeg()


def _run_ffmpeg(videos: Path, out: Path, processes: int) -> None:
    """The usual two steps: ffmpeg writes JPEG frames and a WAV a clip, then Python computes flow and mel of them."""
    _in_shares("ffmpeg-share", videos, out, processes)


def _ffmpeg_share(videos: Path, out: Path, share: int, shares: int) -> None:
    import cv2
    import numpy as np

    from benchmarks.bare_loop import FLOW_QUALITY, Loop

    cv2.setNumThreads(1)
    binary, loop = str(ffmpeg()), Loop()
    for path in sorted(videos.iterdir())[share::shares]:
        folder = out / path.stem
        folder.mkdir(parents=True)
        scale = f"fps={FPS},scale=-2:{SHORT_SIDE_PX}:flags=area"
        command = [binary, "-nostdin", "-loglevel", "error", "-threads", "1", "-i", str(path)]
        picture = ["-map", "0:v:0", "-vf", scale, "-q:v", "3", "-threads", "1", str(folder / "%05d.jpg")]
        sound = ["-map", "0:a:0", "-ac", "1", "-ar", "16000", str(folder / "sound.wav")]
        subprocess.run([*command, *picture, *sound], check=True)
        gray: list[Any] = [cv2.imread(str(name), cv2.IMREAD_GRAYSCALE) for name in sorted(folder.glob("*.jpg"))]
        for i, (first, second) in enumerate(pairwise(gray)):
            field = loop._flow(first, second)
            cv2.imwrite(str(folder / f"flow{i:05d}.jpg"), field, [cv2.IMWRITE_JPEG_QUALITY, FLOW_QUALITY])
        samples = np.fromfile(folder / "sound.wav", np.int16, offset=44).astype(np.float32) / 32_768
        np.save(folder / "mel.npy", loop._mel(samples, len(samples) / 16_000))


def _run_torchcodec(videos: Path, out: Path, processes: int) -> None:
    _in_shares("torchcodec-share", videos, out, processes)


def _torchcodec_share(videos: Path, out: Path, share: int, shares: int) -> None:
    import cv2
    import numpy as np
    import torch
    from torchcodec.decoders import VideoDecoder  # pyright: ignore

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{share}.bin").open("wb") as file:
        for path in sorted(videos.iterdir())[share::shares]:
            decoder: Any = VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC")
            instants = [i / FPS for i in range(math.ceil(decoder.metadata.duration_seconds * FPS - 1e-3))]
            for frame in decoder.get_frames_played_at(instants).data.numpy():
                scale = SHORT_SIDE_PX / min(frame.shape[:2])
                size = (2 * round(frame.shape[1] * scale / 2), 2 * round(frame.shape[0] * scale / 2))
                small = cv2.resize(np.ascontiguousarray(frame), size, interpolation=cv2.INTER_AREA)
                file.write(cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1].tobytes())


def _run_read_videos(videos: Path, out: Path, processes: int) -> None:
    import ray
    import ray.data

    scratch = tempfile.mkdtemp(prefix="gbr-", dir="/tmp")
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    ray.init(
        address="local",
        num_cpus=processes,
        include_dashboard=False,
        _temp_dir=scratch,
        runtime_env={"env_vars": environment},
        log_to_driver=False,
    )
    try:
        frames = ray.data.read_videos(str(videos), include_timestamps=False, include_paths=True)
        frames.map_batches(_shrink, batch_size=64).write_parquet(str(out))
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)


def _shrink(batch: Any) -> Any:
    """Every second frame of a 30 fps file, scaled and encoded."""
    import cv2

    wanted = [i for i, number in enumerate(batch["frame_index"]) if number % 2 == 0]
    frames = [batch["frame"][i] for i in wanted]
    small = []
    for frame in frames:
        scale = SHORT_SIDE_PX / min(frame.shape[:2])
        size = (2 * round(frame.shape[1] * scale / 2), 2 * round(frame.shape[0] * scale / 2))
        resized = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        small.append(cv2.imencode(".jpg", cv2.cvtColor(resized, cv2.COLOR_RGB2BGR))[1].tobytes())
    return {
        "path": [batch["path"][i] for i in wanted],
        "frame_index": [int(batch["frame_index"][i]) for i in wanted],
        "frame": small,
    }


V2D_CONFIG = """
subsampling: {subsampling}
reading: {{yt_args: {{}}, timeout: 60, sampler: null}}
storage: {{number_sample_per_shard: 4, oom_shard_count: 5, captions_are_subtitles: false}}
distribution: {{processes_count: {processes}, thread_count: 1, subjob_size: 1000, distributor: multiprocessing}}
"""

V2D_SUBSAMPLING = (
    f"{{ResolutionSubsampler: {{args: {{height: {SHORT_SIDE_PX}, resize_mode: scale}}}}, "
    f"FrameSubsampler: {{args: {{frame_rate: {FPS}}}}}}}"
)


def _run_video2dataset(videos: Path, out: Path, processes: int) -> None:
    """Its two stages: files into tar shards, then those into shards of smaller files."""
    out.mkdir(parents=True)
    (out / "urls.csv").write_text("url\n" + "".join(f"{path}\n" for path in sorted(videos.iterdir())))
    (out / "tools").mkdir()  # It calls "ffmpeg" by name.
    (out / "tools" / "ffmpeg").symlink_to(str(ffmpeg()))
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    kept["PATH"] = f"{out / 'tools'}{os.pathsep}{kept['PATH']}"

    def stage(folder: str, subsampling: str, *options: str) -> None:
        config = out / f"{folder}.yaml"
        config.write_text(V2D_CONFIG.format(subsampling=subsampling, processes=processes))
        command = ["video2dataset", f"--output_folder={out / folder}", "--output_format=webdataset"]
        subprocess.run([*command, f"--config={config}", "--encode_formats={'video': 'mp4'}", *options], env=kept)

    stage("whole", "{}", f"--url_list={out}/urls.csv", "--input_format=csv", "--url_col=url")
    shards = sorted((out / "whole").glob("*.tar"))
    if shards:
        listed = f"{out}/whole/{{{shards[0].stem}..{shards[-1].stem}}}.tar"
        stage("small", V2D_SUBSAMPLING, f"--url_list={listed}", "--input_format=webdataset", "--stage=subset")
    # It exits with 0 when all of its shards have failed.
    told = [json.loads(path.read_text()) for path in (out / "small").glob("*_stats.json")]
    stored, wanted = sum(stats["successes"] for stats in told), sum(1 for _ in videos.iterdir())
    if stored < wanted:
        raise SystemExit(f"video2dataset stored {stored} of {wanted} files")


def _in_shares(name: str, videos: Path, out: Path, processes: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.rivals", name, str(videos), str(out), str(processes)]
    running = [subprocess.Popen([*command, str(i)]) for i in range(processes)]
    if any([process.wait() for process in running]):
        raise SystemExit(1)


RIVALS = {
    "ffmpeg": Rival(
        does="ffmpeg a clip -> JPEG frames and WAV, then Python -> flow and mel; a file a frame",
        missing=_needs_ffmpeg,
        run=_run_ffmpeg,
    ),
    "ray.data.read_videos": Rival(
        does="every frame at full size through the object store, then scale + JPEG -> Parquet; no flow, no sound",
        missing=_needs_decord,
        run=_run_read_videos,
    ),
    "torchcodec": Rival(
        does="decode at 15 frames/s, scale, JPEG; no flow, no sound",
        missing=_needs_torchcodec,
        run=_run_torchcodec,
    ),
    "video2dataset": Rival(
        does="copy into tar shards, re-encode to 128 px, then to 15 frames/s: mp4; no frames, no flow, no mel",
        missing=_needs_video2dataset,
        run=_run_video2dataset,
    ),
}
"""By name."""

_SHARES = {"ffmpeg-share": _ffmpeg_share, "torchcodec-share": _torchcodec_share}


def main(name: str, videos: str, out: str, processes: str, share: str | None = None) -> None:
    if share is not None:
        _SHARES[name](Path(videos), Path(out), int(share), int(processes))
    else:
        RIVALS[name].run(Path(videos), Path(out), int(processes))


if __name__ == "__main__":
    main(*sys.argv[1:])
