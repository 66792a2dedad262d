"""Agree with the other front ends of the database on what `auto` chooses by.

Needed where pictures of one client may be made on several machines: with PostgreSQL, and on a
cluster. Until it is settled, and where this front end's workers have other models or settings,
readiness says no; the reason names both sides.
"""

import asyncio
import logging
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from upscaled.logs import event
from upscaled.pool.executor import Executor
from upscaled.process.child import ChildUnusable
from upscaled.state import State
from upscaled.state.errors import StateError
from upscaled.upscale.model_choice import AutoChoice

CHECKED_EVERY_S: Final = 5.0
RESET_COMMAND: Final = "upscaled cluster thresholds --reset"

_log: Final = logging.getLogger(__name__)


class AutoChoiceAgreement:
    """The agreement of one front end with the others.

    Attributes:
        trouble: why its pictures could differ from the others', for an operator; empty where they
            cannot.
    """

    def __init__(self, executor: Executor, state: State, *, is_needed: bool) -> None:
        self.trouble = "the thresholds of auto are not settled yet" if is_needed else ""
        self._executor = executor
        self._state = state
        self._is_needed = is_needed
        self._adopted: AutoChoice | None = None

    async def run_forever(self) -> None:
        """Settle it once a worker is ready, and look for changes until cancelled."""
        while self._is_needed:
            try:
                await self.check()
            except (ChildUnusable, SQLAlchemyError, StateError) as error:
                # Readiness says so already: no worker is ready, or the state does not work.
                _log.debug("auto is not settled: %s", error)
            await asyncio.sleep(CHECKED_EVERY_S)

    async def check(self) -> None:
        """Compare the workers' choice with the stored one, and adopt that where it fits.

        Raises:
            ChildUnusable: no worker can start.
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
        self._executor.share_choice(stored.ladders)
        self._adopted, self.trouble = stored, ""
        rungs = {f"x{scale}": _describe(stored, scale) for scale in sorted(stored.ladders)}
        _log.info("auto chooses by the database", extra=event("auto_settled", **rungs))

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
            _log.error("not ready: %s (%s)", trouble, RESET_COMMAND, extra=fields)
        self.trouble = trouble


def _describe(choice: AutoChoice, scale: int) -> str:
    return "; ".join(rung.describe() for rung in choice.ladders[scale])
