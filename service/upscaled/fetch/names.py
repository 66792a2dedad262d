"""Look up host names in threads of their own, so that one that hangs delays no other fetch.

A lookup may hang for half a minute, and neither Python nor the system can stop it. In the pool of
threads that everything else uses, a handful of such names would hold up all fetches.
"""

import asyncio
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

MAX_LOOKUPS: Final = 64
# A key whose names all lead to a name server that does not answer leaves these for the others.
MAX_LOOKUPS_PER_KEY: Final = 16

AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
"""family, kind, protocol, canonical name, socket address: as of `socket.getaddrinfo`."""


class NameLookup:
    """Resolves host names, at most `max_lookups` at a time and `max_per_key` of one API key.

    A thread whose caller gave up keeps its slot until its lookup ends.
    """

    def __init__(
        self, max_lookups: int = MAX_LOOKUPS, max_per_key: int = MAX_LOOKUPS_PER_KEY
    ) -> None:
        self._threads = ThreadPoolExecutor(max_lookups, thread_name_prefix="names")
        self._max_per_key = max_per_key
        # Of keys that look up or wait to: each lookup holds its key's semaphore.
        self._slots_of_key: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    async def resolve(self, host: str, port: int, key_id: int = 0) -> list[AddressInfo]:
        """Return the addresses to connect to for TCP, in the system's order of preference.

        Raises:
            OSError: no such name, no answer about it, or no thread to look it up.
            UnicodeError: no name at all (a label of more than 63 characters, or an empty one).
        """
        own = self._slots_of_key.setdefault(key_id, asyncio.Semaphore(self._max_per_key))
        await own.acquire()
        try:
            lookup: Future[Any] = self._threads.submit(
                socket.getaddrinfo, host, port, type=socket.SOCK_STREAM
            )
        except RuntimeError as error:
            own.release()
            raise OSError(str(error)) from error
        lookup.add_done_callback(partial(_release, asyncio.get_running_loop(), own))
        answer: list[AddressInfo] = await asyncio.wrap_future(lookup)
        return answer


def _release(loop: asyncio.AbstractEventLoop, slot: asyncio.Semaphore, _: Future[Any]) -> None:
    with suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(slot.release)
