"""Which clips of a data set a run may use, and which of them it measures training loss on."""

import numpy as np
from jaxtyping import Bool

from gblend.clips import ClipIndex
from gblend.config import TrainConfig
from gblend.holdout import hold_out
from gblend.labels import strata
from schemas import FeatureSpec


def require_disjoint(train: ClipIndex, other: ClipIndex, split: str) -> None:
    """Raise ``ValueError`` when clips of one source video are in train and in ``split``."""
    shared = set(train.uris) & set(other.uris)
    if shared:
        raise ValueError(
            f"{len(shared)} source videos are both in train and in {split}, for example {min(shared)!r}: scores there "
            "would not be of unseen data; give every video one split in the manifest"
        )


def require_resolution(features: FeatureSpec, config: TrainConfig) -> None:
    """Raise ``ValueError`` when frames would have to be enlarged to fit the network."""
    stored_px = min(features.rgb.fixed_size_px or (features.rgb.short_side_px,))
    wanted_px = config.input.scale_px or config.input.crop_px
    if stored_px < wanted_px:
        raise ValueError(
            f"stored frames have a short side of {stored_px} px, the recipe wants {wanted_px}; preprocess with "
            f"--rgb.short-side-px {wanted_px}, or lower --input.scale-px and --input.crop-px"
        )


def require_bands(features: FeatureSpec, config: TrainConfig) -> None:
    """Raise ``ValueError`` when a mask over mel bands may be wider than all of them."""
    if config.input.band_masks[1] > features.logmel.mels:
        raise ValueError(
            f"input.band_masks ({config.input.band_masks[1]}) must not be wider than the {features.logmel.mels} mel "
            "bands that are stored"
        )


def apply_missing_policy(index: ClipIndex, config: TrainConfig, split: str) -> tuple[ClipIndex, int]:
    """Clips a run may use, and how many were left out. A clip that has none of the modalities is no use to any head."""
    names, masks = ", ".join(index.present), list(index.present.values())
    usable = np.any(masks, axis=0) if config.missing == "zero" else np.all(masks, axis=0)
    if not usable.any():
        if config.missing == "zero":
            raise ValueError(f"no clip of split {split!r} has any of {names}; choose other modalities")
        raise ValueError(f"no clip of split {split!r} has all of {names}; use --missing zero or fewer modalities")
    return index.take(usable), int((~usable).sum())


def choose_part(train: ClipIndex, fraction: float, *, seed: int) -> Bool[np.ndarray, " clips"]:
    """Clips that short probes train on: about ``fraction`` of every class, groups whole, as V is chosen."""
    if fraction == 1.0:
        return np.ones(len(train), dtype=bool)
    try:
        return hold_out(strata(train), train.groups, fraction, seed=seed)
    except ValueError:
        raise ValueError(
            f"blend.probe_fraction ({fraction:g}) of {len(train)} training clips in {len(set(train.groups))} groups is "
            "none or all of them; use more clips, or 1"
        ) from None


def choose_slice(train: ClipIndex, size: int, *, seed: int) -> list[int]:
    """T': ``size`` clips of T, the classes in proportion, the same for every run."""
    if size >= len(train):
        return list(range(len(train)))
    # Every clip is a group of its own: T' is not held out from anything.
    chosen = hold_out(strata(train), range(len(train)), size / len(train), seed=seed)
    return np.flatnonzero(chosen).tolist()
