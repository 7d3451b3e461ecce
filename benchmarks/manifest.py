"""Two million AudioSet-like annotations to a manifest, and that manifest to a plan of shards: seconds and memory.

python -m benchmarks.manifest [--rows N] [--check]

The annotations and the listing of files are made up in a temporary directory: ids, labels and paths as long as real
ones, 7 % of the files missing, some without a row. Every stage runs in a process of its own, whose peak memory is that
of the whole process with everything it imports. --check exits with 1 when the budget is not met.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUDGET_S, BUDGET_MIB = 60.0, 1024.0
CLASSES = 527
EVERY_MISSING = 14


def prepare(folder: Path, rows: int) -> None:
    """Write segment files, the class file and a listing of the video root."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(0)
    alphabet = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", np.uint8)
    mids = [f"/m/0{number:05x}" for number in range(CLASSES)]
    lines = [f'{number},{mid},"Class {number}, of sounds"' for number, mid in enumerate(mids)]
    (folder / "class_labels_indices.csv").write_text("\n".join(["index,mid,display_name", *lines]) + "\n")
    paths = []
    evals = rows // 100
    for name, count in (("eval", evals), ("unbalanced_train", rows - evals)):
        with open(folder / f"{name}_segments.csv", "w") as file:
            file.write(f"# Segments csv created Sun Mar  5 10:54:25 2017\n# num_ytids={count}, num_segs={count}\n")
            file.write("# YTID, start_seconds, end_seconds, positive_labels\n")
            for first in range(0, count, 100_000):
                size = min(100_000, count - first)
                ids = [row.tobytes().decode() for row in alphabet[rng.integers(0, 64, (size, 11))]]
                starts = rng.integers(0, 60, size) * 10
                labels = rng.integers(0, CLASSES, (size, 5))
                several = rng.integers(1, 5, size)
                file.writelines(
                    f'{ids[i]}, {starts[i]}.000, {starts[i] + 10}.000, "'
                    + ",".join(mids[code] for code in labels[i, : several[i]])
                    + '"\n'
                    for i in range(size)
                )
                part = f"audios/{name}_segments_part{first // 100_000:02d}"
                paths.append(pa.array([f"{part}/Y{ids[i]}.wav" for i in range(size) if i % EVERY_MISSING]))
    paths.append(pa.array([f"audios/extra/Yextra{i:06d}.wav" for i in range(rows // 1000)]))
    listing = pa.table({"path": pa.chunked_array(paths).combine_chunks()})
    with pa.OSFile(str(folder / "listing.arrow"), "wb") as sink, pa.ipc.new_file(sink, listing.schema) as writer:
        writer.write_table(listing)


def to_manifest(folder: Path) -> None:
    """What `gblend manifest audioset` does, given the listing."""
    import pyarrow as pa

    from pipelines.annotations import audioset, open_texts
    from pipelines.manifest import write_manifest
    from pipelines.preflight import build, write_report

    stage("manifest: start")
    with pa.OSFile(str(folder / "listing.arrow"), "rb") as source:
        paths = pa.ipc.open_file(source).get_batch(0)["path"]
    stage("manifest: take the listing")
    classes = str(folder / "class_labels_indices.csv")
    names = [str(folder / f"{name}_segments.csv") for name in ("eval", "unbalanced_train")]
    with open_texts(names) as texts, open_texts([classes]) as lists:
        made = audioset.parse(texts, classes=audioset.read_classes(lists[classes], what=classes))
    stage("manifest: parse")
    made = audioset.name_files(made, paths=paths, holds="clips")
    table, report = build(made, files=paths)
    stage("manifest: join, check, report")
    write_manifest(table, str(folder / "clips.parquet"))
    write_report(report, str(folder / "clips.report.json"))
    stage("manifest: write")


def to_plan(folder: Path) -> None:
    """What `gblend preprocess` does before it starts any work."""
    from pipelines.manifest import read_manifest
    from pipelines.plan import plan_shards

    stage("plan: start")
    manifest = read_manifest(str(folder / "clips.parquet"))
    stage("plan: read and check")
    plan_shards(manifest, clips_per_shard=256)
    stage("plan: shards")


def stage(name: str) -> None:
    """Print a stage that has just ended, with the peak memory so far; the parent reads it."""
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"name": name, "at_s": time.perf_counter() - STARTED_S, "peak_mib": peak_mib}), flush=True)


def measured(step: str, folder: Path, rows: int) -> list[dict]:
    """The stages of one step, run in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.manifest",
        "--step",
        step,
        "--folder",
        str(folder),
        "--rows",
        str(rows),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


STEPS = {"prepare": prepare, "manifest": to_manifest, "plan": to_plan}

STARTED_S = time.perf_counter()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000, help="annotated clips")
    parser.add_argument("--check", action="store_true", help="exit with 1 when the budget is not met")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        STEPS[given.step](given.folder, *([given.rows] if given.step == "prepare" else []))
        return 0
    with tempfile.TemporaryDirectory(prefix="gblend-manifest-") as folder:
        measured("prepare", Path(folder), given.rows)
        totals = []
        print(f"{'stage':<32} {'seconds':>8} {'peak MiB':>9}")
        for step in ("manifest", "plan"):
            before_s = 0.0
            for row in measured(step, Path(folder), given.rows):
                print(f"{row['name']:<32} {row['at_s'] - before_s:>8.1f} {row['peak_mib']:>9.0f}")
                before_s = row["at_s"]
            totals.append((row["at_s"], row["peak_mib"]))
    seconds, mib = (max(column) for column in zip(*totals, strict=True))
    met = seconds < BUDGET_S and mib < BUDGET_MIB
    print(
        f"{given.rows:,} clips: manifest {totals[0][0]:.1f} s and {totals[0][1]:.0f} MiB, "
        f"plan {totals[1][0]:.1f} s and {totals[1][1]:.0f} MiB; "
        f"budget {BUDGET_S:.0f} s and {BUDGET_MIB:.0f} MiB each: {'met' if met else 'not met'}"
    )
    return 0 if met or not given.check else 1


if __name__ == "__main__":
    sys.exit(main())
