"""`upscaled serve`: the HTTP service and its workers."""

import sys
from typing import Annotated

import typer

from upscaled.config import load_settings


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; else UPSCALED_HOST, 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port, 0: any free one; else UPSCALED_PORT, 8000."),
    ] = None,
) -> None:
    """Serve POST /v1/upscale until stopped. Settings: see `upscaled config`."""
    given = {"host": host, "port": port}
    given = {name: value for name, value in given.items() if value is not None}
    settings = load_settings(None, **given)
    from upscaled.cli.server import CannotServe, run_server  # the whole service, seldom wanted

    try:
        run_server(settings)
    except CannotServe as error:
        print(f"upscaled: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_status) from None
