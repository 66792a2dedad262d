"""GET /v1/credits: the balance of an API key."""

import asyncio
from typing import Final

from fastapi import APIRouter

from upscaled.api import schemas
from upscaled.api.dependencies import AppContext, CreditsKey

UNMETERED_CREDITS: Final = 1_000_000
"""The balance while metering is off: as many as you like, in a number that any client can hold."""

router = APIRouter()


@router.head("/v1/credits", include_in_schema=False)
@router.get(
    "/v1/credits",
    operation_id="get_credits",
    summary="Credits left to this API key",
    response_description=f"The balance; always {UNMETERED_CREDITS} with metering off",
    responses=schemas.KEY_ERRORS,
)
async def get_credits(context: AppContext, key: CreditsKey) -> schemas.Credits:
    """Return the balance of the key. Counts against its rate."""
    remaining = UNMETERED_CREDITS
    if context.settings.metering:
        remaining = await asyncio.to_thread(context.state.credits.balance, key.id)
    return schemas.Credits(credits_remaining=remaining, creditsRemaining=remaining)
