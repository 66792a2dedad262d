"""Admit requests to an executor until it stops, and wait for the end of what was admitted."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from upscaled.errors import RateLimitExceeded


class Admission:
    """Admission of requests to an executor until it stops; belongs to the event loop.

    is_draining: the executor is to report not ready; requests are still admitted until `stop`.
    """

    def __init__(self, retry_after_s: float) -> None:
        """Set the seconds after which requests refused by `stop` may be sent again."""
        self.is_draining = False
        self._retry_after_s = math.ceil(retry_after_s)
        self._is_stopping = False
        self._admitted = 0
        self._none_admitted = asyncio.Event()

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count a request as admitted during the block; RateLimitExceeded after `stop`."""
        if self._is_stopping:
            raise RateLimitExceeded(self._retry_after_s, reason="stopping", detail="stopping")
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1
            if not self._admitted:
                self._none_admitted.set()

    async def stop(self, grace_s: float) -> None:
        """Admit nothing more, and wait at most `grace_s` for the end of what was admitted."""
        self.is_draining = self._is_stopping = True
        self._none_admitted.clear()
        if self._admitted:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._none_admitted.wait()
