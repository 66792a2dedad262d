"""Let only administrators through to `/admin/v1`, before anything of a request is read.

The settings hold the SHA-256 of each key: a key is 256 random bits, so no slow hash is needed, and
a listing of the settings reveals no key.
"""

import hmac
import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from fastapi import Security
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from upscaled.api.errors import handle_error
from upscaled.api.protocol.registry import parse_address, subscriber_of
from upscaled.api.telemetry.access_log import record_of
from upscaled.errors import InvalidAuthToken, RateLimitExceeded
from upscaled.state.key_rows import hash_secret

ADMIN_API: Final = "/admin/v1"
ADMIN_KEY: Final = Security(
    HTTPBearer(
        scheme_name="AdminKey",
        description="A key that `upscaled admin key` makes",
        auto_error=False,  # the middleware has checked it
    )
)
"""The dependency that marks an endpoint in the OpenAPI document as needing a key."""
MAX_FAILURES: Final = 10
WINDOW_S: Final = 60.0
"""An address that has sent so many wrong keys within this time is refused until it is over."""
MAX_ADDRESSES: Final = 4096
"""Bounds the memory for failures; the address that failed first is removed."""
_SCHEME: Final = "bearer "


class GuessLimiter:
    """Refuses addresses that have sent too many wrong keys; on the event loop only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By network: how many failures, and when their window ends.
        self._failures: dict[str, tuple[int, float]] = {}

    def check(self, address: str) -> None:
        """Raise RateLimitExceeded for an address that failed too often, also with a right key."""
        network = _network_of(address)
        count, ends_s = self._failures.get(network, (0, 0.0))
        left_s = ends_s - self._clock()
        if left_s <= 0:
            self._failures.pop(network, None)
        elif count >= MAX_FAILURES:
            raise RateLimitExceeded(math.ceil(left_s), reason="admin_guesses", detail=network)

    def note_failure(self, address: str) -> None:
        network = _network_of(address)
        count, ends_s = self._failures.get(network, (0, self._clock() + WINDOW_S))
        self._failures[network] = (count + 1, ends_s)
        if len(self._failures) > MAX_ADDRESSES:
            del self._failures[next(iter(self._failures))]


class AdminKeyMiddleware:
    """Answer 401 to requests under `ADMIN_API` without the key of an administrator.

    The name of the administrator goes to the endpoint, and to the access record.
    """

    def __init__(self, app: ASGIApp, hashes: Mapping[str, str], limiter: GuessLimiter) -> None:
        """Guard an application by the SHA-256 `hashes` of administrators' keys, by name."""
        self.app = app
        self._hashes = hashes
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_below(scope["path"], ADMIN_API):
            try:
                scope["state"]["admin_name"] = self._authenticate(scope)
            except (InvalidAuthToken, RateLimitExceeded) as error:
                response = await handle_error(Request(scope), error)
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _authenticate(self, scope: Scope) -> str:
        client = scope.get("client")
        address = client[0] if client else ""
        self._limiter.check(address)
        header = Headers(scope=scope).get("authorization", "")
        secret = header[len(_SCHEME) :].strip() if header.lower().startswith(_SCHEME) else ""
        name = self._find_name(secret)
        if name is None:
            if secret:  # none at all guesses nothing, as of a probe or of a page's first call
                self._limiter.note_failure(address)
            raise InvalidAuthToken("An administrator's key is needed")
        record_of(scope).key_name = f"admin:{name}"
        return name

    def _find_name(self, secret: str) -> str | None:
        """Return the name of the key's administrator, in a time that does not show which one.

        An empty secret is no key, though its hash may be in the settings: of a variable that was
        not set when it was computed.
        """
        if not secret:
            return None
        sent = hash_secret(secret)
        found = [name for name, kept in self._hashes.items() if hmac.compare_digest(kept, sent)]
        return found[0] if found else None


def is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def _network_of(address: str) -> str:
    """Return what counts as one address, see `subscriber_of`."""
    ip = parse_address(address)
    return address if ip is None else subscriber_of(ip)
