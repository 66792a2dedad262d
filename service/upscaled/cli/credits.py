"""`upscaled credits`: add credits to a key and show its balance, for a metered service."""

from typing import Annotated

import typer

from upscaled.cli.console import opened_state

commands = typer.Typer(no_args_is_help=True, help="Add credits to a key and show what is left.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of an active key.")]


@commands.command("add")
def add_credits(
    name: Name, amount: Annotated[int, typer.Argument(metavar="N", min=1, help="How many.")]
) -> None:
    """Give a key N credits and print its balance, alone on the last line."""
    with opened_state() as state:
        balance = state.credits.add(name, amount)
    typer.echo(f"Added {amount} credits to {name}. It now has:")
    typer.echo(balance)


@commands.command("show")
def show_credits(name: Name) -> None:
    """Print the credits a key has left, alone on the last line; those on hold are not counted."""
    with opened_state() as state:
        typer.echo(state.credits.show(name))
