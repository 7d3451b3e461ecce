"""The cache of remote data as a user asks for it: where it is on every node, and whether the data set has a use for it.

Workers run in directories of Ray's, so a relative one must be made absolute before it travels to them.
"""

from dataclasses import replace

from gblend.config import ComputeConfig
from gblend.shard_files import is_local
from jobs.places import absolute


def with_cache(compute: ComputeConfig, data: str) -> ComputeConfig:
    """The same, with an absolute directory for the cache; a line says so where the data set has no use for one."""
    if compute.cache_dir is None:
        return compute
    if is_local(data):
        print(f"--cache-dir {compute.cache_dir} is not used: {data} is a path, which is read in place", flush=True)
    return replace(compute, cache_dir=absolute(compute.cache_dir))
