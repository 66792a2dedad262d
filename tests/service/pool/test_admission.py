"""Admission to an executor: a stop waits for what was admitted, and lets nothing more in."""

import asyncio

import pytest

from upscaled.errors import RateLimitExceeded
from upscaled.pool.admission import Admission

NEVER_S = 1000


async def test_a_stop_lasts_until_what_was_admitted_has_ended_and_no_longer() -> None:
    admission = Admission(4.2)
    with admission.admit():
        with admission.admit():
            stopping = asyncio.create_task(admission.stop(NEVER_S))
            await asyncio.sleep(0)
            with pytest.raises(RateLimitExceeded) as refused, admission.admit():
                pass
            assert (refused.value.reason, refused.value.retry_after_s) == ("stopping", 5)
        await asyncio.sleep(0)
        assert not stopping.done()
    async with asyncio.timeout(60):
        await stopping


@pytest.mark.parametrize("were_admitted", [0, 2])
async def test_a_stop_waits_for_nothing_where_all_have_ended(were_admitted: int) -> None:
    admission = Admission(1)
    for _ in range(were_admitted):
        with admission.admit():
            pass
    async with asyncio.timeout(60):
        await admission.stop(NEVER_S)


async def test_a_stop_waits_no_longer_than_its_grace() -> None:
    admission = Admission(1)
    with admission.admit():
        await admission.stop(0.01)
