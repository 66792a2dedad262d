"""The `upscaled` command. Each command is a module here that offers `register(app)`."""

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from upscaled.cli import backup, config, credits, doctor, image, keys, models, serve, tune, watch
from upscaled.config import SettingsError

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


for _module in (serve, image, watch, keys, credits, models, tune, backup, config, doctor):
    _module.register(app)


def main() -> None:
    """Run the command line; a wrong setting is told in its own words, with exit status 2.

    So is an output that takes no more, with exit status 1.
    """
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except SettingsError as error:
        print(f"upscaled: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError:
        reason = _why_output_fails()
        if reason is None:
            raise
        print(f"upscaled: standard output: {reason}", file=sys.stderr)
        raise SystemExit(1) from None


def _why_output_fails() -> str | None:
    """None if it does not. Tried with a line end, for nothing need be left in its buffer.

    A failing output is then replaced, or Python would try again as it exits, and complain.
    """
    try:
        print(flush=True)
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  as long as the process
        return error.strerror
    return None
