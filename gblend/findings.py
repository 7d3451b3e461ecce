"""What is wrong with a data set, in sentences: what its tables show, for a reader who wants the answer alone.

A finding is something that makes scores mean less than they seem to: clips that are lost, classes that a split lacks,
splits that differ by more than chance, a video that is both trained on and judged by, documents that disagree.
"""

from collections import Counter

from gblend.drift import CHANCE
from gblend.inventory import Inventory

NOTHING = "nothing looks wrong: no clip lost or without a label, every class in every split"
"""Said in place of findings; with several splits there is more that was looked at."""

BETWEEN = ", no drift beyond chance, no group in two splits"
"""That."""

USED = {"val": "methods cannot be chosen", "test": "nothing can be told that did not choose"}
"""What a data set cannot do without a split."""


def findings(found: Inventory) -> tuple[str, ...]:
    """A sentence each; empty: nothing looks wrong."""
    return (
        *_lost(found),
        *_splits(found),
        *_classes(found),
        *_labels(found),
        *_drift(found),
        *_groups(found),
        *found.notes,
    )


def verdict_line(found: Inventory) -> str:
    """All of them in one line."""
    nothing = NOTHING + (BETWEEN if len(found.contents) > 1 else "")
    return f"in short: {'; '.join(findings(found)) or nothing}"


def _lost(found: Inventory) -> list[str]:
    ok, failed, skipped = (
        sum(getattr(split, status) for split in found.splits) for status in ("ok", "failed", "skipped")
    )
    if ok == 0:
        return ["no split has a clip"]
    if failed + skipped == 0:
        return []
    return [f"{failed + skipped} of {ok + failed + skipped} clips are lost: {failed} failed, {skipped} skipped"]


def _splits(found: Inventory) -> list[str]:
    there = {split.split for split in found.splits if split.ok}
    return [f"no clip in {split}: {why}" for split, why in USED.items() if there and split not in there]


def _labels(found: Inventory) -> list[str]:
    return [
        f"{count} {'clip' if count == 1 else 'clips'} of {split} without a label of {task.task}"
        for task in found.classes
        for split, count in task.unlabelled.items()
        if count
    ]


def _classes(found: Inventory) -> list[str]:
    lines = []
    for task in found.classes:
        for split, counts in task.counts.items():
            absent = [name for name, count in zip(task.classes, counts, strict=True) if count == 0]
            if absent:
                such = absent[0] if len(absent) == 1 else f"such as {absent[0]}"
                of = f"{len(absent)} of {len(counts)} classes of {task.task}"
                lines.append(f"{of} {'has' if len(absent) == 1 else 'have'} no clip in {split} ({such})")
    return lines


def _drift(found: Inventory) -> list[str]:
    by_pair: dict[tuple[str, str], list[str]] = {}
    for drift in found.drifts:
        if drift.beyond_chance:
            by_pair.setdefault(drift.splits, []).append(drift.quantity)
    # So many are compared that one may well differ by chance alone.
    looked_at = Counter(drift.splits for drift in found.drifts)
    return [
        f"{a} and {b} differ by more than chance in {', '.join(names)} (of {looked_at[a, b]} comparisons, "
        f"{CHANCE * looked_at[a, b]:.1f} are expected to by chance)"
        for (a, b), names in by_pair.items()
    ]


def _groups(found: Inventory) -> list[str]:
    return [
        f"{groups} {'group has' if groups == 1 else 'groups have'} clips both in {a} and in {b}"
        for (a, b), groups in found.shared_groups.items()
        if groups
    ]
