"""Who may ask, and how often."""

import asyncio

from starlette.requests import Request

from upscaled.api.context import context_of
from upscaled.api.telemetry.access_log import facts_of
from upscaled.errors import InvalidAuthToken
from upscaled.state import ApiKey


async def admit(request: Request) -> ApiKey:
    """The API key of the request, which then counts against its rate.

    Raises:
        InvalidAuthToken: see `identify`.
        RateLimitExceeded
    """
    api_key = await identify(request)
    await asyncio.to_thread(context_of(request).state.rate.take, api_key.id, api_key.rate)
    return api_key


async def identify(request: Request) -> ApiKey:
    """The API key of the request.

    Raises:
        InvalidAuthToken: the key is missing, empty or unknown: the same answer for all three.
    """
    state = context_of(request).state
    secret = request.headers.get("x-api-key", "")
    api_key = await asyncio.to_thread(state.keys.verify, secret) if secret else None
    if api_key is None:
        raise InvalidAuthToken
    facts_of(request).key_name = api_key.name
    return api_key
