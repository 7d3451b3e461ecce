"""What a user is told of a store that cannot be used: one line, shared by what writes data sets and what reads them.

Every client has exceptions of its own, and some messages of theirs name the endpoint or the key; so a line is made of
the error's code alone. Nothing here opens anything.
"""

import re
from typing import Any

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
"""Where directories do not exist, and making one would make a bucket."""

CREDENTIALS = re.compile(r"://[^/@]*:[^/@]*@|\bs3a?://(?!arn:)[^/]*:")
"""A password in a URL. One for S3 may hold slashes, but no name of a bucket holds a colon."""

PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "gblend[s3]"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az"), "adlfs"),
}
"""What to install for a scheme."""

REMEDIES = {
    "NoSuchBucket": "there is no such bucket; make it or correct the URL (AWS_ENDPOINT_URL and AWS_REGION say where "
    "it is looked for)",
    "InvalidAccessKeyId": "the access key is not known there; check AWS_ACCESS_KEY_ID, on Ray's nodes too",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY, on Ray's nodes too",
    "ExpiredToken": "the credentials have expired; renew them and run again: what is finished is kept",
    "NoCredentialsError": "there are no credentials; give them in the environment or as a role, on Ray's nodes too",
    "ParamValidationError": "the store takes no such name; correct the URL",
    "InvalidBucketName": "a bucket cannot have this name; correct the URL",
    "PartialCredentialsError": "there are only half the credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}
"""What to do about an error of an object store, by its code or its class."""


class StoreError(OSError):
    """The place cannot be read or written, for a reason that a user can mend; the message is one readable line."""


def refuse_credentials(url: str) -> None:
    """Credentials in a URL would end up in logs and files; the error does not repeat them."""
    if CREDENTIALS.search(url):
        raise ValueError(
            f"a URL must not hold credentials ({url.split('://')[0]}://...); give them in the environment "
            "(for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role)"
        )


def is_object_store(fs: Any) -> bool:
    """Whether an object appears in such a file system only once all of it has arrived, in no directory."""
    return not OBJECT_STORES.isdisjoint((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def without_client(url: str, error: ImportError) -> str:
    """The line about a URL whose client is not installed."""
    package = PACKAGES.get(url.partition("://")[0])
    remedy = f"pip install '{package}', on Ray's nodes too" if package else "install it, on Ray's nodes too"
    return f"{url} cannot be used: {str(error).rstrip('.') or 'its client is not installed'}: {remedy}"


def code_of(error: BaseException) -> str:
    """What the store calls the error: S3's code where there is one, else the class of the exception."""
    cause = error if hasattr(error, "response") else error.__cause__
    response = getattr(cause, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return str(code or type(error).__name__)


def is_missing(error: BaseException) -> bool:
    """Whether an error says that a file is not there, which is an answer."""
    return isinstance(error, FileNotFoundError | NotADirectoryError) and code_of(error) != "NoSuchBucket"


def is_final(error: BaseException) -> bool:
    """Whether asking again cannot help."""
    return isinstance(error, PermissionError | FileNotFoundError) or code_of(error) in REMEDIES


def why(error: BaseException) -> str:
    """What went wrong, and the remedy."""
    code = code_of(error)
    if code in REMEDIES:
        return REMEDIES[code]
    if isinstance(error, PermissionError):
        return (
            f"access is denied ({code}); the credentials must be allowed to list, read, write and delete there "
            "(s3:ListBucket, s3:GetObject, s3:PutObject, s3:DeleteObject)"
        )
    return f"{code}; check the network and the address, and run again: what is finished is kept"
