"""Store results in a bucket under names that a front end has reserved."""

import time
from datetime import timedelta
from typing import Final

import obstore

from upscaled.bucket.client import connect, create_result, name_by_time, reporting

_TRIAL: Final = b"upscaled"


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
