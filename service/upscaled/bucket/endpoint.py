"""Find the server of a bucket, without loading the client."""

import os
from typing import Final

_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""The first that is set counts, as with AWS's own programs."""


def find_endpoint(setting: str) -> str:
    """Return the URL of the server that a client with this setting connects to; "" for Amazon's.

    Two processes whose settings are empty may still reach different servers, by the variables of
    AWS in their environments: the same bucket name is then another bucket.

    Args:
        setting: `UPSCALED_S3_ENDPOINT`, which wins over AWS's own variables.
    """
    found = (os.environ.get(name, "") for name in _VARIABLES)
    return (setting or next(filter(None, found), "")).rstrip("/")
