"""Clips of a data set on one picture: a row a clip, with its frames, its flow as colour and its log-mel.

Rows are one clip of each class, or clips that are named. Whole pictures are shown, not crops: it is about what is
stored, not about what a network sees of it. A modality that a clip lacks is an empty cell.
"""

import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from gblend.clips import ClipIndex, ClipReader, StoredClip, read_dataset_info, read_index
from gblend.flow_colour import flow_picture, wheel_picture
from gblend.heads import by_key
from gblend.inventory import count_labels
from gblend.samples import flow_scale_px, label_texts
from gblend.stills import field, frame, moments
from gblend.storage import write_bytes
from schemas import SPLITS, DatasetInfo, FeatureSpec

ROWS = 24
"""Classes on one sheet, at most; of more, some in equal distances are shown."""

PICTURES = 3
"""Frames, and flow fields, of a clip: from the middle of equal parts of it."""

CELL_PX = (96, 128)
"""Height and width of a cell for one picture, which keeps its aspect ratio in there."""

SOUND_PX = 240
"""Width of the cell for the log-mel, which fills it whatever the clip's length."""

TEXT_PX, TEXT_ROWS, FONT_PX, GAP_PX, TOP_PX = 230, 5, 13, 6, 64

PAPER, EMPTY, INK, FAINT = (255, 255, 255), (236, 236, 236), (20, 20, 20), (110, 110, 110)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A clip to draw."""

    split: str
    """Where it is."""
    clip_id: str
    """Its name."""
    label: str
    """Its classes."""
    shard: str
    """Where it is stored."""
    row: int
    """Its place there."""


def write_contact_sheet(path: str, data: str, *, clips: Sequence[str] = (), seed: int = 0) -> None:
    """Draw a clip of each class of the first task, or these clips, into a PNG file at a path or URL.

    Raises:
        ValueError: The file is to be no PNG, a clip is not there, or the data set has nothing to show.
    """
    if not path.lower().endswith(".png"):
        raise ValueError(f"the contact sheet is a PNG file, and {path} has another suffix; end it in .png")
    info = read_dataset_info(data)
    modalities = info.features.modalities
    filled = [split for split in SPLITS if any(shard.split == split and shard.clips for shard in info.shards)]
    indexes = {split: read_index(data, info, split, modalities) for split in filled}
    rows = named_rows(clips, indexes, info) if clips else class_rows(indexes, info, seed=seed)
    if not rows:
        raise ValueError(f"{data} has no labelled clip to draw; name clips with --clips")
    reader = ClipReader(data, info, modalities)
    stored = [(row, reader.read(row.shard, row.row)) for row in rows]
    buffer = io.BytesIO()
    Image.fromarray(draw_sheet(stored, info.features)).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def class_rows(indexes: Mapping[str, ClipIndex], info: DatasetInfo, *, seed: int) -> list[Row]:
    """A clip of each class of the first task, drawn from the first split that has any; one with all modalities if there
    is one.
    """
    key, task = next(iter(by_key(info.tasks).items()))
    counts = sum(count_labels(index.labels[key], len(task.classes)) for index in indexes.values())
    there = np.flatnonzero(counts)
    if len(there) > ROWS:
        there = there[np.linspace(0, len(there) - 1, ROWS).round().astype(int)]
    rng, rows = np.random.default_rng(seed), []
    labels = {split: index.labels[key].to_pylist() for split, index in indexes.items()}
    texts = {split: label_texts(index, by_key(info.tasks)) for split, index in indexes.items()}
    for wanted in there.tolist():
        for split, index in indexes.items():
            clips = [
                at
                for at, found in enumerate(labels[split])
                if found is not None and (wanted in found if isinstance(found, list) else wanted == found)
            ]
            whole = [at for at in clips if all(mask[at] for mask in index.present.values())]
            if clips:
                rows.append(_row(split, index, texts[split], int(rng.choice(whole or clips))))
                break
    return rows


def named_rows(clips: Sequence[str], indexes: Mapping[str, ClipIndex], info: DatasetInfo) -> list[Row]:
    """The clips of these ids, in this order."""
    found = {}
    for split, index in indexes.items():
        texts = label_texts(index, by_key(info.tasks))
        at = {name: position for position, name in enumerate(index.clip_ids)}
        found |= {name: _row(split, index, texts, at[name]) for name in clips if name in at}
    for name in clips:
        if name not in found:
            every = [known for index in indexes.values() for known in index.clip_ids]
            close = difflib.get_close_matches(name, every[:10_000], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "; ledger.parquet says what became of every clip"
            raise ValueError(f"the data set stores no clip {name!r}{hint}")
    return [found[name] for name in clips]


def _row(split: str, index: ClipIndex, texts: Sequence[str], at: int) -> Row:
    return Row(
        split=split, clip_id=index.clip_ids[at], label=texts[at], shard=index.shards[at], row=int(index.rows[at])
    )


def draw_sheet(clips: Sequence[tuple[Row, StoredClip]], spec: FeatureSpec) -> UInt8[np.ndarray, "height width 3"]:
    """The sheet. Flow is scaled clip by clip, as its row says; log-mel, low bands at the bottom, alike in all rows."""
    left = TEXT_PX + 2 * GAP_PX
    columns: dict[str, int] = {}
    for name in spec.modalities:
        columns[name] = left
        left += SOUND_PX + GAP_PX if name == "logmel" else PICTURES * (CELL_PX[1] + GAP_PX)
    sheet = Image.new("RGB", (left, TOP_PX + len(clips) * (CELL_PX[0] + GAP_PX)), PAPER)
    pen, font = ImageDraw.Draw(sheet), _font()
    loudest = max((float(clip.logmel.max()) for _, clip in clips if clip.logmel is not None), default=0.0)
    range_ln = (min(spec.logmel.silence, loudest), loudest)
    for name, x in columns.items():
        pen.text((x, TOP_PX - FONT_PX - 8), _heading(name, spec, range_ln), fill=INK, font=font)
    if "flow" in columns:
        key = Image.fromarray(wheel_picture(TOP_PX - FONT_PX - 12))
        sheet.paste(key, (columns["flow"] + PICTURES * (CELL_PX[1] + GAP_PX) - key.width - GAP_PX, 2))
    for number, (row, clip) in enumerate(clips):
        y = TOP_PX + number * (CELL_PX[0] + GAP_PX)
        said = [row.label, row.clip_id, row.split]
        for name, x in columns.items():
            if name == "logmel":
                cells, width = _sound_cells(clip, range_ln), SOUND_PX
                if clip.logmel is not None:
                    said.append(f"sound of {len(clip.logmel) * spec.logmel.hop_s:.2f} s")
            else:
                cells, words = _frame_cells(clip, spec) if name == "rgb" else _flow_cells(clip, spec)
                width = CELL_PX[1]
                said += [words] if words else []
            for at in range(1 if name == "logmel" else PICTURES):
                place = (x + at * (width + GAP_PX), y)
                if at < len(cells):
                    sheet.paste(Image.fromarray(cells[at]), place)
                else:
                    pen.rectangle((*place, place[0] + width - 1, y + CELL_PX[0] - 1), fill=EMPTY)
        for line, text in enumerate(said[: TEXT_ROWS + 1]):
            short = _shortened(text, font)
            pen.text((GAP_PX, y + line * (FONT_PX + 3)), short, fill=FAINT if line else INK, font=font)
    return np.asarray(sheet)


def _heading(modality: str, spec: FeatureSpec, range_ln: tuple[float, float]) -> str:
    if modality == "logmel":
        return f"log-mel, {range_ln[0]:.1f} to {range_ln[1]:.1f}"
    return f"rgb at {spec.rgb.fps:g} fps" if modality == "rgb" else "flow: the direction on the wheel"


def _frame_cells(clip: StoredClip, spec: FeatureSpec) -> tuple[list[np.ndarray], str]:
    if clip.rgb is None:
        return [], ""
    cells = [fitted(frame(clip, at, spec)) for at in moments(len(clip.rgb), PICTURES)]
    return cells, f"{len(clip.rgb)} frames, {clip.height} x {clip.width} px"


def _flow_cells(clip: StoredClip, spec: FeatureSpec) -> tuple[list[np.ndarray], str]:
    if clip.flow is None:
        return [], ""
    fields = np.stack([field(clip, at, spec) for at in moments(len(clip.flow), PICTURES)])
    scale_px = flow_scale_px(fields)
    return [fitted(flow_picture(each, scale_px=scale_px)) for each in fields], f"flow up to {scale_px:.1f} px"


def _sound_cells(clip: StoredClip, range_ln: tuple[float, float]) -> list[np.ndarray]:
    if clip.logmel is None:
        return []
    low, high = range_ln
    share = (clip.logmel.astype(np.float32).T[::-1] - low) / max(high - low, 1e-6)
    size = (SOUND_PX, CELL_PX[0])
    resized = cv2.resize(share, size, interpolation=cv2.INTER_AREA)
    colours = matplotlib.colormaps["magma"](np.clip(resized, 0, 1))[..., :3]
    return [np.round(255 * colours).astype(np.uint8)]


def fitted(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "cell_height cell_width 3"]:
    """A picture in a cell, its aspect ratio kept."""
    height, width = image.shape[:2]
    ratio = min(CELL_PX[0] / height, CELL_PX[1] / width)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
    cell = np.full((*CELL_PX, 3), EMPTY, dtype=np.uint8)
    top, left = (CELL_PX[0] - size[1]) // 2, (CELL_PX[1] - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = resized
    return cell


def _font() -> ImageFont.FreeTypeFont:
    """Matplotlib's own, which is installed with it and writes more than Latin."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), FONT_PX)


def _shortened(text: str, font: ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= TEXT_PX:
        return text
    while text and font.getlength(f"{text}…") > TEXT_PX:
        text = text[:-1]
    return f"{text}…"
