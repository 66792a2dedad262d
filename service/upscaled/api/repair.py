"""Giving back the credits that are owed, ever more seldom while the database refuses."""

import asyncio
import logging
from typing import Final

from upscaled.api.charge import OnCredit
from upscaled.logs import event
from upscaled.state import Hold, State

FIRST_RETRY_S: Final = 0.5
LONGEST_RETRY_S: Final = 30.0

_logger: Final = logging.getLogger(__name__)


async def settle_owed_for_ever(state: State, on_credit: OnCredit) -> None:
    """Retry with exponential backoff what is owed, until cancelled.

    on_credit: called with "released" for each credit that was given back.
    """
    failures = 0
    while True:
        await asyncio.sleep(retry_after_s(failures))
        owed = len(state.credits.owed)
        if owed == 0:
            continue
        released: list[Hold] = []
        try:
            await asyncio.to_thread(state.credits.settle_owed, released.append)
        except Exception as error:  # noqa: BLE001  (tried again, whatever it is)
            failures += 1
            fields = event("release_failed", owed=owed, failures=failures)
            _logger.warning("owed credits could not be given back yet: %s", error, extra=fields)
        else:
            failures = 0
            fields = event("owed_released", owed=owed, released=len(released))
            _logger.info("owed credits were given back", extra=fields)
        for _ in released:  # also those given back before one failed
            on_credit("released")


def retry_after_s(failures: int) -> float:
    """The wait before the next try, `failures` tries having failed in a row."""
    return min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures, 30))
