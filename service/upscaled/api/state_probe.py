"""Check the stored state in the background; readiness reports the last result."""

import asyncio
import logging
import threading
from contextlib import suppress
from typing import Final

from upscaled.logs import event
from upscaled.state import State

PROBE_EVERY_S: Final = 5.0
PROBE_WITHIN_S: Final = 5.0
"""A result on a disk that works is stored and read back within milliseconds."""

_logger: Final = logging.getLogger(__name__)


class StateProbe:
    """A repeated check of the stored state; `trouble` says why it does not work, or is empty."""

    def __init__(self, state: State) -> None:
        self.trouble = "not checked yet"
        self._state = state
        self._pending: asyncio.Future[str] | None = None

    async def run_forever(self) -> None:
        """Check every `PROBE_EVERY_S` until cancelled."""
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            await self.check()

    async def check(self) -> None:
        """Check once; a check that takes longer than `PROBE_WITHIN_S` is trouble by itself.

        A check that hangs is awaited again the next time, so that checks never pile up.
        """
        pending = self._pending or self._start()
        done, _ = await asyncio.wait([pending], timeout=PROBE_WITHIN_S)
        self._pending = None if done else pending
        self._note(pending.result() if done else f"no answer within {PROBE_WITHIN_S:g} s")

    def _start(self) -> "asyncio.Future[str]":
        """Run the check in a thread of its own: those that requests share may all be stuck."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        def settle(trouble: str) -> None:
            if not answer.done():
                answer.set_result(trouble)

        def run() -> None:
            try:
                trouble = self._state.find_trouble()
            except Exception as error:
                _logger.exception("the check of the state failed", extra=event("crash"))
                trouble = f"{type(error).__name__}: {error}"
            with suppress(RuntimeError):  # the event loop was closed meanwhile
                loop.call_soon_threadsafe(settle, trouble)

        threading.Thread(target=run, name="state-probe", daemon=True).start()
        return answer

    def _note(self, trouble: str) -> None:
        """Log the beginning, each change of the cause, and the end."""
        before, self.trouble = self.trouble, trouble
        if trouble and trouble != before:
            _logger.error("not ready: %s", trouble, extra=event("state_unusable"))
        elif before and not trouble:
            _logger.info("the stored state works", extra=event("state_usable"))
