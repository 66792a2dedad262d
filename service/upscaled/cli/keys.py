"""`upscaled keys`: make, list and revoke API keys, and set their rates.

A running server applies each change from the next request on.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer

from upscaled.cli.console import opened_state, print_columns
from upscaled.state import RateLimit

commands = typer.Typer(
    no_args_is_help=True, help="Make, list and revoke API keys, and set their rates."
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the key: letters, digits and . _ @ -")
]
PerSecond = Annotated[
    float | None,
    typer.Option("--rate", metavar="R", help="Requests a second; not given: UPSCALED_RATE_PER_S."),
]
Burst = Annotated[
    int | None,
    typer.Option("--burst", metavar="B", help="Requests at once; not given: UPSCALED_RATE_BURST."),
]


@commands.command("create")
def create_key(
    name: Name,
    credits: Annotated[int, typer.Option(metavar="N", min=0, help="Credits to begin with.")] = 0,
    rate: PerSecond = None,
    burst: Burst = None,
) -> None:
    """Make an API key and print it: alone on the last line, and never again."""
    with opened_state() as state:
        secret = state.keys.create(name, credits=credits, rate=RateLimit(rate, burst))
    with _revoked_unless_shown(name):
        typer.echo(f"API key {name} with {credits} credits. Keep it now, it cannot be shown again:")
        typer.echo(secret)


@commands.command("list")
def list_keys() -> None:
    """Print every key ever made, oldest first: name, state, credits, its beginning and its rate.

    A rate or burst of "-" is that of the settings.
    """
    with opened_state() as state:
        keys = state.keys.list()
    rows = [
        (
            key.name,
            "active" if key.revoked_at_s is None else "revoked",
            str(key.balance),
            _as_text(key.created_at_s),
            key.shown_secret,
            _or_dash(key.rate.per_s),
            _or_dash(key.rate.burst),
        )
        for key in keys
    ]
    print_columns([("NAME", "STATE", "CREDITS", "CREATED", "KEY", "RATE", "BURST"), *rows])


@commands.command("rate")
def set_rate(name: Name, rate: PerSecond = None, burst: Burst = None) -> None:
    """Give an API key a rate of its own; what is not given is that of the settings again."""
    own = RateLimit(rate, burst)
    with opened_state() as state:
        state.keys.set_rate(name, own)
    shown = f"{_or_dash(own.per_s)} requests a second, {_or_dash(own.burst)} at once"
    typer.echo(f"API key {name}: {shown} (-: as the settings say).")


@commands.command("revoke")
def revoke_key(name: Name) -> None:
    """End an API key at once. Its name is then free for a new one; its credits do not move."""
    with opened_state() as state:
        state.keys.revoke(name)
    typer.echo(f"API key {name} is revoked.")


@contextmanager
def _revoked_unless_shown(name: str) -> Iterator[None]:
    """Revoke the key if the block, which prints its secret, fails."""
    try:
        if sys.stdout is None:  # it was closed before Python began; printing would do nothing
            raise typer.Exit(1)
        yield
    except BaseException:
        with opened_state() as state:
            state.keys.revoke(name)
        typer.echo(f"upscaled: API key {name} could not be shown and is revoked", err=True)
        raise


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.15g}"


def _as_text(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
