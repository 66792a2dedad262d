"""Looking up host names without ever standing in each other's way.

A lookup may hang for half a minute, and neither Python nor the system can stop it. In the pool of
threads that everything else uses, a handful of such names would hold up the whole service.
"""

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult

MAX_LOOKUPS: Final = 64

AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]


class NameLookup(AbstractResolver):
    """aiohttp's resolver over threads of its own, at most `max_lookups` at a time.

    A thread whose caller gave up keeps its place until its lookup ends. Threads are daemons: one
    that hangs does not keep the process from ending.
    """

    def __init__(self, max_lookups: int = MAX_LOOKUPS) -> None:
        self._places = asyncio.Semaphore(max_lookups)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """
        Raises:
            OSError: no such name, or no answer about it.
        """
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[AddressInfo]] = loop.create_future()
        look_up = threading.Thread(
            target=self._look_up, args=(loop, answer, host, port, family), daemon=True
        )
        look_up.start()
        return [
            ResolveResult(
                hostname=host,
                host=str(where[0]),
                port=int(where[1]),
                family=found,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, protocol, _, where in await answer
        ]

    async def close(self) -> None:
        """Nothing to close: it outlives the connectors that use it."""

    def _look_up(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: "asyncio.Future[list[AddressInfo]]",
        host: str,
        port: int,
        family: socket.AddressFamily,
    ) -> None:
        outcome: Any
        try:
            outcome = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            outcome = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self._finish, answer, outcome)

    def _finish(
        self, answer: "asyncio.Future[list[AddressInfo]]", outcome: list[AddressInfo] | Exception
    ) -> None:
        self._places.release()
        if answer.cancelled():
            return
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)
