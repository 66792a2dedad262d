"""Find the server of a bucket, without loading the client."""

import os
from typing import Final

_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""The first that is set counts, as with AWS's own programs."""


def find_endpoint(setting: str) -> str:
    """Return the URL of the server that a client with UPSCALED_S3_ENDPOINT reaches; "": Amazon's.

    Two processes without it may reach different servers, by AWS's variables in their environments.
    """
    found = (os.environ.get(name, "") for name in _VARIABLES)
    return (setting or next(filter(None, found), "")).rstrip("/")
