"""What of a clip a network sees."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gblend.require import require, require_choices


@dataclass(frozen=True, kw_only=True, slots=True)
class InputConfig:
    """The aligned windows that a network sees."""

    frames: int = 8
    """Frames (and flow fields) in a window."""
    frame_step: int = 1
    """Distance between them, in stored frames."""
    scale_px: int | None = None
    """Frames are resized so that the short side has this length before cropping; none: as stored."""
    jitter_px: tuple[int, ...] = ()
    """Short sides to which training windows are resized instead, each to one of these at random; empty: to
    ``scale_px``."""
    crop_px: int = 40
    """Side of the square crop: at random in training, central when measuring."""
    mel_frames: int = 100
    """Log-mel frames in a window."""
    mel_alignment: Literal["stretch", "exact"] = "stretch"
    """``stretch``: the log-mel under the visual window, resized to ``mel_frames`` (the authors' code). ``exact``:
    ``mel_frames`` true frames from the window's start."""
    flip: Literal["none", "horizontal"] = "none"
    """Mirror half of the training windows; wrong where left and right are labels, so off by default."""
    time_masks: tuple[int, int] = (0, 0)
    """How many runs of log-mel frames are blotted out in a training window, and their greatest width in frames."""
    band_masks: tuple[int, int] = (0, 0)
    """The same over mel bands: how many, and their greatest width in bands."""

    def __post_init__(self) -> None:
        for name in ("frames", "frame_step", "crop_px", "mel_frames"):
            require(getattr(self, name) >= 1, f"input.{name}", "at least 1", getattr(self, name))
        if self.scale_px is not None and self.scale_px < self.crop_px:
            raise ValueError(f"input.scale_px ({self.scale_px}) must not be below input.crop_px ({self.crop_px})")
        for side in self.jitter_px:
            require(side >= self.crop_px, "input.jitter_px", f"at least input.crop_px ({self.crop_px})", side)
        for name in ("time_masks", "band_masks"):
            given = getattr(self, name)
            fits = given == (0, 0) or min(given) >= 1
            require(fits, f"input.{name}", "a number of masks and a greatest width, both at least 1, or 0 0", given)
        if self.time_masks[1] > self.mel_frames:
            raise ValueError(
                f"input.time_masks ({self.time_masks[1]}) must not be wider than input.mel_frames ({self.mel_frames})"
            )
        require_choices(self, "input.")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "InputConfig":
        """What ``config.json`` holds; a setting that an older run does not name has its default.

        >>> InputConfig.from_json({"crop_px": 30, "jitter_px": [32, 40]}).jitter_px
        (32, 40)
        """
        given: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
        return cls(**given)
