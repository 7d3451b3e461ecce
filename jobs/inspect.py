r"""A data set directory in numbers, and some of its clips on one picture.

ray job submit --working-dir . -- \
    python -m jobs.inspect s3://b/data --contact-sheet s3://b/sheet.png
"""

import sys

from gblend.contact_sheet import write_contact_sheet
from gblend.findings import findings
from gblend.inventory import take_inventory
from gblend.inventory_text import to_text
from jobs.cli import Positional, SheetFlag, run
from jobs.places import absolute
from jobs.terminal import Result


def inspect(
    dataset: Positional[str] = "",
    /,
    *,
    data: str = "",
    contact_sheet: SheetFlag = "",
    clips: tuple[str, ...] = (),
) -> Result:
    """Say what a data set holds: splits, classes, what became of every clip, storage, how far splits lie apart.

    Every count is of all clips; brightness, motion and loudness are measured on up to 256 clips of each split.

    Args:
        dataset: Dataset directory, as `gblend preprocess` writes it: path or fsspec URL.
        data: The same by name, as other jobs take it.
        contact_sheet: PNG file to draw, one row a class: frames, flow as colour, log-mel.
        clips: Clips by id to draw instead, a row each.
    """
    place = dataset or data
    if not place or (dataset and data and dataset != data):
        raise ValueError("name one data set: gblend inspect DATA")
    if clips and not contact_sheet:
        raise ValueError("clips are for the picture; name its file with --contact-sheet FILE.png")
    place, sheet = absolute(place), absolute(contact_sheet) if contact_sheet else ""
    if sheet:
        write_contact_sheet(sheet, place, clips=clips)
    found = take_inventory(place)
    return Result(place=sheet, text=to_text(found), numbers={**found.to_json(), "findings": list(findings(found))})


if __name__ == "__main__":
    sys.exit(run(inspect, prog="python -m jobs.inspect"))
