"""Run the MCP server: on standard input and output, or as streamable HTTP behind a key."""

import hmac
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from upscaled import __version__
from upscaled.config import Settings
from upscaled.mcp.root import RootFolder
from upscaled.mcp.service_client import ServiceClient, find_service_url, open_http
from upscaled.mcp.tools import Tools

PATH: Final = "/mcp"
_LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")
_STOP_AFTER_S: Final = 5
"""How long a stop waits for calls under way; streams of clients that listen never end."""


def build_server(service: ServiceClient, root: RootFolder | None) -> MCPServer:
    """Return the server with its tools; without a root folder those that touch files refuse."""
    where = f"Files are below {root.path}." if root else "It reads and writes no files."
    server = MCPServer(
        "upscaled",
        version=__version__,
        instructions=f"Upscales images by 2 or 4 with Real-ESRGAN. {where}",
        log_level="WARNING",  # else each refusal is a line on the client's terminal
    )
    Tools(service, root).add_to(server)
    return server


async def serve_stdio(settings: Settings, root: RootFolder | None) -> None:
    """Serve the client at standard input and output until it closes them."""
    api_key = settings.mcp_api_key.get_secret_value()
    async with open_http(api_key) as http:
        await build_server(ServiceClient(http, find_service_url(settings)), root).run_stdio_async()


async def serve_http(
    settings: Settings,
    root: RootFolder | None,
    listener: socket.socket,
    allowed_hosts: Sequence[str],
) -> None:
    """Serve streamable HTTP at `/mcp` of a listening socket until a signal stops it.

    Clients must send the settings' `mcp_api_key` too, and may name only this host or
    `allowed_hosts`, such as mcp.example.com.
    """
    api_key = settings.mcp_api_key.get_secret_value()
    async with open_http(api_key) as http:
        server = build_server(ServiceClient(http, find_service_url(settings)), root)
        app = server.streamable_http_app(
            streamable_http_path=PATH,
            transport_security=_allow(_name_hosts(listener, allowed_hosts)),
        )
        config = uvicorn.Config(
            KeyGuard(app, api_key),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_AFTER_S,
        )
        await uvicorn.Server(config).serve([listener])


class KeyGuard:
    """Middleware that answers 401 to requests without the API key."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        """Guard an application by a key; ValueError: an empty one would let every request pass."""
        if not api_key:
            raise ValueError("the key is empty")
        self._app = app
        self._api_key = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on where its key is right, and all that is no request."""
        app = self._app
        if scope["type"] == "http" and not self._has_key(Headers(scope=scope)):
            app = PlainTextResponse(
                "The API key is missing or wrong.", 401, {"WWW-Authenticate": "Bearer"}
            )
        await app(scope, receive, send)

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("X-API-KEY", "")
        return hmac.compare_digest(given.encode(), self._api_key)


def _name_hosts(listener: socket.socket, allowed_hosts: Sequence[str]) -> list[str]:
    """Return the values of `Host` that are accepted: where it listens, and what else is allowed."""
    address, port = listener.getsockname()[:2]
    ip = ipaddress.ip_address(address)
    own = f"[{address}]" if ip.version == 6 else address
    # A listener on all addresses is reached by loopback too; by what else, only the user knows.
    names = _LOOPBACK_NAMES if ip.is_loopback or ip.is_unspecified else (own,)
    return [*(f"{name}:{port}" for name in names), *allowed_hosts]


def _allow(hosts: Sequence[str]) -> TransportSecuritySettings:
    """Refuse other hosts (also by "DNS rebinding") and the web pages of other origins."""
    origins = [f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")]
    return TransportSecuritySettings(allowed_hosts=list(hosts), allowed_origins=origins)
