"""`upscaled credits`: change the credits of keys and show balances, for a metered service."""

from typing import Annotated

import typer

from upscaled.cli.console import describe_user, opened_state, print_columns

commands = typer.Typer(no_args_is_help=True, help="Add, take, move and show the credits of keys.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of an active key.")]


Amount = Annotated[int, typer.Argument(metavar="N", min=1, help="Number of credits.")]


@commands.command("add")
def add_credits(name: Name, amount: Amount) -> None:
    """Give a key N credits and print its balance, alone on the last line."""
    with opened_state() as state:
        balance = state.credits.add(name, amount, by=describe_user())
    typer.echo(f"Added {amount} credits to {name}. It now has:")
    typer.echo(balance)


@commands.command("take")
def take_credits(name: Name, amount: Amount) -> None:
    """Take N credits from a key, which must have them, and print its balance on the last line."""
    with opened_state() as state:
        balance = state.credits.take(name, amount, by=describe_user())
    typer.echo(f"Took {amount} credits from {name}. It now has:")
    typer.echo(balance)


@commands.command("transfer")
def transfer_credits(
    name: Name,
    to_name: Annotated[str, typer.Argument(metavar="TO", help="Name of the key that gets them.")],
    amount: Amount,
) -> None:
    """Move N credits from one key to another and print both balances."""
    with opened_state() as state:
        balances = state.credits.transfer(name, to_name, amount, by=describe_user())
    typer.echo(f"Moved {amount} credits from {name} to {to_name}. They now have:")
    print_columns([(each, str(left)) for each, left in zip((name, to_name), balances, strict=True)])


@commands.command("show")
def show_credits(name: Name) -> None:
    """Print the credits a key has left, alone on the last line; those on hold are not counted."""
    with opened_state() as state:
        typer.echo(state.credits.show(name))
