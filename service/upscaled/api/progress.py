"""Track how far each request is, so that `GET /v1/progress/{request_id}` can stream it.

Steps are not queued for watchers: one that is slow misses steps, never the last one. A request is
tracked as long as it is in flight.
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

ARRIVAL_WAIT_S: Final = 1.0
"""A watcher may come before its request, above all where a proxy holds the body back."""
MAX_WATCHERS_PER_KEY: Final = 32
"""Each watcher holds a connection: so many at most, of the hundred of one address."""


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

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.step = Step()
        self.is_ended = False
        self.error_code: str | None = None
        self._clock = clock
        self._begun_at = 0.0
        self._expected_s: float | None = None
        self._changed = Signal()

    def note_queued(self, expected_s: float | None = None) -> None:
        """Note that the image is in the request queue.

        Args:
            expected_s: how long the network is expected to take for it.
        """
        self._expected_s = expected_s
        self._set(Step("queue"))

    def note_tile(self, done: int, total: int) -> None:
        """Note tiles done, as the executor reports them: from 0, once more if a try is repeated."""
        if done == 0:
            self._begun_at = self._clock()
            self._set(Step("network", 0, total, self._expected_s))
        elif done >= total:
            self._set(Step("encode", total, total, 0.0))
        else:
            per_tile_s = (self._clock() - self._begun_at) / done
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
        """Count one more watcher of the key for the time of the block.

        Raises:
            RateLimitExceeded: the key has `MAX_WATCHERS_PER_KEY` already.
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
