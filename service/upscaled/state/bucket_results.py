"""Results in a bucket that all front ends share."""

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import AlreadyExistsError

from upscaled.bucket.checksum import DamagedObject, StoredContent
from upscaled.bucket.client import (
    ANSWER_WITHIN_S,
    BROKEN_OFF,
    connect,
    create_result,
    name_by_time,
    reporting,
)
from upscaled.errors import InternalError
from upscaled.logs import event
from upscaled.state import results
from upscaled.state.folder_results import FolderResults

if TYPE_CHECKING:
    from obstore import GetResult

_LONGEST_AHEAD_S: Final = 120.0
_AHEAD_SHARE: Final = 0.05
"""How much longer than others a result may live whose name was chosen before it was made."""
_CLOCKS_DIFFER_S: Final = 5.0
"""Tolerated difference of two front ends' clocks: a name may hold a time yet to come here."""
CHECKED_FIRST_BYTES: Final = 2 * results.CHUNK_BYTES
"""Largest result that is checked before its first byte is sent; reading others takes as much memory
for each client."""
LISTED_AT_ONCE: Final = 1000
"""Names that S3 lists and deletes in one request."""
_MOST_AHEAD_S: Final = 86_400.0
"""The furthest that the clock of a front end may be ahead. A random UUID that is read as a time is
further ahead, nearly always."""
# Names of version 0.2.0 were marked as version 7.
_UUID: Final = "[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_FILE_NAME: Final = re.compile(rf"{_UUID}\.({results.EXTENSION_PATTERN})")

_log: Final = logging.getLogger(__name__)


class BucketResults:
    """Objects `<prefix>/<uuid4>.jpg`, `.png` ...; see the protocol `Results`.

    A name holds the moment of its creation: expiry needs no clock of the store, and names sort by
    age, so that a sweep lists only what has expired. Its other 74 bits are random.
    """

    folder = None

    def __init__(self, url: str, endpoint: str, earlier: FolderResults) -> None:
        """Open `s3://bucket/prefix` at an endpoint; empty: Amazon S3's, or that of AWS's variables.

        earlier: results of this machine from before, valid until they expire: their random names
        hold no time that a valid result could have. Its clock and `ttl_s` are the bucket's too.
        """
        self.location = url
        self.ttl_s = earlier.ttl_s
        self.clock = earlier.clock
        self._earlier = earlier
        # The client's own limit counts until the last byte, however slowly a client takes it.
        self._bulk = connect(url, endpoint, timedelta(days=1))
        self._quick = connect(url, endpoint, timedelta(seconds=ANSWER_WITHIN_S))

    def reserve(self, media_type: str) -> results.ReservedName:
        """Return a new name, under which a replica may store a result in the bucket.

        Its time is shortly ahead: a result stored until then is kept no shorter than others.
        """
        ahead_s = self._ahead_s
        return results.ReservedName(
            make_name(self.clock.now_s() + ahead_s, media_type), ahead_s / 2
        )

    @property
    def _ahead_s(self) -> float:
        return min(_LONGEST_AHEAD_S, _AHEAD_SHARE * self.ttl_s)

    async def store(self, data: bytes, media_type: str) -> str:
        """Put a result into the bucket by one request, and return its name."""
        file_name = make_name(self.clock.now_s(), media_type)
        await create_result(self._bulk, file_name, data, media_type)
        return file_name

    async def find(self, file_name: str) -> results.StoredResult | None:
        if not self._is_valid(file_name):
            return await self._earlier.find(file_name)
        with reporting("look for"):
            try:
                # Not `head_async`, which returns no metadata.
                head = await obstore.get_async(self._quick, file_name, options={"head": True})
            except FileNotFoundError:
                return None
        return _describe(file_name, head)

    @asynccontextmanager
    async def open(self, file_name: str) -> AsyncIterator[results.OpenedResult | None]:
        """Request a result once; read a small one and check it, others as they are needed."""
        if not self._is_valid(file_name):
            async with self._earlier.open(file_name) as opened:
                yield opened
            return
        with reporting("read"):
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    answer = await obstore.get_async(self._bulk, file_name)
            except FileNotFoundError:
                answer = None
        stored = None if answer is None else _describe(file_name, answer)
        if answer is None or stored is None:
            yield None
            return
        chunks = self._read_checked(file_name, answer)
        if stored.size_bytes > CHECKED_FIRST_BYTES:
            yield results.OpenedResult(stored, chunks)
            return
        try:
            checked = [chunk async for chunk in chunks]
        except DamagedObject:
            yield None
        else:
            yield results.OpenedResult(stored, _give(checked))

    async def _read_checked(self, file_name: str, answer: "GetResult") -> AsyncIterator[bytes]:
        """Yield a result's bytes; delete one that is damaged, so that a retry makes it again."""
        try:
            async for chunk in StoredContent.read(answer.attributes).checked(_read(answer)):
                yield chunk
        except DamagedObject:
            _warn_of_damage()
            await self.delete(file_name)
            raise

    async def delete(self, file_name: str) -> None:
        await self._earlier.delete(file_name)
        if not self._has_time(file_name):
            return
        try:
            await self._delete(file_name)
        except InternalError as error:
            fields = event("result_not_deleted")
            _log.warning("a result could not be deleted: %s", error.detail, extra=fields)

    async def _delete(self, file_name: str) -> None:
        try:
            with reporting("delete"):
                await obstore.delete_async(self._quick, [file_name])
        except InternalError as error:
            if BROKEN_OFF not in str(error.detail):
                raise
            # obstore sends no POST again that broke off half sent; deleting twice is harmless.
            with reporting("delete"):
                await obstore.delete_async(self._quick, [file_name])

    def sweep(self) -> results.SweptResults:
        """Remove expired results, the oldest first, up to the first that is valid."""
        earlier = self._earlier.sweep()
        removed = 0
        with reporting("sweep"):
            for page in obstore.list(self._quick, chunk_size=LISTED_AT_ONCE):
                names = [each["path"] for each in page if _FILE_NAME.fullmatch(each["path"])]
                expired = [name for name in names if self._expires_in_s(name) <= 0]
                if expired:
                    obstore.delete(self._quick, expired)
                    removed += len(expired)
                if not names or len(expired) < len(names):
                    break  # what follows is valid, or of jobs: those names sort behind
        return results.SweptResults(earlier.removed + removed, None, None, earlier.failed)

    def try_out(self) -> None:
        """Store a small result as any other, read it back and remove it."""
        file_name, data = (
            make_name(self.clock.now_s(), "image/jpeg"),
            os.urandom(results.TRIAL_BYTES),
        )
        with reporting("store"):
            self._create(file_name, data)
        with reporting("read"):
            is_same = obstore.get(self._quick, file_name).bytes() == data
        with reporting("delete"):
            obstore.delete(self._quick, [file_name])
        if not is_same:
            raise InternalError(detail="a result that was stored reads differently")

    def overwrites(self) -> bool:
        """Return whether the server replaces an object although the request says to create one."""
        file_name = make_name(self.clock.now_s(), "image/jpeg")
        with reporting("store"):
            self._create(file_name, b"first")
            try:
                self._create(file_name, b"second")
                is_overwriting = True
            except AlreadyExistsError:
                is_overwriting = False
        with reporting("delete"):
            obstore.delete(self._quick, [file_name])
        return is_overwriting

    def _create(self, file_name: str, data: bytes) -> None:
        obstore.put(self._quick, file_name, data, mode="create", use_multipart=False)

    def _is_valid(self, file_name: str) -> bool:
        return self._has_time(file_name) and self._expires_in_s(file_name) > 0

    def _has_time(self, file_name: str) -> bool:
        """Return whether a name begins with the time of a result, be it expired."""
        if not _FILE_NAME.fullmatch(file_name):
            return False
        return self._expires_in_s(file_name) <= self.ttl_s + _MOST_AHEAD_S

    def _expires_in_s(self, file_name: str) -> float:
        ahead_s = self._ahead_s + _CLOCKS_DIFFER_S
        return self.ttl_s - self.clock.age_s(read_creation_s(file_name), ahead_s=ahead_s)


def make_name(created_at_s: float, media_type: str) -> str:
    """Return a new name for a result, of that time."""
    return name_by_time(created_at_s, results.EXTENSIONS[media_type])


def read_creation_s(file_name: str) -> float:
    """Return the time that a file name begins with, in seconds since 1970."""
    return int(file_name[:13].replace("-", ""), 16) / 1000


def _describe(file_name: str, answer: "GetResult") -> results.StoredResult | None:
    """Return what is stored as a result; None for one of which a part is lost."""
    size_bytes = answer.meta["size"]
    if not StoredContent.read(answer.attributes).has_size(size_bytes):
        _warn_of_damage()
        return None
    return results.StoredResult(results.MEDIA_TYPES[file_name.rpartition(".")[2]], size_bytes)


def _warn_of_damage() -> None:
    _log.error("a result in the bucket is not what was stored", extra=event("result_damaged"))


async def _give(chunks: list[bytes]) -> AsyncIterator[bytes]:
    """Yield chunks that are in memory."""
    for chunk in chunks:
        yield chunk


async def _read(answer: "GetResult") -> AsyncIterator[bytes]:
    """Yield an object's bytes; obstore requests the rest again where a connection breaks."""
    stream = aiter(answer.stream(min_chunk_size=results.CHUNK_BYTES))
    while True:
        with reporting("read"):
            async with asyncio.timeout(ANSWER_WITHIN_S):
                chunk = await anext(stream, None)
        if chunk is None:
            return
        yield bytes(chunk)
