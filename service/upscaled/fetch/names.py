"""Look up host names in threads of their own, so that one that hangs delays no other fetch.

A lookup may hang for half a minute, and neither Python nor the system can stop it. In the pool of
threads that everything else uses, a handful of such names would hold up all fetches.
"""

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Any, Final
from weakref import WeakValueDictionary

MAX_LOOKUPS: Final = 64
# A key whose names all lead to a name server that does not answer leaves these for the others.
MAX_LOOKUPS_PER_KEY: Final = 16

AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
"""family, kind, protocol, canonical name, socket address: as of `socket.getaddrinfo`."""


class NameLookup:
    """Resolves host names, at most `max_lookups` at a time and `max_per_key` of one API key.

    A thread whose caller gave up keeps its slot until its lookup ends. Threads are daemons: one
    that hangs does not keep the process from ending.
    """

    def __init__(
        self, max_lookups: int = MAX_LOOKUPS, max_per_key: int = MAX_LOOKUPS_PER_KEY
    ) -> None:
        self._slots = asyncio.Semaphore(max_lookups)
        self._max_per_key = max_per_key
        # Of keys that look up or wait to: each lookup holds its key's semaphore.
        self._slots_of_key: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    async def resolve(self, host: str, port: int, key_id: int = 0) -> list[AddressInfo]:
        """Return the addresses to connect to for TCP, in the system's order of preference.

        Raises:
            OSError: no such name, or no answer about it.
            UnicodeError: no name at all (a label of more than 63 characters, or an empty one).
        """
        own = self._slots_of_key.setdefault(key_id, asyncio.Semaphore(self._max_per_key))
        await own.acquire()
        try:
            await self._slots.acquire()
        except BaseException:
            own.release()
            raise
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[AddressInfo]] = loop.create_future()
        look_up = threading.Thread(
            target=self._look_up, args=(loop, answer, own, host, port), daemon=True
        )
        try:
            look_up.start()
        except RuntimeError as error:  # the system gives no further thread
            self._release(own)
            raise OSError(str(error)) from error
        return await answer

    def _look_up(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: "asyncio.Future[list[AddressInfo]]",
        own: asyncio.Semaphore,
        host: str,
        port: int,
    ) -> None:
        outcome: Any
        try:
            outcome = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            outcome = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self._finish, answer, own, outcome)

    def _finish(
        self,
        answer: "asyncio.Future[list[AddressInfo]]",
        own: asyncio.Semaphore,
        outcome: list[AddressInfo] | Exception,
    ) -> None:
        self._release(own)
        if answer.cancelled():
            return
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def _release(self, own: asyncio.Semaphore) -> None:
        self._slots.release()
        own.release()
