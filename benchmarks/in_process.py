"""Every shard of a manifest made in this process, without Ray: what a profiler or strace is put around.

python -m benchmarks.in_process MANIFEST VIDEOS OUT CLIPS_PER_SHARD
"""

import sys

from pipelines.manifest import read_manifest
from pipelines.plan import plan_shards
from pipelines.shards import ShardJob, write_shard
from pipelines.source import DecodeLimits
from schemas.features import FeatureSpec


def main(manifest: str, videos: str, out: str, clips_per_shard: str) -> None:
    checked = read_manifest(manifest)
    job = ShardJob(out=out, videos=videos, features=FeatureSpec(), limits=DecodeLimits())
    for plan in plan_shards(checked, clips_per_shard=int(clips_per_shard)):
        ledger = write_shard(plan.name, checked.table.take(plan.positions), job)
        print(plan.name, ledger["status"].to_pylist().count("ok"), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
