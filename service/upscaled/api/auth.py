"""Authenticate a request by its API key, and count it against the key's rate."""

import asyncio
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader

from upscaled.api.context import AppContext, Record
from upscaled.errors import InvalidAuthToken
from upscaled.state import ApiKey

_HEADER = APIKeyHeader(
    name="X-API-KEY",
    scheme_name="ApiKey",
    description="One of the keys that `upscaled keys create` makes",
    auto_error=False,
)


async def authenticate(
    context: AppContext, record: Record, secret: Annotated[str | None, Security(_HEADER)]
) -> ApiKey:
    """Return the API key of the request.

    Raises:
        InvalidAuthToken: the key is missing, empty or unknown: the same response for all three.
    """
    api_key = await asyncio.to_thread(context.state.keys.verify, secret) if secret else None
    if api_key is None:
        raise InvalidAuthToken
    record.key_name = api_key.name
    return api_key


async def admit(context: AppContext, api_key: Annotated[ApiKey, Depends(authenticate)]) -> ApiKey:
    """Return the API key of the request, which is counted against its rate.

    Raises:
        InvalidAuthToken: see `authenticate`.
        RateLimitExceeded: the key has used up its rate.
    """
    await asyncio.to_thread(context.state.rate.take, api_key.id, api_key.rate)
    return api_key


AuthenticatedKey = Annotated[ApiKey, Depends(authenticate)]
AdmittedKey = Annotated[ApiKey, Depends(admit)]
