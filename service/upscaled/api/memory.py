"""Bound the memory for images on their way in and for unread responses, by API key.

The request queue is bounded, but a client may send its image long before the image is queued:
without a budget a few hundred uploads at once would be held in memory, to be refused one by one.
A key alone may use all of the budget. Where another key's bytes find none free, the key that holds
most, and more than the other one, loses the newest image that is still arriving; its client gets
429. An image that has arrived is never preempted: the request queue bounds those.

A result is sent in one piece, so what its client does not read is held in memory: up to 90 MB, and
for as long as a client reads a little now and then, which is no reason to cut it off. So a key with
much of that is refused new requests.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from upscaled.config import SLOTS_ON_CUDA, Settings
from upscaled.errors import RateLimitExceeded

ARRIVING_IMAGES: Final = 8
"""Images that may be arriving beyond those that may be queued or worked on."""
UNPAID_BODIES: Final = 4
"""Unfinished bodies of a key with metering on, beyond one for each credit: for requests that end
with 403 without credits, or with another error that costs none."""
RETRY_AFTER_S: Final = 5
"""Neither the speed of senders nor that of readers is known; 5 s is enough for most of both."""
MAX_UNSENT_BYTES: Final = 512 * 1024 * 1024
OUTPUT_EXTENSION: Final = "upscaled.output"
"""The key in a scope's `extensions` under which the protocol gives its `output`."""


@dataclass(slots=True, eq=False)
class _Account:
    """The bytes, requests and arriving shares of one key; `arriving` has the oldest first."""

    held_bytes: int = 0
    requests: int = 0
    bodies: int = 0
    arriving: dict["MemoryShare", None] = field(default_factory=dict)

    def newest_arriving(self) -> "MemoryShare | None":
        """Return the newest share that arrives and holds bytes; None without one."""
        return next((share for share in reversed(self.arriving) if share.size_bytes), None)


class MemoryBudget:
    """Memory budget for images, shared out between API keys; belongs to the event loop."""

    def __init__(self, limit_bytes: int) -> None:
        """Let all requests together hold `limit_bytes`."""
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._accounts: dict[int, _Account] = {}

    @contextmanager
    def share(self, key_id: int, max_bodies: int | None = None) -> Iterator["MemoryShare"]:
        """Open one request's share, returned at the end of the block.

        max_bodies: most bodies of the key that may arrive at once; None: any number.
        """
        account = self._accounts.setdefault(key_id, _Account())
        account.requests += 1
        share = MemoryShare(self, account, key_id, max_bodies)
        try:
            yield share
        finally:
            share.close()
            account.requests -= 1
            if not account.requests:
                del self._accounts[key_id]

    def has_room_for_new_key(self, size_bytes: int) -> bool:
        """Return whether an image of this size would be accepted from a key that holds none."""
        free_bytes = self.limit_bytes - self.held_bytes
        arriving_bytes = sum(
            share.size_bytes
            for account in self._accounts.values()
            if account.held_bytes > size_bytes
            for share in account.arriving
        )
        return free_bytes + arriving_bytes >= size_bytes

    def _count(self, account: _Account, size_bytes: int) -> None:
        """Count bytes for an account, and preempt others that hold more."""
        while self.held_bytes + size_bytes > self.limit_bytes:
            share = self._choose_evicted(account.held_bytes + size_bytes)
            if share is None:
                raise RateLimitExceeded(
                    RETRY_AFTER_S, reason="body_memory", detail="too many images at once"
                )
            share.preempt()
        self._change(account, size_bytes)

    def _choose_evicted(self, more_than_bytes: int) -> "MemoryShare | None":
        """Return the share to preempt: the newest that arrives, of the key that holds most."""
        larger = [each for each in self._accounts.values() if each.held_bytes > more_than_bytes]
        for account in sorted(larger, key=lambda each: each.held_bytes, reverse=True):
            if (share := account.newest_arriving()) is not None:
                return share
        return None

    def _change(self, account: _Account, size_bytes: int) -> None:
        account.held_bytes += size_bytes
        self.held_bytes += size_bytes


class MemoryShare:
    """The part of the budget that one request of a key holds."""

    def __init__(
        self, budget: MemoryBudget, account: _Account, key_id: int, max_bodies: int | None
    ) -> None:
        self.key_id = key_id
        self._budget = budget
        self._account = account
        self._max_bodies = max_bodies
        self._interrupt: asyncio.Timeout | None = None
        self._is_preempted = False
        self.size_bytes = 0

    @contextmanager
    def body(self) -> Iterator[None]:
        """Count an unfinished body for the block; RateLimitExceeded where the key has its most."""
        account = self._account
        if self._max_bodies is not None and account.bodies >= self._max_bodies:
            detail = f"the key's credits allow no more than {account.bodies} unfinished bodies"
            raise RateLimitExceeded(RETRY_AFTER_S, reason="key_bodies", detail=detail)
        account.bodies += 1
        try:
            yield
        finally:
            account.bodies -= 1

    @asynccontextmanager
    async def arriving(self) -> AsyncIterator[None]:
        """Let a key that holds less preempt the bytes of the block: RateLimitExceeded ends it."""
        try:
            async with asyncio.timeout(None) as self._interrupt:
                self._account.arriving[self] = None
                try:
                    yield
                finally:
                    self._account.arriving.pop(self, None)
        except TimeoutError:
            if not self._is_preempted:
                raise
        finally:
            self._interrupt = None  # it has the task: a cycle, once an error's frames hold this
        if self._is_preempted:
            raise _preempted()

    def count(self, size_bytes: int) -> None:
        """Count bytes that have just arrived.

        Raises:
            RateLimitExceeded: all requests together hold more than the budget, and no other key
                more than this one. Or this share was preempted.
        """
        if self._is_preempted:
            raise _preempted()
        self._budget._count(self._account, size_bytes)
        self.size_bytes += size_bytes

    def discount(self, size_bytes: int) -> None:
        """Return bytes that were counted and are held no more."""
        size_bytes = min(size_bytes, self.size_bytes)  # none are left of a share that is preempted
        self._budget._change(self._account, -size_bytes)
        self.size_bytes -= size_bytes

    def may_hold(self, size_bytes: int) -> bool:
        """Return whether so many bytes more fit the budget where no other request holds any."""
        return self.size_bytes + size_bytes <= self._budget.limit_bytes

    def preempt(self) -> None:
        """Return the bytes now and interrupt the block of `arriving`, which frees the buffers."""
        self._is_preempted = True
        self._account.arriving.pop(self, None)
        self.close()
        if self._interrupt is not None:
            self._interrupt.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        """Return the bytes to the budget."""
        self._budget._change(self._account, -self.size_bytes)
        self.size_bytes = 0


class UnsentOutput(Protocol):
    def unsent_bytes(self) -> int:
        """Return the bytes held for the client, beyond those in the kernel's buffers."""


class UnsentResponses:
    """Outputs with unsent bytes, by API key; belongs to the event loop."""

    def __init__(self, limit_bytes: int = MAX_UNSENT_BYTES) -> None:
        """Let a key have `limit_bytes` unsent, which requests in flight already may exceed."""
        self.limit_bytes = limit_bytes
        self._of_key: dict[int, set[UnsentOutput]] = {}

    def check(self, key_id: int) -> None:
        """Raise RateLimitExceeded where the key's unsent responses have `limit_bytes` or more."""
        held_bytes = self._measure(key_id)
        if held_bytes >= self.limit_bytes:
            detail = f"{held_bytes} bytes of answers are not read yet"
            raise RateLimitExceeded(RETRY_AFTER_S, reason="unread_answers", detail=detail)

    def note(self, key_id: int, output: UnsentOutput) -> None:
        """Count what is left of a response that was written to `output`."""
        self._measure(key_id)
        if output.unsent_bytes():
            self._of_key.setdefault(key_id, set()).add(output)

    def _measure(self, key_id: int) -> int:
        """Return the key's bytes, and drop outputs that hold none any more."""
        sizes = {output: output.unsent_bytes() for output in self._of_key.pop(key_id, ())}
        if held := {output for output, size_bytes in sizes.items() if size_bytes}:
            self._of_key[key_id] = held
        return sum(sizes.values())


class ImageResponse(Response):
    """Response with an image as its body, which is counted until its client has read it."""

    def __init__(self, data: bytes, media_type: str, unsent: UnsentResponses, key_id: int) -> None:
        super().__init__(data, media_type=media_type)
        self._unsent = unsent
        self._key_id = key_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        extension = scope.get("extensions", {}).get(OUTPUT_EXTENSION)
        if extension is not None:
            self._unsent.note(self._key_id, cast(UnsentOutput, extension["output"]))


def build_budget(settings: Settings) -> MemoryBudget:
    """Return a budget for every image that may be queued or worked on, and some that arrive."""
    slots = settings.all_workers * (settings.jobs_per_worker or SLOTS_ON_CUDA)
    return MemoryBudget((settings.max_queue + slots + ARRIVING_IMAGES) * settings.max_file_bytes)


def max_bodies(settings: Settings, balance: int) -> int | None:
    """Return how many unfinished bodies a key with this free balance may have; None: any number."""
    return balance + UNPAID_BODIES if settings.metering else None


def _preempted() -> RateLimitExceeded:
    return RateLimitExceeded(
        RETRY_AFTER_S, reason="gave_way", detail="another key's image needed the memory"
    )
