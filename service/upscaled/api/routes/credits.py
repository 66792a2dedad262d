"""GET /v1/credits"""

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from upscaled.api.auth import admit
from upscaled.api.context import context_of

# The answer while metering is off: "as many as you like", in a number that any client can hold.
UNMETERED_CREDITS: Final = 1_000_000


async def answer_credits(request: Request) -> Response:
    context = context_of(request)
    api_key = await admit(request)
    remaining = UNMETERED_CREDITS
    if context.settings.metering:
        remaining = await asyncio.to_thread(context.state.credits.balance, api_key.id)
    body = {"credits_remaining": remaining, "creditsRemaining": remaining}
    return JSONResponse(body, headers={"Cache-Control": "no-store"})
