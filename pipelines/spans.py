"""Which source frame fills which stored frame: sampling by presentation time, never by frame index.

Time is measured from the start of the clip's span. Stored sample i belongs to the instant ``i / rate`` and shows what
was on screen then: the last source frame that was presented at or before it. Variable frame rate, dropped frames and a
late first frame need no special case, and a constant rate cannot drift.

    source pts     0        .1   .13            .4
    on screen      |---A----|-B--|------C-------|--D--
    stored at 5/s  0             .2             .4
    shows          A             C              D
"""

import math

TOLERANCE_S = 1e-3
"""Matroska and FLV round time stamps to whole milliseconds: a frame this late still counts as on time."""


def stored_before(time_s: float, rate_hz: float) -> int:
    """How many stored instants ``i / rate_hz`` lie before a time: the number due when a frame of that time appears.

    >>> stored_before(0.0, 15.0), stored_before(0.1, 15.0), stored_before(2.0, 15.0)
    (0, 2, 30)
    >>> stored_before(0.067, 15.0)  # 2/30 s written in whole milliseconds: it is the frame of instant 1
    1
    """
    return max(0, math.ceil((time_s - TOLERANCE_S) * rate_hz))


def stored_count(duration_s: float, rate_hz: float) -> int:
    """Stored samples of a clip: one for each instant in [0, duration_s), and at least one.

    >>> stored_count(2.0, 15.0), stored_count(2.04, 15.0), stored_count(0.01, 15.0)
    (30, 31, 1)
    """
    return max(1, stored_before(duration_s, rate_hz))


def scaled_size(
    *, height: int, width: int, pixel_aspect: float, short_side_px: int, fixed_size_px: tuple[int, int] | None
) -> tuple[int, int]:
    """(height, width) to store a picture at: shown with square pixels, both sides even.

    >>> scaled_size(height=240, width=320, pixel_aspect=1.0, short_side_px=128, fixed_size_px=None)
    (128, 170)
    >>> scaled_size(height=144, width=176, pixel_aspect=12 / 11, short_side_px=72, fixed_size_px=None)
    (72, 96)
    >>> scaled_size(height=240, width=320, pixel_aspect=1.0, short_side_px=128, fixed_size_px=(48, 48))
    (48, 48)
    """
    if fixed_size_px is not None:
        return fixed_size_px
    shown_width = width * pixel_aspect
    scale = short_side_px / min(height, shown_width)
    # The short side is exactly what was asked for; only the other one is rounded to an even length.
    if height <= shown_width:
        return short_side_px, max(2, 2 * round(shown_width * scale / 2))
    return max(2, 2 * round(height * scale / 2)), short_side_px
