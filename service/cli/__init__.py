"""The `upscaled` command. Each command is a module here that offers `register(app)`."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from service.cli import config, credits, image, keys, models, serve
from service.config import SettingsError

app = typer.Typer(
    help="Self-hosted image upscaling: the hosted POST /v1/upscale contract on your own hardware.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"upscaled {version('upscaled')}")
        raise typer.Exit


@app.callback()
def _upscaled(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    # Options before the command; each command is a function of its own.
    pass


for _module in (serve, image, keys, credits, models, config):
    _module.register(app)


def main() -> None:
    """Run the command line; a wrong setting is told in its own words, with exit status 2."""
    try:
        app()
    except SettingsError as error:
        print(f"upscaled: {error}", file=sys.stderr)
        raise SystemExit(2) from None
