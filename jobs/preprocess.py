r"""Clip manifest to training shards.

ray job submit --working-dir . -- \
    python -m jobs.preprocess --manifest s3://b/clips.parquet --videos s3://b/v --out s3://b/data
"""

import sys
from dataclasses import asdict
from typing import Literal

from jobs.cli import JobError, run
from jobs.places import absolute
from jobs.progress import progress
from jobs.session import connect
from jobs.terminal import Result, say, say_aside
from pipelines.dataset import PreprocessConfig, ShardError, TooManyFailuresError
from pipelines.dataset import preprocess as make_dataset
from pipelines.flow import prepared
from pipelines.source import DecodeLimits
from schemas.features import MODALITIES, FeatureSpec, FlowSpec, LogmelSpec, Modality, RgbSpec

RGB, FLOW, LOGMEL, LIMITS = RgbSpec(), FlowSpec(), LogmelSpec(), DecodeLimits()


def preprocess(
    *,
    manifest: str,
    videos: str,
    out: str,
    modalities: tuple[Modality, ...] = MODALITIES,
    max_error_rate: float = 0.05,
    clips_per_shard: int = 256,
    on_change: Literal["refuse", "redo"] = "refuse",
    rgb: RgbSpec = RGB,
    flow: FlowSpec = FLOW,
    logmel: LogmelSpec = LOGMEL,
    limits: DecodeLimits = LIMITS,
) -> Result:
    """Decode every clip of a manifest and write frames, optical flow and log-mel as Arrow shards.

    Run again, it keeps finished shards, adds modalities that they lack (`--modalities flow` on a dataset of frames
    touches nothing else), and makes the rest. A finished shard is made again when one of its failed clips may do better
    now: its file was missing and is there, could not be read and has changed, a limit that stopped it is another, or
    the reason was of the moment (unavailable, internal-error).

    Args:
        manifest: Clip manifest (Parquet), as `gblend manifest` writes it.
        videos: Root of the media files, path or fsspec URL.
        out: Dataset directory to write, path or fsspec URL.
        modalities: What to compute; what a dataset holds already stays in it.
        max_error_rate: Fail once more than this share of the clips has failed.
        clips_per_shard: Clips per shard, the unit of work and of resuming.
        on_change: What to do with shards made from other rows or with other settings.
        rgb: Frame sampling; flow is computed on the same frames.
        flow: Optical flow.
        logmel: Log-mel spectrogram.
        limits: What one clip may cost; one that would cost more is a failed row.
    """
    manifest, videos, out = absolute(manifest), absolute(videos), absolute(out)
    ordered: tuple[Modality, ...] = tuple(name for name in MODALITIES if name in modalities)
    flow = prepared(flow) if "flow" in ordered else flow
    features = FeatureSpec(modalities=ordered, rgb=rgb, flow=flow, logmel=logmel)
    config = PreprocessConfig(
        manifest=manifest,
        videos=videos,
        out=out,
        features=features,
        max_error_rate=max_error_rate,
        clips_per_shard=clips_per_shard,
        on_change=on_change,
        limits=limits,
    )
    with progress("preprocess", "clips") as shown, connect():
        try:
            made = make_dataset(config, say=say_aside, step=shown.step if shown.live else None)
        except (ShardError, TooManyFailuresError) as error:
            raise JobError(str(error)) from error
    reasons = "".join(f", {count} {reason}" for reason, count in sorted(made.reasons.items()))
    say(f"{made.ok} clips in {made.shards} shards ({made.kept_shards} kept), {made.failed} failed{reasons}")
    say("of these, " + ", ".join(f"{count} have {modality}" for modality, count in made.present.items()))
    for name in made.lost_columns:
        say(f"column {name} is not in shards made now: add it again with `gblend column --name {name}`")
    numbers = {name: value for name, value in asdict(made).items() if name != "out"}
    return Result(place=made.out, numbers=numbers)


if __name__ == "__main__":
    sys.exit(run(preprocess, prog="python -m jobs.preprocess"))
