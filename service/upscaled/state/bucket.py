"""Objects of an S3-compatible bucket for batches, whose threads wait for each request."""

import asyncio
import errno
import re
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError, PreconditionError

from upscaled.bucket.client import (
    ANSWER_WITHIN_S,
    SLOWEST_BYTES_PER_S,
    connect,
    describe_bucket_error,
)
from upscaled.state.bucket_results import LISTED_AT_ONCE

_NOTE: Final = "upscaled"
"""The metadata `x-amz-meta-upscaled` of an object."""
_QUOTED: Final = re.compile(r'"([^"]*)"')

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class FoundObject:
    """Object of a bucket. note: what was put with it; empty if nothing was, and where listed."""

    key: str
    size_bytes: int
    e_tag: str
    note: str = ""


class Bucket:
    """Bucket, for any number of threads, with the errors that files have.

    Each `OSError` says in words why the bucket did not do it. obstore repeats for 10 s what the
    server refuses for the moment, and where a connection breaks.
    """

    def __init__(self, name: str, endpoint: str) -> None:
        """Use the bucket of that name at an endpoint, as of `BucketResults`."""
        self.name = name
        # The client's own limit counts until the last byte, whose time depends on the size.
        self._bulk = connect(f"s3://{name}", endpoint, timedelta(days=1))
        self._quick = connect(f"s3://{name}", endpoint, timedelta(seconds=ANSWER_WITHIN_S))

    def list(self, prefix: str) -> Iterator[FoundObject]:
        """List all objects below a prefix by their keys, a page at a time."""
        with _file_errors():
            for page in obstore.list(self._quick, prefix or None, chunk_size=LISTED_AT_ONCE):
                for each in page:
                    yield FoundObject(each["path"], each["size"], each["e_tag"] or "")

    def find(self, key: str) -> FoundObject | None:
        with _file_errors():
            try:
                head = obstore.get(self._quick, key, options={"head": True})
            except FileNotFoundError:
                return None
        meta = head.meta
        note = str(head.attributes.get(_NOTE, ""))
        return FoundObject(key, meta["size"], meta["e_tag"] or "", note)

    def read(self, key: str, size_bytes: int) -> bytes:
        """Read an object of about this size, in time for a slow line, or FileNotFoundError."""

        async def read() -> bytes:
            found = await obstore.get_async(self._bulk, key)
            return bytes(await found.bytes_async())

        with _file_errors():
            return _run(read(), size_bytes)

    def read_ends(self, key: str, size_bytes: int, head_bytes: int, tail_bytes: int) -> bytes:
        """Read the first and the last bytes of an object of this size."""
        starts, ends = [0, max(0, size_bytes - tail_bytes)], [head_bytes, size_bytes]
        with _file_errors():
            ranges = obstore.get_ranges(self._quick, key, starts=starts, ends=ends)
        return b"".join(map(bytes, ranges))

    def put(
        self, key: str, data: bytes, media_type: str, note: str, *, replaced_e_tag: str = ""
    ) -> None:
        """Put an object with a `note` in ASCII, as a whole or not at all.

        Raises:
            FileExistsError: the object that is there is not that of `replaced_e_tag` (empty: none
                is): it is another program's, or of a first request whose answer was lost.
        """

        async def put() -> None:
            await obstore.put_async(
                self._bulk,
                key,
                data,
                attributes={"Content-Type": media_type, _NOTE: note},
                mode={"e_tag": replaced_e_tag} if replaced_e_tag else "create",
                use_multipart=False,
            )

        with _file_errors():
            _run(put(), len(data))

    def try_out(self, key: str) -> None:
        """Put an empty object, and delete it where that is allowed."""
        with _file_errors():
            obstore.put(self._quick, key, b"", use_multipart=False)
            try:
                obstore.delete(self._quick, [key])
            except BaseError:
                return


@contextmanager
def _file_errors() -> Iterator[None]:
    """Turn failures of the bucket into errors of a file, without the keys that they may quote."""
    try:
        yield
    except TimeoutError:
        raise OSError(errno.EIO, "no answer in time") from None
    except InvalidPathError as error:
        name = _QUOTED.search(str(error))
        text = 'a name has an empty part, or one that is "." or ".."'
        raise OSError(errno.EIO, f"{text}: {name[1]}" if name else text) from None
    except (AlreadyExistsError, PreconditionError):
        raise FileExistsError(errno.EEXIST, "another program wrote it meanwhile") from None
    except (BaseError, OSError, ValueError) as error:
        kind = errno.ENOENT if isinstance(error, FileNotFoundError) else errno.EIO
        raise OSError(kind, describe_bucket_error(str(error))) from None


def _run(request: Coroutine[Any, Any, Answer], size_bytes: int) -> Answer:
    """Run a request of so many bytes in this thread, for as long as the slowest may take."""

    async def run() -> Answer:
        async with asyncio.timeout(ANSWER_WITHIN_S + size_bytes / SLOWEST_BYTES_PER_S):
            return await request

    return asyncio.run(run())
