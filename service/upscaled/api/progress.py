"""Track how far each request is, so that `GET /v1/progress/{request_id}` can stream it.

Steps are not queued for watchers: one that is slow misses steps, never the last one. A request is
tracked as long as it is in flight, if its id is of its client's own choice: no other is known
before the response.

A request is also noted in the database, with this front end's URL and a random token. Another front
end of the same PostgreSQL that is asked for it reads both there, and passes the events on. So only
front ends of one database can ask each other, and URLs come from it alone.
"""

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from upscaled.api.cancellation import run_to_end
from upscaled.errors import InternalError, RateLimitExceeded, ServiceError
from upscaled.logs import event
from upscaled.state import DatabaseFailed
from upscaled.state.under_way import RequestUnderWay, UnderWay

Stage = Literal["receive", "queue", "network", "encode"]

ARRIVAL_WAIT_S: Final = 1.0
"""A watcher may come before its request, above all where a proxy holds the body back."""
MAX_WATCHERS_PER_KEY: Final = 32
"""Each watcher holds a connection: so many at most, of the hundred of one address."""
RELAY_PATH: Final = "/internal/progress"
TOKEN_HEADER: Final = "X-Upscaled-Token"  # noqa: S105  (its name)
ANSWER_WITHIN_S: Final = 3.0
SILENT_FOR_S: Final = 45.0
"""Three times the interval at which a front end shows that it is there."""
_READ_BYTES: Final = 16 * 1024

_logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a request.

    Attributes:
        stage: "receive" reads the body or fetches `image_url`; "queue" waits, then decodes.
        remaining_s: of the network alone: before the first tile what the model is expected to
            take for a picture of that size, then from the tiles done so far; None if unknown.
    """

    stage: Stage = "receive"
    tiles_done: int = 0
    tiles_total: int | None = None
    remaining_s: float | None = None

    @property
    def tiles(self) -> tuple[int, int | None]:
        return self.tiles_done, self.tiles_total


class Signal:
    """Wake all tasks that wait at that moment; belongs to the event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def send(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        await self._event.wait()


class Progress:
    """The progress of one request, which its watchers read. `error_code` is set at its end."""

    def __init__(self) -> None:
        self.step = Step()
        self.is_ended = False
        self.error_code: str | None = None
        self._begun_at_s = 0.0
        self._expected_s: float | None = None
        self._changed = Signal()

    def note_queued(self, expected_s: float | None = None) -> None:
        """Note that the image is in the request queue, and how long the network should take."""
        self._expected_s = expected_s
        self._set(Step("queue"))

    def note_tile(self, done: int, total: int, *, at_s: float | None = None) -> None:
        """Note tiles done, as the executor reports them: from 0, once more if a try is repeated.

        Args:
            at_s: when that was, by the monotonic clock; None: now.
        """
        at_s = time.monotonic() if at_s is None else at_s
        if done == 0:
            self._begun_at_s = at_s
            self._set(Step("network", 0, total, self._expected_s))
        elif done >= total:
            self._set(Step("encode", total, total, 0.0))
        else:
            per_tile_s = (at_s - self._begun_at_s) / done
            self._set(Step("network", done, total, per_tile_s * (total - done)))

    def end(self, error_code: str | None) -> None:
        """Note that the request is over; None for a success."""
        self.is_ended = True
        self.error_code = error_code
        self._changed.send()

    async def wait_beyond(self, step: Step) -> None:
        """Return once there is a newer step, or the request is over."""
        while self.step is step and not self.is_ended:
            await self._changed.wait()

    def _set(self, step: Step) -> None:
        self.step = step
        self._changed.send()


class ProgressTracker:
    """The requests in flight, by API key and id; of two with one id the later one is shown."""

    def __init__(self, arrival_wait_s: float = ARRIVAL_WAIT_S) -> None:
        self.arrival_wait_s = arrival_wait_s
        self._in_flight: dict[tuple[int, str], Progress] = {}
        self._watchers: Counter[int] = Counter()
        self._arrived = Signal()

    @contextmanager
    def track(self, key_id: int, request_id: str) -> Iterator[Progress]:
        """Show a request's progress for the time of the block."""
        name = (key_id, request_id)
        progress = self._in_flight[name] = Progress()
        self._arrived.send()
        error_code: str | None = InternalError.error_code
        try:
            yield progress
            error_code = None
        except ServiceError as error:
            error_code = error.error_code
            raise
        finally:
            if self._in_flight.get(name) is progress:
                del self._in_flight[name]
            progress.end(error_code)

    @contextmanager
    def count_watcher(self, key_id: int) -> Iterator[None]:
        """Count a watcher for the block; RateLimitExceeded where the key has its most."""
        if self._watchers[key_id] >= MAX_WATCHERS_PER_KEY:
            detail = f"key {key_id} watches too many requests"
            raise RateLimitExceeded(1, reason="watchers", detail=detail)
        self._watchers[key_id] += 1
        try:
            yield
        finally:
            self._watchers[key_id] -= 1
            self._watchers += Counter()  # keys without watchers leave no trace

    def get(self, key_id: int, request_id: str) -> Progress | None:
        """Return the key's request of this id, where it is in flight now."""
        return self._in_flight.get((key_id, request_id))

    async def find(self, key_id: int, request_id: str) -> Progress | None:
        """Return the key's request of this id; None if there is none within `arrival_wait_s`."""
        try:
            async with asyncio.timeout(self.arrival_wait_s):
                while (key_id, request_id) not in self._in_flight:
                    await self._arrived.wait()
        except TimeoutError:
            return None
        return self._in_flight[key_id, request_id]


class ProgressRelay:
    """The progress of requests at other front ends, which reach this one at `own_url`; "": off."""

    def __init__(self, own_url: str, under_way: UnderWay, tracker: ProgressTracker) -> None:
        self.own_url = own_url
        self._under_way = under_way
        self._tracker = tracker
        self._announced: dict[str, Progress] = {}

    @asynccontextmanager
    async def track(self, key_id: int, request_id: str) -> AsyncIterator[Progress]:
        """Show a request's progress during the block, at all front ends."""
        with self._tracker.track(key_id, request_id) as progress:
            if not self.own_url:
                yield progress
                return
            token = secrets.token_urlsafe(32)
            request = RequestUnderWay(key_id, request_id, self.own_url, token)
            self._announced[token] = progress
            try:
                await _try(asyncio.to_thread(self._under_way.add, request))
                yield progress
            finally:
                del self._announced[token]
                await _try(asyncio.to_thread(self._under_way.remove, request))

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
                reader, writer = await _request_events(request)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            fields = event("progress_not_relayed", front_end=request.front_end_url)
            _logger.warning("another front end's progress cannot be read: %r", error, extra=fields)
            yield None
            return
        try:
            yield _read_events(reader)
        finally:
            writer.transport.abort()


async def _try(step: Coroutine[Any, Any, None]) -> None:
    """Run a step whose failure is logged and does not fail the request."""
    try:
        await run_to_end(step)
    except DatabaseFailed as error:
        _logger.info(
            "progress is not shared with other front ends: %s",
            error,
            extra=event("progress_not_announced"),
        )


async def _request_events(
    request: RequestUnderWay,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Request events from a request's front end, and read the answer's head, else OSError."""
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
    """Yield events as they are received; if their front end dies, they end without `end`."""
    try:
        while True:
            async with asyncio.timeout(SILENT_FOR_S):
                data = await reader.read(_READ_BYTES)
            if not data:
                return
            yield data
    except OSError as error:
        _logger.warning("the progress of another front end ended early: %r", error,
                        extra=event("progress_not_relayed"))  # fmt: skip
