"""`upscaled serve`: the HTTP service and its workers."""

import sys
from typing import Annotated

import typer

from service.config import load_settings


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8000,
) -> None:
    """Serve POST /v1/upscale until stopped. Settings: see `upscaled config`."""
    settings = load_settings()
    from service.cli.server import CannotServe, run_server  # the whole service, seldom wanted

    try:
        run_server(settings, host, port)
    except CannotServe as error:
        print(f"upscaled: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_status) from None
