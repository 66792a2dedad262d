"""Client of the fetch process in the front end: start it, send it requests, and replace it.

All fetches share one process. Where it dies, hangs or breaks the protocol, those in flight fail,
and the next starts another: with exponential backoff while none completes one.
"""

import asyncio
import itertools
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Final, Protocol

from upscaled.errors import FileSizeTooLarge, InternalError, ServiceError
from upscaled.fetch import messages
from upscaled.fetch.messages import FetchOptions, Message, PostRequest
from upscaled.fetch.url import UnusableUrl
from upscaled.logs import event
from upscaled.process import child as children
from upscaled.process.channel import FrameError
from upscaled.process.supervision import Limits

COMMAND: Final = (sys.executable, "-m", "upscaled.fetch.child")
SILENCE_S: Final = 10.0
"""Longest silence: its event loop sends a heartbeat every second."""
START_S: Final = 30.0
"""Longest time from its start to its first message; a machine may be busy."""

# Where TLS finds its authorities and the resolver its options, beside Python's libraries.
_NAMES: Final = frozenset(
    {"SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF", "RES_OPTIONS", "LOCALDOMAIN"}
)

_log: Final = logging.getLogger(__name__)


class Budget(Protocol):
    """The memory of one API key's request, against which a body is counted as it arrives."""

    @property
    def key_id(self) -> int: ...

    def count(self, size_bytes: int) -> None:
        """Count further bytes; raises a `ServiceError`, which ends the fetch."""


class FetchClient:
    """Fetches by a process of their own, which the first one starts; belongs to one event loop."""

    def __init__(
        self, options: FetchOptions, command: Sequence[str] = COMMAND, limits: Limits | None = None
    ) -> None:
        self._options = options
        self._command = command
        self._limits = limits or Limits(
            work_s=START_S + options.timeout_s, start_s=START_S, silence_s=SILENCE_S
        )
        self._process: _FetchProcess | None = None
        self._starting = asyncio.Lock()
        self._failures = 0
        self._start_at = 0.0

    @property
    def pid(self) -> int | None:
        """Return the id of the process that runs; None without one."""
        return self._process.pid if self._process and self._process.is_usable else None

    async def fetch(self, url: str, budget: Budget) -> bytes:
        """Return the bytes behind `url`, at most `max_file_bytes`; cancelled, stop fetching.

        Raises:
            UnusableUrl, FileSizeTooLarge: as `Fetcher.fetch`, or the process died that fetched it.
            RateLimitExceeded: `budget` has no memory left for it.
            InternalError: this machine cannot start the process.
        """
        process = await self._find_process_in_time(self._options.timeout_s)
        message = {"fetch": 0, "key_id": budget.key_id}
        return await process.run(
            message, url.encode(errors="surrogatepass"), self._limits.work_s, budget
        )

    async def post(self, request: PostRequest) -> int:
        """Send a request with a body once, and return its answer's status, as `Fetcher.post`."""
        process = await self._find_process_in_time(request.timeout_s)
        message = {"post": 0, **asdict(request)}
        status = await process.run(message, b"", START_S + request.timeout_s)
        if not status.isdigit():
            raise UnusableUrl(detail="the fetch process answered with no status")
        return int(status)

    async def close(self) -> None:
        """End the process, and the fetches it has."""
        if self._process is not None:
            await self._process.end()

    async def _find_process_in_time(self, timeout_s: float) -> "_FetchProcess":
        try:
            async with asyncio.timeout(timeout_s):
                return await self._find_process()
        except TimeoutError:
            raise UnusableUrl(detail="no fetch process in time") from None

    async def _find_process(self) -> "_FetchProcess":
        async with self._starting:
            if self._process is not None and self._process.is_usable:
                return self._process
            now = asyncio.get_running_loop().time
            if self._process is not None:
                self._note_end(self._process, now())
            await asyncio.sleep(self._start_at - now())
            try:
                environment = children.scrub_environment(os.environ, _NAMES)
                child = await children.AsyncChild.start(self._command, environment)
            except (children.SpawnFailed, children.ChildUnusable) as error:
                self._fail(now())
                raise InternalError(detail=str(error)) from None
            self._process = _FetchProcess(child, self._options, self._limits)
            return self._process

    def _note_end(self, process: "_FetchProcess", now: float) -> None:
        self._process = None
        if process.answered or now - process.started_at > self._limits.steady_s:
            self._failures = 0
        else:
            self._fail(now)

    def _fail(self, now: float) -> None:
        self._failures += 1
        self._start_at = now + self._limits.restart_after_s(self._failures)


class _FetchProcess:
    """A running process. `answered` counts the fetches that it has brought to an end."""

    def __init__(self, child: children.AsyncChild, options: FetchOptions, limits: Limits) -> None:
        self.is_usable = True
        self.answered = 0
        self.started_at = asyncio.get_running_loop().time()
        self._child = child
        self._max_bytes = options.max_file_bytes
        self._limits = limits
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Queue[bytes | ServiceError | None]] = {}
        self._outbox: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
        self._post(asdict(options))
        self._sender = asyncio.create_task(self._send())
        self._listener = asyncio.create_task(self._listen())

    @property
    def pid(self) -> int:
        return self._child.pid

    async def run(
        self, message: Message, payload: bytes, limit_s: float, budget: Budget | None = None
    ) -> bytes:
        """Have a request done, whose number is the message's first field; return the body."""
        number = next(self._numbers)
        answers = self._answers[number] = asyncio.Queue[bytes | ServiceError | None]()
        self._post({**message, next(iter(message)): number}, payload)
        body = bytearray()
        try:
            async with asyncio.timeout(limit_s):
                while (answer := await answers.get()) is not None:
                    if isinstance(answer, ServiceError):
                        raise answer
                    if len(body) + len(answer) > self._max_bytes:  # the process ignores the limit
                        raise FileSizeTooLarge(detail=f"was sent {len(body) + len(answer)} bytes")
                    if budget is not None:
                        budget.count(len(answer))
                    body += answer
        except TimeoutError:  # the process has the time limit too, and does not keep to it
            raise UnusableUrl(detail="no answer of the fetch process in time") from None
        finally:
            del self._answers[number]
            self._post({"cancel": number})  # which one that has ended ignores
        return bytes(body)

    async def end(self) -> None:
        """Kill the process and wait until it is gone."""
        if self.is_usable:
            self._listener.cancel()
        await asyncio.wait([self._listener])

    def _post(self, message: Message, payload: bytes = b"") -> None:
        self._outbox.put_nowait((messages.encode(message), payload))

    async def _send(self) -> None:
        with suppress(OSError):  # the listener notices as well
            while True:
                await self._child.send(*await self._outbox.get())

    async def _listen(self) -> None:
        """Receive messages until the process ends, then fail the fetches in flight."""
        cause = "was ended"
        limit_s = self._limits.start_s
        try:
            while True:
                frame = await self._child.receive(
                    within_s=limit_s, max_payload_bytes=2 * messages.PIECE_BYTES
                )
                self._handle(messages.decode(frame.header), frame.payload)
                limit_s = self._limits.silence_s
        except children.ChildLost as lost:
            cause = str(lost)
        except (FrameError, ValueError, TypeError, RecursionError) as error:
            cause = f"broke the protocol, killed: {error}"
        finally:
            await self._clean_up(cause)

    def _handle(self, message: Message, payload: bytes) -> None:
        match message:
            case {"alive": _}:
                return
            case {"piece": number}:
                self._answer(number, payload)
                if message.get("done"):
                    self._end(number, None)
            case {"failed": number}:
                self._end(number, messages.rebuild_failure(message))
            case _:
                raise ValueError("an unknown message")

    def _end(self, number: int, failure: ServiceError | None) -> None:
        self.answered += 1
        self._answer(number, failure)

    def _answer(self, number: int, answer: bytes | ServiceError | None) -> None:
        if number in self._answers:  # else it was cancelled after the process had sent this
            self._answers[number].put_nowait(answer)

    async def _clean_up(self, cause: str) -> None:
        self.is_usable = False
        self._sender.cancel()
        self._child.kill()
        end = await self._child.wait()
        await self._child.close()
        if cause != "was ended":
            fields = event("fetch_process_died", pid=self.pid, fetches=len(self._answers))
            _log.warning("the fetch process %s (%s)", cause, end, extra=fields)
        for answers in self._answers.values():
            answers.put_nowait(UnusableUrl(detail=f"the fetch process {cause} ({end})"))
