"""The cache of remote data as a user asks for it: where it is on every node, and whether the data set has a use for it.

Workers run in directories of Ray's, so a relative one must be made absolute before it travels to them.
"""

from dataclasses import replace

from gblend.config import ComputeConfig
from gblend.storage import is_local
from jobs.places import absolute
from jobs.terminal import say


def with_cache(compute: ComputeConfig, data: str) -> ComputeConfig:
    """The same, with an absolute directory for the cache; a line says so where the data set has no use for one.

    `ComputeConfig` does not know whether ``cache_gib`` was given: the default is not told of.
    """
    asked = [] if compute.cache_dir is None else [f"--cache-dir {compute.cache_dir}"]
    if compute.cache_gib != ComputeConfig().cache_gib:
        asked.append(f"--cache-gib {compute.cache_gib:g}")
    if asked and is_local(data):
        what = f"{' and '.join(asked)} {'is' if len(asked) == 1 else 'are'} not used"
        say(f"{what}: {data} is a path, which is read in place")
    return compute if compute.cache_dir is None else replace(compute, cache_dir=absolute(compute.cache_dir))
