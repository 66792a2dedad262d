"""How far each request is, for the key that sent it: what `GET /v1/progress/{request_id}` shows.

Nothing is queued for anyone: a watcher that is slow misses steps, never the last one. An entry
lives as long as its request.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from upscaled.errors import InternalError, RateLimitExceeded, ServiceError

Stage = Literal["receive", "queue", "network", "encode"]

# A watcher may come a moment before its request, above all where a proxy holds the body back.
ARRIVAL_WAIT_S: Final = 1.0
MAX_WATCHERS_PER_KEY: Final = 32


@dataclass(frozen=True, slots=True)
class Step:
    """`receive`: head and body, or the fetching of `image_url`. `queue`: waiting, then decoding.

    `remaining_s` is for the network alone: before the first tile what the model is expected to take
    for a picture of that size, then from the tiles done so far. None where neither is known.
    """

    stage: Stage = "receive"
    tiles_done: int = 0
    tiles_total: int | None = None
    remaining_s: float | None = None


class Signal:
    """Wakes everyone who waits at that moment; belongs to the event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def send(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        await self._event.wait()


class Progress:
    """One request: written by itself, read by its watchers. `error_code` is for once it ended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.step = Step()
        self.is_ended = False
        self.error_code: str | None = None
        self._clock = clock
        self._begun_at = 0.0
        self._expected_s: float | None = None
        self._changed = Signal()

    def await_turn(self, expected_s: float | None = None) -> None:
        """The source is there, and goes to a worker as soon as one is free.

        expected_s: how long it will take there.
        """
        self._expected_s = expected_s
        self._take(Step("queue"))

    def note_tile(self, done: int, total: int) -> None:
        """As `OnTile` of the boundary: before the first tile, after each, from 0 if all over."""
        if done == 0:
            self._begun_at = self._clock()
            self._take(Step("network", 0, total, self._expected_s))
        elif done >= total:
            self._take(Step("encode", total, total, 0.0))
        else:
            per_tile_s = (self._clock() - self._begun_at) / done
            self._take(Step("network", done, total, per_tile_s * (total - done)))

    def end(self, error_code: str | None) -> None:
        self.is_ended = True
        self.error_code = error_code
        self._changed.send()

    async def wait_beyond(self, step: Step) -> None:
        """Return once there is something to say after `step`."""
        while self.step is step and not self.is_ended:
            await self._changed.wait()

    def _take(self, step: Step) -> None:
        self.step = step
        self._changed.send()


class ProgressBoard:
    """The requests under way, by API key and request id; the later of two with one id is shown."""

    def __init__(self, arrival_wait_s: float = ARRIVAL_WAIT_S) -> None:
        self.arrival_wait_s = arrival_wait_s
        self._under_way: dict[tuple[int, str], Progress] = {}
        self._watchers: Counter[int] = Counter()
        self._arrived = Signal()

    @contextmanager
    def show(self, key_id: int, request_id: str) -> Iterator[Progress]:
        """A request's own entry, for the time of the block."""
        name = (key_id, request_id)
        progress = self._under_way[name] = Progress()
        self._arrived.send()
        error_code: str | None = InternalError.error_code
        try:
            yield progress
            error_code = None
        except ServiceError as error:
            error_code = error.error_code
            raise
        finally:
            if self._under_way.get(name) is progress:
                del self._under_way[name]
            progress.end(error_code)

    @contextmanager
    def admit_watcher(self, key_id: int) -> Iterator[None]:
        """A place among the key's watchers, for the time of the block.

        Raises:
            RateLimitExceeded: it has `MAX_WATCHERS_PER_KEY` already.
        """
        if self._watchers[key_id] >= MAX_WATCHERS_PER_KEY:
            detail = f"key {key_id} watches too many requests"
            raise RateLimitExceeded(1, reason="watchers", detail=detail)
        self._watchers[key_id] += 1
        try:
            yield
        finally:
            self._watchers[key_id] -= 1
            self._watchers += Counter()  # keys without watchers leave no trace

    async def find(self, key_id: int, request_id: str) -> Progress | None:
        """The key's request of this id; None if there is none within `arrival_wait_s`."""
        try:
            async with asyncio.timeout(self.arrival_wait_s):
                while (key_id, request_id) not in self._under_way:
                    await self._arrived.wait()
        except TimeoutError:
            return None
        return self._under_way[key_id, request_id]
