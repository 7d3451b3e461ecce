"""Official annotations of datasets as one table of clips: an adapter a dataset, each a pure function of text."""

from pipelines.annotations import audioset, epic_kitchens, kinetics, sports1m, vggsound
from pipelines.annotations.cells import BadRow, open_texts
from pipelines.annotations.files import list_files
from pipelines.annotations.folder import from_folder
from pipelines.annotations.generic import from_csv, parse_csv, parse_jsonl
from pipelines.annotations.table import Annotations, BadRows

__all__ = [
    "Annotations",
    "BadRow",
    "BadRows",
    "audioset",
    "epic_kitchens",
    "from_csv",
    "from_folder",
    "kinetics",
    "list_files",
    "open_texts",
    "parse_csv",
    "parse_jsonl",
    "sports1m",
    "vggsound",
]
