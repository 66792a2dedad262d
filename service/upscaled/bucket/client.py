"""Connect to an S3-compatible bucket, store results in it, and report its failures.

Reports quote neither the names of objects nor access keys, as the client's own errors do.
"""

import asyncio
import re
import secrets
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from upscaled.bucket.checksum import describe_content
from upscaled.bucket.endpoint import find_endpoint
from upscaled.errors import InternalError

ANSWER_WITHIN_S: Final = 10.0
"""For a small request with its retries, and for each piece of a result that is read."""
FIRST_RETRY_AFTER_S: Final = 0.1
"""Each further retry of a request waits longer, up to 2 s."""
SLOWEST_BYTES_PER_S: Final = 1_000_000
"""Storing a result may take so much longer: 100 MB nearly two minutes."""
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3} [A-Za-z -]{1,40})")
_KIND: Final = re.compile(r"kind: (\w+)")
_ROLE: Final = re.compile(r"/latest/(api/token|meta-data/)")
"""Paths of the address that gives a cloud's machines their role."""
BROKEN_OFF: Final = "the connection broke off"
_TRIAL: Final = b"upscaled"
_KINDS: Final = {"Connect": "no connection", "Timeout": "no answer in time"}


def connect(url: str, endpoint: str, timeout: timedelta) -> S3Store:
    """Return a client with the credentials and region of AWS's own variables, or of the machine."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    endpoint = find_endpoint(endpoint)
    return S3Store(
        bucket,
        prefix=prefix.strip("/") or None,
        client_options={
            "timeout": timeout,
            "connect_timeout": timedelta(seconds=3),
            **({"allow_http": True} if endpoint.startswith("http://") else {}),
        },
        retry_config={
            "max_retries": 4,
            "retry_timeout": timedelta(seconds=ANSWER_WITHIN_S),
            "backoff": {
                "init_backoff": timedelta(seconds=FIRST_RETRY_AFTER_S),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        },
        # This key wins over the variables of AWS, which obstore reads too.
        config={"aws_endpoint_url_s3": endpoint} if endpoint else {},
    )


def name_by_time(created_at_s: float, extension: str) -> str:
    """Return an unguessable file name that begins with its time: a UUID marked as version 4.

    As the contract requires, but with 74 random bits behind the milliseconds since 1970, as in
    version 7: names sort by age, and the sweep removes an object once it is as old as they get.
    """
    number = int(created_at_s * 1000) << 80 | 4 << 76 | secrets.randbits(12) << 64
    return f"{uuid.UUID(int=number | 2 << 62 | secrets.randbits(62))}.{extension}"


async def create_result(store: S3Store, name: str, data: bytes, media_type: str) -> bool:
    """Create the object of a result by one request, or by a second where its answer was lost.

    obstore repeats what the server refused for the moment, and not what it may have done.

    Returns:
        False if there is an object of that name, which only requests for this result have: one
        of them created it.

    Raises:
        InternalError: it could not be stored.
    """
    attributes = {
        "Content-Type": media_type,
        "Cache-Control": "private, no-store",
        **await asyncio.to_thread(describe_content, data),
    }
    with reporting("store"):
        async with asyncio.timeout(ANSWER_WITHIN_S + len(data) / SLOWEST_BYTES_PER_S):
            for is_last in (False, True):
                try:
                    await obstore.put_async(
                        store, name, data, attributes=attributes, mode="create", use_multipart=False
                    )
                    break
                except AlreadyExistsError:
                    return False
                except BaseError:
                    if is_last:
                        raise
    return True


@contextmanager
def reporting(verb: str, what: str = "a result") -> Iterator[None]:
    """Turn failures of the bucket into errors that hold neither a result's name nor a key."""
    try:
        yield
    except TimeoutError:
        raise InternalError(detail=f"cannot {verb} {what}: no answer in time") from None
    except (BaseError, OSError, ValueError) as error:
        reason = describe_bucket_error(str(error))
        raise InternalError(detail=f"cannot {verb} {what}: {reason}") from None


def describe_bucket_error(text: str) -> str:
    """Return a reason for an operator, out of obstore's text for an error.

    That quotes the object's URL and perhaps the access key: only what is harmless is kept of it.
    """
    if _ROLE.search(text):
        return "no credentials: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor a role"
    code, status = _CODE.search(text), _STATUS.search(text)
    if code or status:
        parts = [each[1].strip() for each in (status, code) if each]
        return f"the bucket answered {' '.join(parts)}"
    if "incorrectly configured region" in text:
        return "the bucket is in another region than AWS_REGION says"
    kind = _KIND.search(text)
    return _KINDS.get(kind[1], BROKEN_OFF) if kind else "the request failed"


class ResultUploads:
    """The bucket of results for a process that only adds to it; needs a running event loop."""

    def __init__(self, url: str, endpoint: str) -> None:
        """Open a client of `url` and `endpoint`, as of `BucketResults`, or raise InternalError."""
        with reporting("store"):
            # The client's own limit counts until the last byte, whose time depends on the size.
            self._store = connect(url, endpoint, timedelta(days=1))

    async def create(self, name: str, data: bytes, media_type: str) -> int:
        """Store a result by one conditional request, and return the length of what is stored.

        An object that exists is the result: the answer to an earlier attempt was lost.
        """
        if await create_result(self._store, name, data, media_type):
            return len(data)
        with reporting("look for"):
            return int((await obstore.head_async(self._store, name))["size"])

    async def try_out(self) -> None:
        """Store a small object and delete it; InternalError says why a result cannot be stored now.

        It is named as a result: one that cannot be deleted is left to the front ends' sweep.
        """
        name = name_by_time(time.time(), "jpg")
        await create_result(self._store, name, _TRIAL, "application/octet-stream")
        with reporting("delete"):
            await obstore.delete_async(self._store, [name])
