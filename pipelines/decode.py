"""A media file in, arrays of its spans out: one pass over the file, however many spans are asked for.

Spans near each other are read in one go and each frame is decoded once for all of them; across a longer gap the file
is sought by keyframe. What is asked for together changes no frame of a span, and of its sound at most the noise that
AAC and AC-3 decoders make up, which depends on where they began. Sizes, lengths and time are limited before memory is
spent. A damaged packet costs itself, not the clip; what was skipped is said in ``DecodedClip.notes``.

    asked for       |--- a ---|   |-- b --|                                  |-- c --|
                        |----- d -----|
    read        |===|=========|===|=======|                             |====|=======|
              seek (margin)                                           seek (margin)

The picture rules the timeline: with video, a clip ends where the last frame does, and sound is cut or padded to that;
without, where the sound does.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.container import MediaFile
from pipelines.messages import Part
from pipelines.picture import check_size
from pipelines.reading import SEEK_MARGIN_S, Pass
from pipelines.source import DecodeError, DecodeLimits
from pipelines.take import Span, SpanResult, Take
from schemas.features import RgbSpec

GAP_S = 3.0
"""A gap between spans up to this is decoded through: seeking goes back a margin and half a group of pictures anyway."""


def decode_spans(
    path: str,
    spans: Sequence[Span],
    *,
    rgb: RgbSpec,
    sample_rate_hz: int,
    limits: DecodeLimits | None = None,
    parts: tuple[Part, ...] = ("picture", "sound"),
) -> Iterator[SpanResult]:
    """Every span of a file that `pipelines.source.resolve` has approved, each as soon as it is complete.

    Raises:
        DecodeError: The file cannot be opened or its frames are too large, which concerns every span not yielded yet.
    """
    limits = limits or DecodeLimits()
    takes = []
    for index, span in enumerate(spans):
        try:
            takes.append(Take(index, span, limits))
        except DecodeError as error:
            yield SpanResult(index=index, clip=error)
    if not takes:
        return
    with MediaFile(path, picture="picture" in parts, sound="sound" in parts) as file:
        if file.video is not None:
            check_size(file.video.codec_context.width, file.video.codec_context.height, limits)
        for group in _groups(takes, gap_s=GAP_S if file.seekable else np.inf):
            yield from _read(file, group, rgb=rgb, rate_hz=sample_rate_hz, limits=limits)


def _groups(takes: list[Take], *, gap_s: float) -> Iterator[list[Take]]:
    """Takes that are read in one go, in order of their starts."""
    group: list[Take] = []
    reach_s = -np.inf
    for take in sorted(takes, key=lambda take: (take.start_s, take.end_s)):
        if group and take.start_s > reach_s + gap_s:
            yield group
            group = []
        group.append(take)
        reach_s = max(reach_s, take.end_s)
    yield group


def _read(
    file: MediaFile, group: list[Take], *, rgb: RgbSpec, rate_hz: int, limits: DecodeLimits
) -> Iterator[SpanResult]:
    """Every take of a group, in as many passes as it needs; nearly always one."""
    overshot = False
    while group:
        from_start = overshot or not file.seekable or group[0].start_s <= SEEK_MARGIN_S
        if from_start:
            file.rewind()
        else:
            file.seek(group[0].start_s - SEEK_MARGIN_S)
        one = Pass(file, group, rgb=rgb, rate_hz=rate_hz, limits=limits)
        yield from one.run(sought=not from_start)
        group, overshot = one.left, one.overshot
