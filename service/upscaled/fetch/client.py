"""The front end's side of the fetching process: start it when needed, talk with it, replace it.

Many fetches share one process. One that dies, hangs or talks nonsense fails the fetches it had, and
the next fetch starts another, after a wait that doubles as long as none of them got anything done.
"""

import asyncio
import itertools
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from upscaled.errors import InternalError, ServiceError
from upscaled.fetch.messages import (
    PIECE_BYTES,
    FetchOptions,
    Message,
    decode,
    encode,
    encode_url,
    rebuild_failure,
)
from upscaled.fetch.url import UnusableUrl
from upscaled.logs import event
from upscaled.process.channel import FrameError
from upscaled.process.child import AsyncChild, ChildUnusable, SpawnFailed, scrub_environment
from upscaled.process.supervision import Limits

COMMAND: Final = (sys.executable, "-m", "upscaled.fetch.child")
SILENCE_S: Final = 10.0
"""Longest silence: its event loop sends a heartbeat every second."""
START_S: Final = 30.0
"""Longest time from its start to its first message; a machine may be busy."""

# How to find authorities of TLS and host names, beside Python's libraries.
_NAMES: Final = frozenset(
    {"SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF", "RES_OPTIONS", "LOCALDOMAIN"}
)

_log: Final = logging.getLogger(__name__)

OnPiece = Callable[[bytes], None]
"""Takes the next bytes of a body; what it raises ends the fetch."""


def fetch_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the fetching process inherits of an environment: no key, no address, no home."""
    return scrub_environment(environment, _NAMES)


class FetchClient:
    """Fetches by a process of its own, which the first fetch starts. Belongs to one event loop."""

    def __init__(
        self,
        options: FetchOptions,
        command: Sequence[str] = COMMAND,
        limits: Limits | None = None,
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
        """Of the process that runs; None without one."""
        return self._process.pid if self._process and self._process.is_usable else None

    async def fetch(self, url: str, key_id: int, on_piece: OnPiece) -> None:
        """Hand the bytes behind `url` to `on_piece`, in pieces.

        Cancelled, it stops the fetch in the process too.

        Raises:
            UnusableUrl, FileSizeTooLarge: as `Fetcher.fetch`, or the process died under it.
            InternalError: no process could be started.
        """
        try:
            async with asyncio.timeout(self._options.timeout_s):
                process = await self._find_process()
        except TimeoutError:
            raise UnusableUrl(detail="no fetching process in time") from None
        await process.fetch(url, key_id, on_piece)

    async def close(self) -> None:
        """End the process, and the fetches it has."""
        if self._process is not None:
            await self._process.end()

    async def _find_process(self) -> "_FetchProcess":
        async with self._starting:
            if self._process is not None and self._process.is_usable:
                return self._process
            now = asyncio.get_running_loop().time
            if self._process is not None:
                self._note_end(self._process, now())
            await asyncio.sleep(self._start_at - now())
            try:
                child = await AsyncChild.start(self._command, fetch_environment(os.environ))
            except (SpawnFailed, ChildUnusable) as error:
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


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A fetch that was begun. Its failure is a value, for its caller may have gone."""

    on_piece: OnPiece
    failure: asyncio.Future[ServiceError | None]


class _FetchProcess:
    """One running process. `answered`: how many fetches it brought to an end."""

    def __init__(self, child: AsyncChild, options: FetchOptions, limits: Limits) -> None:
        self.is_usable = True
        self.answered = 0
        self.started_at = asyncio.get_running_loop().time()
        self._child = child
        self._limits = limits
        self._numbers = itertools.count(1)
        self._under_way: dict[int, _UnderWay] = {}
        self._outbox: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
        self._outbox.put_nowait((options.encode(), b""))
        self._sender = asyncio.create_task(self._send())
        self._listener = asyncio.create_task(self._listen())

    @property
    def pid(self) -> int:
        return self._child.pid

    async def fetch(self, url: str, key_id: int, on_piece: OnPiece) -> None:
        """As `FetchClient.fetch`."""
        number = next(self._numbers)
        under_way = _UnderWay(on_piece, asyncio.get_running_loop().create_future())
        self._under_way[number] = under_way
        self._post({"fetch": number, "key_id": key_id}, encode_url(url))
        try:
            async with asyncio.timeout(self._limits.work_s):
                failure = await under_way.failure
        except asyncio.CancelledError:
            self._post({"cancel": number})
            raise
        except TimeoutError:  # the process has the time limit too, and does not keep to it
            self._post({"cancel": number})
            raise UnusableUrl(detail="no answer of the fetching process in time") from None
        finally:
            del self._under_way[number]
        if failure is not None:
            raise failure

    async def end(self) -> None:
        """Kill the process and wait until it is gone."""
        if self.is_usable:
            self._listener.cancel()
        await asyncio.wait([self._listener])

    def _post(self, message: Message, payload: bytes = b"") -> None:
        self._outbox.put_nowait((encode(message), payload))

    async def _send(self) -> None:
        with suppress(OSError):  # the listener notices as well
            while True:
                await self._child.send(*await self._outbox.get())

    async def _listen(self) -> None:
        """Listen until the process ends, then fail what it had."""
        cause = "was ended"
        limit_s = self._limits.start_s
        try:
            while True:
                async with asyncio.timeout(limit_s):
                    frame = await self._child.receive(max_payload_bytes=2 * PIECE_BYTES)
                self._take(decode(frame.header), frame.payload)
                limit_s = self._limits.silence_s
        except TimeoutError:
            cause = f"was silent for {limit_s:g} s, killed"
        except (EOFError, OSError):
            cause = "ended"
        except (FrameError, ValueError, TypeError, RecursionError) as error:
            cause = f"broke the protocol, killed: {error}"
        finally:
            await self._clean_up(cause)

    def _take(self, message: Message, payload: bytes) -> None:
        match message:
            case {"alive": _}:
                return
            case {"piece": number}:
                self._take_piece(number, payload)
            case {"done": number}:
                self._settle(number, None)
            case {"failed": number}:
                self._settle(number, rebuild_failure(message))
            case _:
                raise ValueError("an unknown message")

    def _take_piece(self, number: int, piece: bytes) -> None:
        under_way = self._under_way.get(number)
        if under_way is None or under_way.failure.done():
            return  # it was cancelled, and this had been sent before the process heard of that
        try:
            under_way.on_piece(piece)
        except ServiceError as error:
            under_way.failure.set_result(error)
            self._post({"cancel": number})

    def _settle(self, number: int, failure: ServiceError | None) -> None:
        self.answered += 1
        under_way = self._under_way.get(number)
        if under_way is not None and not under_way.failure.done():
            under_way.failure.set_result(failure)

    async def _clean_up(self, cause: str) -> None:
        self.is_usable = False
        self._sender.cancel()
        self._child.kill()
        text = f"the fetching process {cause} ({await self._child.wait()})"
        await self._child.close()
        if cause != "was ended":
            fields = event("fetch_process_died", pid=self.pid, fetches=len(self._under_way))
            _log.warning("%s", text, extra=fields)
        for under_way in self._under_way.values():
            if not under_way.failure.done():
                under_way.failure.set_result(UnusableUrl(detail=text))
