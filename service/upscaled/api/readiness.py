"""Background checks: of the stored state, the thresholds of `auto`, and a shared folder.

Readiness reports the first two.

The thresholds are those that all front ends of a database share. They are needed where several
machines may upscale the pictures of one client: with PostgreSQL, and on a cluster. A front end is
not ready until it has adopted them, nor while its workers have other models or settings than the
stored ones; the reason gives both.
"""

import asyncio
import logging
import threading
from contextlib import suppress
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from upscaled.logs import event
from upscaled.pool.executor import Executor
from upscaled.process.child import ChildUnusable
from upscaled.state import State
from upscaled.state.errors import StateError, UnreadableChoice
from upscaled.upscale.model_choice import AutoChoice

PROBE_EVERY_S: Final = 5.0
PROBE_WITHIN_S: Final = 5.0
"""A result on a disk that works is stored and read back within milliseconds."""

_logger: Final = logging.getLogger(__name__)
CHECKED_EVERY_S: Final = 5.0
RESET_COMMAND: Final = "upscaled cluster thresholds --reset"
FOLDER_CHECKED_EVERY_S: Final = 60.0
_APART: Final = (
    "another front end of this database uses another data folder: URLs of results are not found at "
    "the one that did not make them, and jobs wait for the one that has their image. Set "
    "UPSCALED_RESULTS_URL to one bucket for all, or share UPSCALED_DATA_DIR"
)


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


class SharedFolder:
    """Warns where front ends of one database keep results and jobs' images in different folders."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._is_warned = False

    async def run_forever(self) -> None:
        """Check every `FOLDER_CHECKED_EVERY_S` until cancelled."""
        while True:
            with suppress(SQLAlchemyError, StateError):  # the state's own check reports it
                await self.check()
            await asyncio.sleep(FOLDER_CHECKED_EVERY_S)

    async def check(self) -> None:
        """Check once, and log that there is such a front end, once until there is none."""
        is_apart = bool(await asyncio.to_thread(self._state.find_apart))
        if is_apart and not self._is_warned:
            _logger.warning(_APART, extra=event("results_not_shared"))
        self._is_warned = is_apart


class AutoChoiceAgreement:
    """Keeps one front end to the stored thresholds of `auto`, and reports why it cannot.

    trouble: why its results could differ from other front ends'; "" if they cannot.
    """

    def __init__(self, executor: Executor, state: State, *, is_needed: bool) -> None:
        self.trouble = "the thresholds of auto are not settled yet" if is_needed else ""
        self._executor = executor
        self._state = state
        self._is_needed = is_needed
        self._adopted: AutoChoice | None = None

    async def run_forever(self) -> None:
        """Adopt the thresholds once a worker is ready, and each change of them, until cancelled."""
        while self._is_needed:
            try:
                await self.check()
            except UnreadableChoice as error:
                self._note_unreadable(error)
            except (ChildUnusable, SQLAlchemyError, StateError) as error:
                # Readiness reports it already: no worker is ready, or the database does not work.
                _logger.debug("auto is not settled: %s", error)
            await asyncio.sleep(CHECKED_EVERY_S)

    async def check(self) -> None:
        """Compare the workers' choice with the stored one, and adopt that where it fits.

        Raises:
            ChildUnusable: no worker can start.
            UnreadableChoice: the stored one is damaged, or another version's.
            StateError, SQLAlchemyError: the database does not work.
        """
        own = await self._executor.own_choice()
        stored = None
        if self._adopted is not None and self._adopted.plans == own.plans:
            # A choice that was reset is written by a front end that starts, not by this one.
            stored = await asyncio.to_thread(self._state.auto_choice.confirm, own)
            if stored is None or stored == self._adopted:
                return
        if stored is None or stored.plans != own.plans:
            stored = await asyncio.to_thread(self._state.auto_choice.settle, own)
        if stored.plans != own.plans:
            self._adopted = None
            self._note_difference(own, stored)
            return
        self._executor.adopt_ladders(stored.ladders)
        self._adopted, self.trouble = stored, ""
        rungs = {f"x{scale}": _describe(stored, scale) for scale in sorted(stored.ladders)}
        _logger.info(
            "auto uses the thresholds in the database", extra=event("auto_settled", **rungs)
        )

    def _note_unreadable(self, error: UnreadableChoice) -> None:
        """Report not ready until the stored choice is reset; then this front end may write it."""
        self._adopted = None
        if self.trouble != str(error):
            _logger.error(
                "not ready: %s (%s)", error, RESET_COMMAND, extra=event("auto_unreadable")
            )
        self.trouble = str(error)

    def _note_difference(self, own: AutoChoice, stored: AutoChoice) -> None:
        scale = next(
            scale
            for scale in sorted(own.plans.keys() | stored.plans.keys())
            if own.plans.get(scale) != stored.plans.get(scale)
        )
        here, there = (each.plans.get(scale, "nothing") for each in (own, stored))
        trouble = f"auto differs at x{scale}: here {here}; in the database {there}"
        if trouble != self.trouble:
            fields = event("auto_differs", scale=scale)
            _logger.error("not ready: %s (%s)", trouble, RESET_COMMAND, extra=fields)
        self.trouble = trouble


def _describe(choice: AutoChoice, scale: int) -> str:
    return "; ".join(rung.describe() for rung in choice.ladders[scale])
