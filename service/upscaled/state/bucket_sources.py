"""The images that accepted jobs wait with, in an S3-compatible bucket."""

import uuid
from collections.abc import Container
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import obstore

from upscaled.errors import InternalError
from upscaled.state.bucket_results import ANSWER_WITHIN_S, SLOWEST_BYTES_PER_S, connect, reporting
from upscaled.state.job_sources import UNCLAIMED_S

_LARGEST_BYTES = 2**31
"""The largest file that the settings allow."""


class BucketSources:
    """Objects `<prefix>/<name>`; see the protocol `JobSources`."""

    def __init__(self, url: str, endpoint: str) -> None:
        """
        Args:
            url: `s3://bucket/prefix`.
            endpoint: as of `BucketResults`.
        """
        longest_s = ANSWER_WITHIN_S + _LARGEST_BYTES / SLOWEST_BYTES_PER_S
        self._bucket = connect(url, endpoint, timedelta(seconds=longest_s))

    def store(self, data: bytes) -> str:
        """Put an object by one request."""
        name = uuid.uuid4().hex
        with reporting("store", "a job's source"):
            obstore.put(self._bucket, name, data, use_multipart=False)
        return name

    def read(self, name: str) -> bytes:
        """Get an object."""
        with reporting("read", "a job's source"):
            return bytes(obstore.get(self._bucket, name).bytes())

    def delete(self, name: str) -> None:
        """Delete an object."""
        with suppress(InternalError), reporting("delete", "a job's source"):
            obstore.delete(self._bucket, [name])

    def sweep(self, in_use: Container[str]) -> int:
        """Delete objects; only those of jobs that have not ended are listed beside them."""
        latest = datetime.now(UTC) - timedelta(seconds=UNCLAIMED_S)
        removed = 0
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
