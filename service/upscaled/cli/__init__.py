"""Command line `upscaled`; a command is a module of its name, with `run` or a group `commands`."""

import gc
import inspect
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Final

import typer

from upscaled import __version__
from upscaled.config import SettingsError

COMMANDS: Final = (
    "serve",
    "image",
    "watch",
    "keys",
    "credits",
    "webhooks",
    "usage",
    "audit",
    "mcp",
    "admin",
    "models",
    "tune",
    "backup",
    "config",
    "doctor",
    "cluster",
    "completion",
    "man",
)

_SLOW_STARTS: Final = frozenset(
    {("image",), ("watch",), ("tune",), ("doctor",), ("models", "try"), ("models", "quantise")}
)
"""Commands that load torch, and perhaps measure, before they have anything to show."""


def build_app(commands: Sequence[str] = COMMANDS) -> typer.Typer:
    """Build the command line, and import only the commands named.

    The module of `serve` stays in memory as long as the service, without the others' libraries.
    """
    app = typer.Typer(
        help="Self-hosted image upscaling: the hosted POST /v1/upscale contract on your own "
        "hardware.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_upscaled)
    for command in commands:
        module = import_module(f"upscaled.cli.{command}")
        if hasattr(module, "commands"):
            app.add_typer(module.commands, name=command)
            for member in module.commands.registered_commands:
                member.help = _join_lines(member.callback.__doc__)
        else:
            app.command(command, help=_join_lines(module.run.__doc__))(module.run)
    return app


def _join_lines(docstring: str | None) -> str:
    """Return help with each paragraph on one line, for typer to wrap at the terminal's width.

    It would keep the ends of the source's lines too. What follows a colon stays on its own line.
    """
    return re.sub(r"(?<![:\n])\n(?!\n)", " ", inspect.cleandoc(docstring or ""))


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"upscaled {__version__}")
        raise typer.Exit


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


def main() -> None:
    """Run the command line; a wrong setting has exit status 2, a broken standard output 1."""
    first = "".join(sys.argv[1:2])
    commands = {"--version": ()} | {name: (name,) for name in COMMANDS}
    _announce(sys.argv[1:])
    try:
        try:
            gc.disable()  # imports make no garbage
            app = build_app(commands.get(first, COMMANDS))
            gc.enable()
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


def _announce(arguments: Sequence[str]) -> None:
    """Say on a terminal that a command with slow imports is loading, before these begin."""
    is_slow = not _SLOW_STARTS.isdisjoint({tuple(arguments[:1]), tuple(arguments[:2])})
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if is_slow and is_terminal and "--help" not in arguments:
        print("upscaled: loading; the first start may measure for a minute", file=sys.stderr)


def _why_output_fails() -> str | None:
    """Return why standard output cannot be written, or None if it can.

    A line end is written to find out. An output that fails is replaced: Python would write to it
    again at its exit.
    """
    try:
        print(flush=True)
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  as long as the process
        return error.strerror
    return None
