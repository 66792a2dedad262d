"""Show the progress of requests that another front end of the same PostgreSQL has.

A request with an id of its client's own is noted in the database, with this front end's URL and a
random token. A front end that is asked for it and does not have it reads both there, and passes the
events on. So only front ends of one database can ask each other, and URLs come from it alone.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from upscaled.api.cancellation import run_to_end
from upscaled.api.progress import Progress, ProgressTracker
from upscaled.logs import event
from upscaled.state import DatabaseFailed
from upscaled.state.under_way import RequestUnderWay, UnderWay

RELAY_PATH: Final = "/internal/progress"
TOKEN_HEADER: Final = "X-Upscaled-Token"  # noqa: S105  (its name)
ANSWER_WITHIN_S: Final = 3.0
SILENT_FOR_S: Final = 45.0
"""Three times the interval at which a front end shows that it is there."""
_READ_BYTES: Final = 16 * 1024

_logger: Final = logging.getLogger(__name__)


class ProgressRelay:
    """The progress of requests at other front ends; off where `own_url` is empty.

    own_url: where other front ends reach this one.
    """

    def __init__(self, own_url: str, under_way: UnderWay, tracker: ProgressTracker) -> None:
        self.own_url = own_url
        self._under_way = under_way
        self._tracker = tracker
        self._announced: dict[str, Progress] = {}

    @asynccontextmanager
    async def track(
        self, key_id: int, request_id: str, *, is_clients_id: bool
    ) -> AsyncIterator[Progress]:
        """Show a request's progress during the block; at all front ends if its client named it."""
        with self._tracker.track(key_id, request_id) as progress:
            if not self.own_url or not is_clients_id:
                yield progress
                return
            token = secrets.token_urlsafe(32)
            request = RequestUnderWay(key_id, request_id, self.own_url, token)
            self._announced[token] = progress
            try:
                await _try(partial(self._under_way.add, request))
                yield progress
            finally:
                del self._announced[token]
                await _try(partial(self._under_way.remove, request))

    def find_announced(self, token: str) -> Progress | None:
        """Return the progress of a request of this front end by its token."""
        return self._announced.get(token)

    @asynccontextmanager
    async def open(
        self, key_id: int, request_id: str
    ) -> AsyncIterator[AsyncIterator[bytes] | None]:
        """Give the events of a request at another front end; None if no other shows it now."""
        request = None
        if self.own_url:
            request = await asyncio.to_thread(self._under_way.find, key_id, request_id)
        if request is None or request.front_end_url == self.own_url:
            yield None
            return
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                reader, writer = await _ask(request)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            fields = event("progress_not_relayed", front_end=request.front_end_url)
            _logger.warning("a front end does not show its progress: %r", error, extra=fields)
            yield None
            return
        try:
            yield _read_events(reader)
        finally:
            writer.transport.abort()


async def _try(step: Callable[[], None]) -> None:
    """Do a step that its request does not need."""
    try:
        await run_to_end(asyncio.to_thread(step))
    except DatabaseFailed as error:
        _logger.info(
            "progress is shown here alone: %s", error, extra=event("progress_not_announced")
        )


async def _ask(request: RequestUnderWay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask a front end for a request's events, up to the head of its answer.

    Raises:
        OSError: it cannot be reached, or answers otherwise.
    """
    url = urlsplit(request.front_end_url)
    is_tls = url.scheme == "https"
    reader, writer = await asyncio.open_connection(
        url.hostname, url.port or (443 if is_tls else 80), ssl=is_tls or None
    )
    try:
        # HTTP/1.0: the body is not chunked, and ends with the connection.
        lines = (
            f"GET {url.path}{RELAY_PATH} HTTP/1.0",
            f"Host: {url.netloc}",
            f"{TOKEN_HEADER}: {request.token}",
        )
        writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if head.split(b" ", 2)[1:2] != [b"200"]:
            raise ConnectionError(head.split(b"\r\n", 1)[0].decode(errors="replace"))
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


async def _read_events(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield what comes; an owner that dies ends the events without an `end`."""
    try:
        while True:
            async with asyncio.timeout(SILENT_FOR_S):
                data = await reader.read(_READ_BYTES)
            if not data:
                return
            yield data
    except OSError as error:
        _logger.warning("progress of another front end broke off: %r", error,
                        extra=event("progress_not_relayed"))  # fmt: skip
