"""Clip ids of whole columns, equal byte for byte to `schemas.manifest.make_clip_id` row by row.

Almost every path is plain ASCII and almost every time a whole number of milliseconds: those are spelled by Arrow, and
only the others one by one.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from pipelines.annotations.table import flat
from schemas.manifest import make_clip_id

pc: Any = pyarrow.compute
"""Arrow makes these functions when it is imported, out of a type checker's sight."""

LONGEST_S = 1e12
"""Beyond this, milliseconds are spelled one by one, far from the limits of 64-bit integers."""


def make_clip_ids(uris: Any, start_s: Any, end_s: Any) -> Any:
    """Ids of clips given as three columns: text, seconds, seconds.

    >>> make_clip_ids(pa.array(["a/b c.mp4", "x.mp4"]), pa.array([None, 1.5]), pa.array([None, 3.0])).to_pylist()
    ['a/b%20c.mp4', 'x.mp4@1500-3000']
    """
    start_s, end_s = (flat(times).cast(pa.float64()) for times in (start_s, end_s))
    names = flat(uris)
    # Everything but printable ASCII may hold white space of some alphabet: the slow way knows it.
    special = pc.match_substring_regex(names, r"[^!-~]|[%@]")
    if pc.any(special).as_py():
        spelled = [make_clip_id(uri, None, None) for uri in names.filter(special).to_pylist()]
        names = pc.replace_with_mask(names, special, pa.array(spelled, pa.string()))
    if start_s.null_count + end_s.null_count == 2 * len(names):
        return names
    whole_file = pc.and_(pc.is_null(start_s), pc.is_null(end_s))
    spans = pc.binary_join_element_wise("@", _spelled(start_s), "-", _spelled(end_s), "")
    return pc.binary_join_element_wise(names, pc.if_else(whole_file, "", spans), "")


def _spelled(times_s: Any) -> Any:
    values = times_s.to_numpy(zero_copy_only=False)
    plain = np.abs(np.nan_to_num(values, nan=0.0)) < LONGEST_S
    milliseconds = np.rint(np.where(plain, np.nan_to_num(values, nan=0.0), 0.0) * 1000)
    text = pc.cast(pa.array(milliseconds.astype(np.int64)), pa.string())
    missing = pc.is_null(times_s)
    odd = pa.array(~(plain & (milliseconds / 1000 == values))) if len(values) else pa.array([], pa.bool_())
    odd = pc.and_(odd, pc.invert(missing))
    if pc.any(odd).as_py():
        # An id is the name, "@", the start, "-" and the end: of an empty name and an open end, the start is left.
        spelled = [make_clip_id("", time_s, None)[1:-1] for time_s in times_s.filter(odd).to_pylist()]
        text = pc.replace_with_mask(text, odd, pa.array(spelled, pa.string()))
    return pc.if_else(missing, "", text)
