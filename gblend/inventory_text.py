"""An inventory in plain lines: a table a question, long ones cut to their largest rows (the JSON document has all)."""

from collections.abc import Mapping
from itertools import chain

import numpy as np

from gblend.content import QUANTITIES, spread
from gblend.drift import Drift
from gblend.findings import verdict_line
from gblend.inventory import ClassCounts, Inventory
from gblend.table_text import aligned, decimal

SHOWN = 20
"""Classes in a table, at most."""

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def bytes_text(count: int | float) -> str:
    """A number of bytes in its largest unit.

    >>> bytes_text(512), bytes_text(1536), bytes_text(3 * 2**30)
    ('512 B', '1.5 KiB', '3.0 GiB')
    """
    power = 0
    while count >= 1024 and power < len(UNITS) - 1:
        count, power = count / 1024, power + 1
    return f"{count:.0f} B" if power == 0 else f"{count:.1f} {UNITS[power]}"


def duration_text(seconds: int | float) -> str:
    """A length of time in its largest unit.

    >>> duration_text(12.25), duration_text(90), duration_text(7200)
    ('12.2 s', '1.5 min', '2.0 h')
    """
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def to_text(found: Inventory) -> str:
    """All of it, a part a paragraph; the last one is what is wrong, in one line."""
    features = found.summary.features.items()
    parts = [
        [f"{found.summary.path}: {_in_all(found)}", *(f"  {name}: {_pairs(spec)}" for name, spec in features)],
        ["splits", *_splits(found)],
        *([_title(classes), *_classes(classes)] for classes in found.classes),
        ["clips that are missing", *_losses(found)],
        ["storage", *_storage(found)],
        [_looked_at(found), *_contents(found)],
        ["drift between splits", *_drifts(found)],
        [f"note: {note}" for note in found.notes],
        [verdict_line(found)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _in_all(found: Inventory) -> str:
    clips, failed = sum(split.ok for split in found.splits), sum(split.failed for split in found.splits)
    skipped, seconds = sum(split.skipped for split in found.splits), sum(split.seconds for split in found.splits)
    stored = bytes_text(sum(kind.bytes for kind in found.storage))
    lost = f"{failed} failed, {skipped} skipped"
    return f"{clips} clips, {lost}, {duration_text(seconds)}, {stored} in {found.summary.shards} shards"


def _pairs(spec: Mapping[str, object]) -> str:
    plain = {name: value for name, value in spec.items() if value is not None and not isinstance(value, dict)}
    return ", ".join(f"{name} {value}" for name, value in plain.items())


def _splits(found: Inventory) -> list[str]:
    modalities = list(found.splits[0].present) if found.splits else []
    titles = ["split", "ok", "failed", "skipped", "shards", "groups", "in all", "shortest", "median", "longest"]
    rows = []
    for split in found.splits:
        lengths = [f"{split.duration_s[name]:.2f} s" if split.duration_s else "" for name in ("min", "median", "max")]
        numbers = [split.ok, split.failed, split.skipped, split.shards, split.groups]
        has = [split.present[name] for name in modalities]
        flags = [split.silent, split.still]
        rows.append(
            [split.split, *map(str, numbers), duration_text(split.seconds), *lengths, *map(str, (*has, *flags))]
        )
    return _indented([*titles, *(f"has {name}" for name in modalities), "silent", "still"], rows)


def _title(task: ClassCounts) -> str:
    several = ", several labels a clip" if task.kind == "multi" else ""
    return f"task {task.task}: {len(task.classes)} classes{several}"


def _classes(task: ClassCounts) -> list[str]:
    splits = list(task.counts)
    if not splits:
        return []
    counts = np.array([task.counts[split] for split in splits])
    order = np.lexsort((np.arange(len(task.classes)), -counts[0]))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = [
        [
            task.classes[at],
            *chain.from_iterable((str(counts[i, at]), decimal(shares[i, at])) for i in range(len(splits))),
        ]
        for at in order[:SHOWN]
    ]
    lines = _indented(["class", *chain.from_iterable((split, "share") for split in splits)], rows)
    if len(order) > SHOWN:
        left = counts[0][order[SHOWN:]]
        lines.append(f"  and {len(left)} more, with {left.min()} to {left.max()} clips of {splits[0]} each")
    empty = [f"{(row == 0).sum()} in {split}" for split, row in zip(splits, counts, strict=True) if (row == 0).any()]
    if empty:
        lines.append(f"  classes without a clip: {', '.join(empty)}")
    unlabelled = [f"{count} in {split}" for split, count in task.unlabelled.items() if count]
    if unlabelled:
        lines.append(f"  clips without a label: {', '.join(unlabelled)}")
    return lines


def _losses(found: Inventory) -> list[str]:
    if not found.losses:
        return ["  none"]
    lines = []
    for loss in found.losses:
        how = ", ".join(filter(None, (loss.status, loss.stage, loss.reason)))
        lines.append(f"  {loss.split}: {loss.clips} {how}")
        lines.append(f"    such as {loss.clip_id}" + (f": {loss.example}" if loss.example else ""))
    return lines


def _storage(found: Inventory) -> list[str]:
    total = sum(kind.bytes for kind in found.storage)
    rows = [
        [
            kind.name,
            str(kind.files),
            bytes_text(kind.bytes),
            decimal(kind.bytes / total if total else None),
            "" if kind.bytes_per_clip is None else bytes_text(kind.bytes_per_clip),
        ]
        for kind in found.storage
    ]
    return _indented(["files of", "files", "size", "share", "a clip that has it"], rows)


def _looked_at(found: Inventory) -> str:
    looked = ", ".join(f"{content.clips} of {split}" for split, content in found.contents.items())
    return f"what clips are like, measured on {looked}" if looked else ""


def _contents(found: Inventory) -> list[str]:
    lines = []
    for name, meaning in QUANTITIES.items():
        rows = [
            [split, str(len(values)), *(f"{value:.2f}" for value in spread(values).values())]
            for split, content in found.contents.items()
            if (values := content.values.get(name)) is not None
        ]
        if rows:
            lines += [f"  {name}: {meaning}", *_indented(["split", "clips", "min", "median", "mean", "max"], rows)]
    for split, content in found.contents.items():
        sizes = [f"{size} ({clips})" for size, clips in content.sizes.items()]
        more = f" and {len(sizes) - 5} more" if len(sizes) > 5 else ""
        if sizes:
            lines.append(f"  picture sizes of {split}, height x width in px: {', '.join(sizes[:5])}{more}")
    return lines


def _drifts(found: Inventory) -> list[str]:
    if not found.shared_groups:
        return ["  fewer than two splits have clips"]
    rows = [_drift(drift) for drift in found.drifts]
    lines = _indented(["quantity", "splits", "clips", "measure", "distance", "by chance below", ""], rows)
    for pair, groups in found.shared_groups.items():
        lines.append(f"  groups with clips both in {pair[0]} and in {pair[1]}: {groups}")
    return lines


def _drift(drift: Drift) -> list[str]:
    clips, splits = "/".join(map(str, drift.clips)), "/".join(drift.splits)
    said = "differ" if drift.beyond_chance else ""
    return [drift.quantity, splits, clips, drift.measure, decimal(drift.distance), decimal(drift.by_chance), said]


def _indented(titles: list[str], rows: list[list[str]]) -> list[str]:
    return [f"  {line}".rstrip() for line in aligned(titles, rows).splitlines()]
