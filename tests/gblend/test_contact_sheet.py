import io
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import flow_to_image

from gblend.contact_sheet import CELL_PX, EMPTY, GAP_PX, PICTURES, ROWS, TEXT_PX, TOP_PX, fitted, write_contact_sheet
from schemas import FeatureSpec, FlowSpec, RgbSpec, Task
from tests.gblend.shards import gradient_clip
from tests.gblend.shards import write_dataset as write_shards
from tests.gblend.synthetic_data import write_dataset

LEFT = TEXT_PX + 2 * GAP_PX
PICTURES_PX = PICTURES * (CELL_PX[1] + GAP_PX)


def drawn(tmp_path: Path, **given) -> np.ndarray:
    write_contact_sheet(str(tmp_path / "sheet.png"), str(tmp_path / "data"), **given)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.format == "PNG"
        return np.asarray(image).astype(int)


def cell(sheet: np.ndarray, row: int, modality: int, at: int = 0) -> np.ndarray:
    """The pixels of a cell; modalities are 0 rgb, 1 flow, 2 logmel."""
    top, left = TOP_PX + row * (CELL_PX[0] + GAP_PX), LEFT + modality * PICTURES_PX + at * (CELL_PX[1] + GAP_PX)
    return sheet[top : top + CELL_PX[0], left : left + CELL_PX[1]]


def middle(pixels: np.ndarray) -> list[int]:
    return pixels[CELL_PX[0] // 2, CELL_PX[1] // 2].tolist()


def rows_of(sheet: np.ndarray) -> float:
    return (len(sheet) - TOP_PX) / (CELL_PX[0] + GAP_PX)


def test_a_row_shows_the_stored_frames_in_order_and_the_flow_in_middleburys_colours(tmp_path):
    write_dataset(tmp_path / "data")
    sheet = drawn(tmp_path)
    assert rows_of(sheet) == 3  # classes
    # Frame i has red 10 i; of six, those in the middle of each third.
    assert [middle(cell(sheet, 0, 0, at)) for at in range(3)] == [[10, 0, 200], [30, 0, 200], [50, 0, 200]]
    flow = torch.tensor([20.0, -20.0]).view(2, 1, 1).expand(2, 4, 4)
    expected = flow_to_image(flow)[:, 0, 0].int()
    assert np.abs(np.array(middle(cell(sheet, 0, 1))) - expected.numpy()).max() <= 1


def test_loud_frames_of_the_log_mel_are_brighter_and_low_bands_at_the_bottom(tmp_path):
    logmel = np.zeros((40, 40), np.float16)
    logmel[20:, :20] = 10.0  # the second half in time, the lower half of the bands
    write_shards(tmp_path / "data", {"train": [gradient_clip("a", logmel=logmel)]})
    pixels = drawn(tmp_path)[TOP_PX : TOP_PX + CELL_PX[0], LEFT + 2 * PICTURES_PX :].sum(axis=-1)
    height, width = CELL_PX[0], 240
    loud = pixels[height // 2 + 4 : height - 2, width // 2 + 8 : width - 2]
    assert loud.min() > 600
    assert pixels[: height // 2 - 4, : width - 2].max() < 60
    assert pixels[:, : width // 2 - 8].max() < 60


def test_what_a_clip_lacks_is_an_empty_cell(tmp_path):
    write_dataset(tmp_path / "data", per_split=1, silent_row=0)
    sheet = drawn(tmp_path)
    assert (cell(sheet, 0, 2) == EMPTY).all()
    assert middle(cell(sheet, 0, 0)) == [10, 0, 200]
    write_dataset(tmp_path / "blind" / "data", per_split=1, blind_row=0)
    sheet = drawn(tmp_path / "blind")
    assert (cell(sheet, 0, 0) == EMPTY).all()
    assert (cell(sheet, 0, 1) == EMPTY).all()
    assert not (cell(sheet, 0, 2) == EMPTY).all()


def test_a_clip_with_all_modalities_stands_for_its_class_when_there_is_one(tmp_path):
    lacking = [gradient_clip(f"l{i}", logmel=None) for i in range(3)]
    write_shards(tmp_path / "data", {"train": [*lacking, gradient_clip("whole"), gradient_clip("b", flow=None)]})
    for seed in range(3):
        assert not (cell(drawn(tmp_path, seed=seed), 0, 2) == EMPTY).all()


def test_named_clips_are_drawn_in_the_order_of_their_names(tmp_path):
    spec = FeatureSpec(rgb=RgbSpec(codec="raw"), flow=FlowSpec(codec="raw"))
    clips = [gradient_clip(name, frames=np.full((3, 20, 24, 3), 60 * i, np.uint8)) for i, name in enumerate("abc")]
    write_shards(tmp_path / "data", {"train": clips[:2], "test": clips[2:]}, spec=spec)
    sheet = drawn(tmp_path, clips=("c", "b"))
    assert rows_of(sheet) == 2
    assert [middle(cell(sheet, row, 0))[0] for row in range(2)] == [120, 60]


def test_of_many_classes_some_in_equal_distances_are_drawn(tmp_path):
    task = Task(name="action", kind="single", classes=tuple(f"class{i}" for i in range(2 * ROWS)))
    spec = FeatureSpec(modalities=("rgb",), rgb=RgbSpec(codec="raw"))
    clips = [gradient_clip(f"c{i}", label=i, frames=np.full((1, 20, 24, 3), 5 * i, np.uint8)) for i in range(2 * ROWS)]
    write_shards(tmp_path / "data", {"train": clips}, spec=spec, tasks=(task,))
    sheet = drawn(tmp_path)
    assert rows_of(sheet) == ROWS
    levels = [middle(sheet[TOP_PX + r * (CELL_PX[0] + GAP_PX) :, LEFT : LEFT + CELL_PX[1]])[0] for r in range(ROWS)]
    assert (levels[0], levels[-1]) == (0, 5 * (2 * ROWS - 1))
    assert set(np.diff(levels).tolist()) <= {10, 15}


def test_a_picture_keeps_its_aspect_ratio_in_its_cell():
    tall = fitted(np.zeros((200, 100, 3), np.uint8))
    wide = fitted(np.zeros((100, 400, 3), np.uint8))
    assert (tall == 0).all(axis=-1).sum() == 96 * 48
    assert (wide == 0).all(axis=-1).sum() == 32 * 128


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clips": ("train-x",)}, "stores no clip 'train-x'; did you mean 'train-"),
        ({"clips": ("zzzzzz",)}, "stores no clip 'zzzzzz'; ledger.parquet says what became of every clip"),
    ],
)
def test_a_clip_that_is_not_there_is_one_clear_line(tmp_path, given, message):
    write_dataset(tmp_path / "data")
    with pytest.raises(ValueError, match=message) as caught:
        drawn(tmp_path, **given)
    assert "\n" not in str(caught.value)


def test_another_suffix_than_png_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"is a PNG file, and .*jpg has another suffix"):
        write_contact_sheet(str(tmp_path / "sheet.jpg"), str(tmp_path / "nowhere"))


def test_a_sheet_can_be_written_to_a_url(tmp_path):
    write_dataset(tmp_path / "data")
    write_contact_sheet("memory://sheets/a.png", str(tmp_path / "data"))
    with Image.open(io.BytesIO(fsspec.filesystem("memory").cat_file("/sheets/a.png"))) as image:
        assert image.format == "PNG"
