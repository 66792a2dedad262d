"""The parts of the service that all requests share, the API key of each, and where URLs begin.

Where `UPSCALED_AUTH` is none, requests need no key, but those of a foreign web page are refused.
Any page that a browser of this computer shows may send requests here: it need only name this
address, or have its own name resolve to it (DNS rebinding). The browser then says by `Origin` and
`Host` which page and which name it was. Programs may write what they like there, and need not: they
could as well call the service directly.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final, cast
from urllib.parse import urlsplit

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader
from starlette.requests import Request

from upscaled.api.billing import try_often
from upscaled.api.job_runner import JobRunner
from upscaled.api.memory import MemoryBudget, UnsentResponses
from upscaled.api.progress import ProgressRelay, ProgressTracker
from upscaled.api.readiness import AutoChoiceAgreement, StateProbe
from upscaled.api.telemetry.access_log import AccessRecord, Reporter, record_of
from upscaled.api.telemetry.metrics import Metrics
from upscaled.api.telemetry.usage_recorder import UsageRecorder
from upscaled.api.webhook_sender import WebhookSender
from upscaled.config import Settings
from upscaled.errors import InvalidAuthToken
from upscaled.fetch.client import FetchClient
from upscaled.fetch.url import DEFAULT_PORTS
from upscaled.pool.executor import Executor
from upscaled.process.listener import is_loopback
from upscaled.state import LOCAL_KEY_NAME, ApiKey, Scope, State

_NOT_ALLOWED: Final = "API Token not allowed to do this"
_HEADER: Final = APIKeyHeader(
    name="X-API-KEY",
    scheme_name="ApiKey",
    description="One of the keys that `upscaled keys create` makes",
    auto_error=False,
)
_REFUSED: Final = "Host or Origin not allowed"
_DATABASE_AWAY_S: Final = 5.0
"""Longest wait of a request for a database server that is restarted; its body is not yet read."""


@dataclass(frozen=True, slots=True)
class Context:
    """The parts that all requests share, put together once by `create_app`."""

    settings: Settings
    executor: Executor
    state: State
    metrics: Metrics
    fetcher: FetchClient
    budget: MemoryBudget
    unsent: UnsentResponses
    progress: ProgressTracker
    job_runner: JobRunner
    webhook_sender: WebhookSender
    relay: ProgressRelay
    state_probe: StateProbe
    auto_choice: AutoChoiceAgreement
    reporter: Reporter
    usage: UsageRecorder


async def _get_context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


async def _get_record(request: Request) -> AccessRecord:
    return record_of(request.scope)


async def _open_stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


AppContext = Annotated[Context, Depends(_get_context)]
Record = Annotated[AccessRecord, Depends(_get_record)]
"""The access record of the request, opened by the middleware."""
UntilSent = Annotated[AsyncExitStack, Depends(_open_stack)]
"""A stack of contexts that stay open until the response is sent."""


async def authenticate(
    request: Request,
    context: AppContext,
    record: Record,
    secret: Annotated[str | None, Security(_HEADER)],
) -> ApiKey:
    """Return the API key of the request; where none is needed, `local` for one without a valid key.

    Raises:
        InvalidAuthToken: the key is missing, empty or unknown, or there are several: the same
            response for all; or none is needed, but a foreign web page sent the request.
    """
    keys = context.state.keys
    api_key = None
    # Of two, a proxy's and the client's say, each server on the way might choose another one.
    is_ambiguous = len(set(request.headers.getlist(_HEADER.model.name))) > 1
    if secret and not is_ambiguous:
        verify = partial(keys.verify, secret)
        api_key = await try_often(verify, within_s=_DATABASE_AWAY_S)
    if api_key is None and context.settings.auth == "none":
        address = (request.scope.get("server") or ("",))[0]
        refuse_foreign_page(request.headers, address, context.settings)
        find = partial(keys.find, LOCAL_KEY_NAME)
        api_key = await try_often(find, within_s=_DATABASE_AWAY_S)
    if api_key is None:
        detail = "different keys in several X-API-KEY headers" if is_ambiguous else ""
        raise InvalidAuthToken(detail=detail)
    record.key_id, record.key_name = api_key.id, api_key.name
    return api_key


AuthenticatedKey = Annotated[ApiKey, Depends(authenticate)]


def require_scope(api_key: ApiKey, scope: Scope) -> None:
    """Raise InvalidAuthToken, in a text of its own, for a key that may not be used for this."""
    if not api_key.may(scope):
        raise InvalidAuthToken(_NOT_ALLOWED, detail=f"the key lacks the scope {scope}")


@dataclass(frozen=True, slots=True)
class _Permit:
    """Dependency that returns the request's API key; raises InvalidAuthToken without the scope."""

    scope: Scope

    async def __call__(self, api_key: AuthenticatedKey) -> ApiKey:
        require_scope(api_key, self.scope)
        return api_key


@dataclass(frozen=True, slots=True)
class _Admit:
    """Dependency that returns the API key of the request, which is counted against its rate.

    Its call raises InvalidAuthToken (see `authenticate` and `require_scope`), and RateLimitExceeded
    where the key has used up its rate. scope: None where every key may.
    """

    scope: Scope | None = None

    async def __call__(self, context: AppContext, api_key: AuthenticatedKey) -> ApiKey:
        if self.scope is not None:
            require_scope(api_key, self.scope)
        await asyncio.to_thread(context.state.rate.take, api_key.id, api_key.rate)
        return api_key


AdmittedKey = Annotated[ApiKey, Depends(_Admit())]
UpscalingKey = Annotated[ApiKey, Depends(_Admit("upscale"))]
CreditsKey = Annotated[ApiKey, Depends(_Admit("credits"))]
WatchingKey = Annotated[ApiKey, Depends(_Permit("upscale"))]
JobsKey = Annotated[ApiKey, Depends(_Permit("jobs"))]


def refuse_foreign_page(headers: Mapping[str, str], address: str, settings: Settings) -> None:
    """Raise `InvalidAuthToken` unless `Host` and `Origin` are the service's own.

    headers: of the request, by names in small letters. address: the one of this machine that the
    client has reached; "" where it is unknown.
    """
    host = headers.get("host", "")
    if not _is_own_name(_split(f"//{host}")[0], address, settings):
        raise InvalidAuthToken(_REFUSED, detail="the Host is not in UPSCALED_ALLOWED_HOSTS")
    origin = headers.get("origin")
    if origin is None or origin.lower() in settings.cors_origins:
        return
    if not _is_own_origin(origin, host, settings.public_base_url):
        raise InvalidAuthToken(
            _REFUSED,
            detail="the Origin differs from the Host, see UPSCALED_PUBLIC_BASE_URL"
            " and UPSCALED_CORS_ORIGINS",
        )


def _is_own_name(name: str, address: str, settings: Settings) -> bool:
    public_name = urlsplit(settings.public_base_url).hostname
    own = {settings.host.lower(), address, public_name, *settings.allowed_hosts}
    return name != "" and (is_loopback(name) or name in own)


def _is_own_origin(origin: str, host: str, public_base_url: str) -> bool:
    """Return whether a page is the service's own: of the same name and port.

    A proxy may have removed the port from the Host, and any port could then be meant. A page of
    another port is another program's, so only the setting gives the port.
    """
    scheme = origin.partition("://")[0].lower()
    # Behind a proxy with TLS only the page has the scheme, so the port is compared in its place.
    if scheme in DEFAULT_PORTS and _split(origin) == _split(f"{scheme}://{host}"):
        return True
    is_public = scheme == urlsplit(public_base_url).scheme
    return is_public and scheme in DEFAULT_PORTS and _split(origin) == _split(public_base_url)


def _split(origin: str) -> tuple[str, int | None]:
    """Return the name and the port of an origin, or of `//HOST`; an empty name where it is none."""
    try:
        parts = urlsplit(origin)
        return parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return "", None


def find_base_url(request: Request, public_base_url: str) -> str:
    """Return where the URLs of this service begin: at the public base, or as it was called.

    That is by the Host header where it is sane (Starlette checks its characters), else the socket.
    """
    if public_base_url:
        return public_base_url
    called = str(request.base_url).rstrip("/")
    try:
        _ = urlsplit(called).port
    except ValueError:
        host, port = request.scope["server"]
        return f"{request.url.scheme}://{host}:{port}"
    return called
