"""`upscaled mcp`: tools by which language models use a running service."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from upscaled.cli.console import fail
from upscaled.config import Settings, load_settings
from upscaled.config.values import require_package
from upscaled.process.listener import CannotListen, open_listener

if TYPE_CHECKING:
    from upscaled.mcp.root import RootFolder

Root = Annotated[
    Path | None,
    typer.Option(
        help="Folder that tools may read from and write to; without it they access no files."
    ),
]
Http = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        help="Serve streamable HTTP at this address (port 0: any free one) instead of standard "
        "input and output.",
    ),
]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HOST",
        help="With --http: a further Host that clients may name, such as that of a proxy.",
    ),
]


def run(root: Root = None, http: Http = "", allowed_host: AllowedHost = None) -> None:
    """Serve the Model Context Protocol: tools that upscale through a running service.

    UPSCALED_MCP_SERVICE_URL says where the service is, UPSCALED_MCP_API_KEY is
    its API key. With --http, clients send the same key, as a bearer token or
    as X-API-KEY. Needs the extra `mcp`.
    """
    settings = load_settings()
    address = _parse_address(http) if http else None
    if address and not settings.mcp_api_key.get_secret_value():
        raise fail("--http needs UPSCALED_MCP_API_KEY, which clients must send too", 2)
    try:
        require_package("the MCP server needs", "mcp")
    except ValueError as error:
        raise fail(error) from None
    folder = _open_root(root, settings)
    if address is not None:
        _serve_http(settings, folder, address, allowed_host or [])
    else:
        _serve_stdio(settings, folder)


def _serve_stdio(settings: Settings, folder: "RootFolder | None") -> None:
    import anyio

    from upscaled.mcp.server import serve_stdio

    # The thread that waits for the next line would hold Python's own handler up until it comes.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    anyio.run(serve_stdio, settings, folder)


def _serve_http(
    settings: Settings,
    folder: "RootFolder | None",
    address: tuple[str, int],
    allowed_hosts: list[str],
) -> None:
    import anyio

    host, port = address
    shown = f"[{host}]" if ":" in host else host
    try:
        listener = open_listener(host, port)
    except CannotListen as error:
        raise fail(f"cannot listen on {shown}:{port}: {error}") from None
    from upscaled.mcp.server import PATH, serve_http

    with listener:
        url = f"http://{shown}:{listener.getsockname()[1]}{PATH}"
        typer.echo(f"upscaled mcp on {url}", err=True)
        anyio.run(serve_http, settings, folder, listener, allowed_hosts)


def _open_root(root: Path | None, settings: Settings) -> "RootFolder | None":
    from upscaled.mcp.root import RootFolder

    if root is None:
        return None
    try:
        return RootFolder(root, settings.max_file_bytes)
    except OSError as error:
        raise fail(f"--root {root}: {error.strerror}", 2) from None


def _parse_address(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or parts.path:
        raise fail(f"--http {text}: must be HOST:PORT", 2)
    return host, port
