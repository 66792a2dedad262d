"""Call replicas: limit the wait for each message, and end a silent replica's call later.

Ray sends an image to the replica with the fewest calls under way. If the calls of a replica that is
cut off or hangs were ended as soon as it is silent, it would have the fewest, and would be sent the
same images again and most new ones. So would one whose device is broken and fails images at once.
"""

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from upscaled.pool.ray_serve.messages import ReplicaLost, Replicas

KEPT_S: Final = 10.0
"""Longest time for which a silent replica keeps a call: by then the cluster has noticed. One that
failed an image keeps it for as long."""


class NoAnswer(ReplicaLost):
    """A replica did not confirm receipt of an image."""


class Call:
    """One call of a replica, whose messages are received one by one. See `Calls.open`.

    is_faulty: set by the caller where the replica's device failed the image.
    """

    def __init__(self, answers: AsyncGenerator[tuple[bytes, bytes], None]) -> None:
        self._answers = answers
        self._next: asyncio.Future[tuple[bytes, bytes]] | None = None
        self._has_answered = False
        self._released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_silent = False
        self.is_faulty = False

    async def receive(self, limit_s: float) -> tuple[bytes, bytes]:
        """Return the next message, and the bytes beside it.

        Raises:
            NoAnswer: the first message did not come within `limit_s`.
            ReplicaLost: a later one did not, or there is none.
            Exception: see `Replicas.upscale`.
        """
        self._next = asyncio.ensure_future(anext(self._answers))
        done, _ = await asyncio.wait((self._next,), timeout=limit_s)
        if not done:
            self.is_silent = self._has_answered
            silence = ReplicaLost if self._has_answered else NoAnswer
            raise silence(f"silent for {limit_s:.3g} s")
        try:
            message = self._next.result()
        except StopAsyncIteration:
            raise ReplicaLost("ended without an answer") from None
        self._has_answered = True
        return message

    def release(self) -> None:
        """Have `end` wait no longer."""
        if not self._released.done():
            self._released.set_result(None)

    async def end(self, *, within_s: float = 0) -> None:
        """End the call, and so the work, after `within_s`, the next message or `release`."""
        try:
            if self.is_faulty:  # its last message has been received
                self._next = asyncio.ensure_future(anext(self._answers))
            if self._next:
                awaited = (self._next, self._released)
                await asyncio.wait(awaited, timeout=within_s, return_when=FIRST_COMPLETED)
        finally:
            if self._next and not self._next.done():
                self._next.cancel()
                await asyncio.wait((self._next,))
            if self._next and not self._next.cancelled():
                self._next.exception()  # asyncio logs what is not looked at
            await self._answers.aclose()


class Calls:
    """The calls of a front end, those of silent and faulty replicas included."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._kept: dict[asyncio.Task[None], Call] = {}

    @property
    def has_silent(self) -> bool:
        """Return whether a call of a silent replica is kept."""
        return any(call.is_silent for call in self._kept.values())

    @asynccontextmanager
    async def open(self, job: bytes, source: bytes) -> AsyncIterator[Call]:
        """Call a replica; the call ends with the block, that of a silent or faulty one later."""
        call = Call(self._replicas.upscale(job, source))
        try:
            yield call
        finally:
            if call.is_silent or call.is_faulty:
                ending = asyncio.create_task(call.end(within_s=KEPT_S))
                self._kept[ending] = call
                ending.add_done_callback(self._kept.pop)
            else:
                await call.end()

    async def close(self) -> None:
        """End the calls that are kept."""
        for call in self._kept.values():
            call.release()
        if self._kept:
            await asyncio.wait(self._kept)
