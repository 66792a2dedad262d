"""`upscaled keys`: make, list and revoke API keys. A running server notices at once."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer

from service.cli.columns import print_columns
from service.cli.stored import opened_state
from service.state import ListedKey

commands = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the key: letters, digits and . _ @ -")
]


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="keys")


@commands.command("create")
def create_key(
    name: Name,
    credits: Annotated[int, typer.Option(metavar="N", min=0, help="Credits to begin with.")] = 0,
) -> None:
    """Make an API key and print it: alone on the last line, and never again."""
    with opened_state() as state:
        secret = state.keys.create(name, credits=credits)
    with _revoked_unless_shown(name):
        typer.echo(f"API key {name} with {credits} credits. Keep it now, it cannot be shown again:")
        typer.echo(secret)


@commands.command("list")
def list_keys() -> None:
    """Print every key ever made, oldest first: its name, state, credits and beginning."""
    with opened_state() as state:
        keys = state.keys.list()
    rows = [
        (key.name, _state(key), str(key.balance), _as_text(key.created_at_s), key.shown_secret)
        for key in keys
    ]
    print_columns([("NAME", "STATE", "CREDITS", "CREATED", "KEY"), *rows])


@commands.command("revoke")
def revoke_key(name: Name) -> None:
    """End an API key at once. Its name is then free for a new one; its credits do not move."""
    with opened_state() as state:
        state.keys.revoke(name)
    typer.echo(f"API key {name} is revoked.")


@contextmanager
def _revoked_unless_shown(name: str) -> Iterator[None]:
    """A secret that nobody saw must not stay active."""
    try:
        if sys.stdout is None:  # it was closed before Python began; printing would do nothing
            raise typer.Exit(1)
        yield
    except BaseException:
        with opened_state() as state:
            state.keys.revoke(name)
        typer.echo(f"upscaled: API key {name} could not be shown and is revoked", err=True)
        raise


def _state(key: ListedKey) -> str:
    return "active" if key.revoked_at_s is None else "revoked"


def _as_text(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
