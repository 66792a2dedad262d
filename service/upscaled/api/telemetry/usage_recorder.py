"""Write the usage row of each answer of an upscale, in batches beside the requests.

Requests do not wait for the database: rows are kept in memory for a second or two, then written
together. A graceful stop writes what is left. Lost are the unwritten rows of a front end that dies,
and the oldest rows where the database fails until more than `MAX_UNWRITTEN` are waiting.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from http import HTTPStatus
from typing import Final

from upscaled.api.schemas import UPSCALE_PATH
from upscaled.api.telemetry.access_log import CLIENT_CLOSED_REQUEST, AccessRecord
from upscaled.logs import event
from upscaled.state.usage import Usage, UsageRow

FLUSH_EVERY_S: Final = 1.0
MAX_UNWRITTEN: Final = 50_000
"""Some 20 MB: a minute of the database's silence under 800 different answers a second."""

_logger: Final = logging.getLogger(__name__)


class UsageRecorder:
    """Keeps usage rows until they are written; `observe` may be called by any thread."""

    def __init__(self, usage: Usage, *, max_unwritten: int = MAX_UNWRITTEN) -> None:
        self._usage = usage
        self._max_unwritten = max_unwritten
        self._observed: deque[UsageRow] = deque()
        self._unwritten: list[UsageRow] = []
        self._has_failed = False

    def observe(self, record: AccessRecord) -> None:
        """Keep the row of a request that is over, if it was an upscale."""
        if record.route == UPSCALE_PATH and record.method == "POST":
            self._observed.append(build_row(record))

    async def run_forever(self) -> None:
        """Write rows every `FLUSH_EVERY_S`, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self.flush()

    async def close(self) -> None:
        """Write what is left; after `run_forever` has ended and the last record was observed."""
        await self.flush()
        if self._unwritten:
            self._log_loss(len(self._unwritten))

    async def flush(self) -> None:
        """Write what was observed. What cannot be written is kept for the next time."""
        observed = [self._observed.popleft() for _ in range(len(self._observed))]
        self._unwritten += merge_alike(observed)
        # Taken out only once they are written: a flush that is cancelled loses none, and the
        # next one writes none twice.
        rows = self._unwritten[:]
        if not rows:
            return
        try:
            await asyncio.to_thread(self._usage.add, rows)
        except Exception as error:  # noqa: BLE001  (every failure is tried again)
            if not self._has_failed:
                fields = event("usage_not_written", rows=len(rows))
                _logger.warning("usage cannot be written yet: %s", error, extra=fields)
            self._has_failed = True
            self._drop_oldest()
        else:
            self._has_failed = False
            del self._unwritten[: len(rows)]

    def _drop_oldest(self) -> None:
        excess = len(self._unwritten) - self._max_unwritten
        if excess > 0:
            del self._unwritten[:excess]
            self._log_loss(excess)

    def _log_loss(self, rows: int) -> None:
        _logger.error("usage rows are lost", extra=event("usage_lost", rows=rows))


def build_row(record: AccessRecord) -> UsageRow:
    is_delivered = record.device_s is not None and record.status == HTTPStatus.OK
    return UsageRow(
        int(record.ended_at_s),
        record.handling or "upscale",
        record.key_id,
        None if record.status == CLIENT_CLOSED_REQUEST else record.status,
        record.error_code,
        record.model,
        record.scale,
        record.result_format,
        _multiply(record.width_px, record.height_px),
        _multiply(record.result_width_px, record.result_height_px) if is_delivered else None,
        record.credits,
        record.device_s,
    )


def merge_alike(rows: Iterable[UsageRow]) -> list[UsageRow]:
    """Make one row of answers without an image that differ in time alone: the first one's.

    So a client that is refused a thousand times a second does not fill the disk.
    """
    merged: dict[UsageRow, UsageRow] = {}
    for row in rows:
        is_alone = row.device_s is not None
        alike = row if is_alone else replace(row, at_s=0, id=0, answers=0)
        first = merged.get(alike)
        merged[alike] = row if first is None else replace(first, answers=first.answers + 1)
    return list(merged.values())


def _multiply(width_px: int | None, height_px: int | None) -> int | None:
    return None if width_px is None or height_px is None else width_px * height_px
