"""Paths and URLs as jobs take them: one name for one place, whatever directory a process runs in.

What a user types is normalised here and nowhere else. Everything below joins names with a slash, and compares them: in
a bucket ``run//config.json`` is another key than ``run/config.json``, and ``s3://bucket/data/`` would be another
setting than ``s3://bucket/data``.
"""

import os

from schemas.store_errors import refuse_credentials


def absolute(path: str) -> str:
    """A local path made absolute, because Ray's workers run in another directory; a URL without a slash at its end.

    A relative path is taken from this process's directory, also when ``RAY_ADDRESS`` names a cluster: then every
    machine must see the same path, and in a submitted job it would lie in Ray's temporary copy of the working
    directory. Give absolute paths or URLs there.

    Raises:
        ValueError: It is a URL that holds credentials.

    >>> absolute("s3://bucket/data/"), absolute("file:///"), absolute("/data//runs/")
    ('s3://bucket/data', 'file:///', '/data/runs')
    """
    refuse_credentials(path)
    scheme, found, place = path.partition("://")
    if not found:
        return os.path.abspath(path)
    return f"{scheme}://{place.rstrip('/') or place}"
