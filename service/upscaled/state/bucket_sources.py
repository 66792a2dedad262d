"""Source images of accepted jobs in a bucket that all front ends share."""

import asyncio
import uuid
from collections.abc import Container
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import obstore

from upscaled.bucket.checksum import StoredContent, describe_content
from upscaled.bucket.client import ANSWER_WITHIN_S, SLOWEST_BYTES_PER_S, connect, reporting
from upscaled.errors import InternalError
from upscaled.state.job_sources import UNCLAIMED_S, FolderSources, warn_of_damage


class BucketSources:
    """Objects `<prefix>/<name>`; see the protocol `JobSources`."""

    def __init__(self, url: str, endpoint: str, earlier: FolderSources, *, max_bytes: int) -> None:
        """Open `s3://bucket/prefix`; `earlier` are this machine's, from before it had a bucket."""
        self._longest_s = ANSWER_WITHIN_S + max_bytes / SLOWEST_BYTES_PER_S
        self._bucket = connect(url, endpoint, timedelta(seconds=self._longest_s))
        self._earlier = earlier

    async def store(self, data: bytes) -> str:
        """Put an object by one request."""
        name = uuid.uuid4().hex
        attributes = await asyncio.to_thread(describe_content, data)
        with reporting("store", "a job's source"):
            async with asyncio.timeout(self._longest_s):
                await obstore.put_async(
                    self._bucket, name, data, attributes=attributes, use_multipart=False
                )
        return name

    async def read(self, name: str) -> bytes | None:
        with reporting("read", "a job's source"):
            try:
                async with asyncio.timeout(self._longest_s):
                    found = await obstore.get_async(self._bucket, name)
                    data = bytes(await found.bytes_async())
            except FileNotFoundError:
                return await self._earlier.read(name)
        stored = StoredContent.read(found.attributes)
        if await asyncio.to_thread(stored.is_whole, data):
            return data
        warn_of_damage("bucket")
        return None

    async def delete(self, name: str) -> None:
        with suppress(InternalError), reporting("delete", "a job's source"):
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await obstore.delete_async(self._bucket, [name])
        await self._earlier.delete(name)

    def sweep(self, in_use: Container[str]) -> int:
        """Delete objects; only those of jobs that have not ended are listed beside them."""
        removed = self._earlier.sweep(in_use)
        latest = datetime.now(UTC) - timedelta(seconds=UNCLAIMED_S)
        with reporting("sweep", "jobs' sources"):
            for page in obstore.list(self._bucket):
                unused = [
                    each["path"]
                    for each in page
                    if each["path"] not in in_use and each["last_modified"] < latest
                ]
                if unused:
                    obstore.delete(self._bucket, unused)
                    removed += len(unused)
        return removed
