"""What of a clip a network sees."""

from dataclasses import dataclass
from typing import Literal

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
    crop_px: int = 40
    """Side of the square crop: at random in training, central when measuring."""
    mel_frames: int = 100
    """Log-mel frames in a window."""
    mel_alignment: Literal["stretch", "exact"] = "stretch"
    """``stretch``: the log-mel under the visual window, resized to ``mel_frames`` (the authors' code). ``exact``:
    ``mel_frames`` true frames from the window's start."""
    flip: Literal["none", "horizontal"] = "none"
    """Mirror half of the training windows; wrong where left and right are labels, so off by default."""

    def __post_init__(self) -> None:
        for name in ("frames", "frame_step", "crop_px", "mel_frames"):
            require(getattr(self, name) >= 1, f"input.{name}", "at least 1", getattr(self, name))
        if self.scale_px is not None and self.scale_px < self.crop_px:
            raise ValueError(f"input.scale_px ({self.scale_px}) must not be below input.crop_px ({self.crop_px})")
        require_choices(self, "input.")
