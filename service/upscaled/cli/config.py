"""`upscaled config`: print every setting with its value, its default and its meaning."""

from typing import Final

import typer
from rich.console import Console
from rich.table import Table

from upscaled.config import describe_settings, load_settings
from upscaled.state import hide_password

_DATABASE: Final = "UPSCALED_DATABASE_URL"


def run() -> None:
    """Print all settings: variable, value, default and meaning. Passwords are never shown.

    Settings are environment variables. Where the output is no terminal, each is one line of four
    columns with tabs between.
    """
    rows = [
        (variable, hide_password(value) if value and variable == _DATABASE else value, *rest)
        for variable, value, *rest in describe_settings(load_settings())
    ]
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table("VARIABLE", "VALUE", "DEFAULT", "MEANING", box=None, pad_edge=False)
    for variable, value, *rest in rows:
        table.add_row(variable, value, *rest)
    table.columns[0].no_wrap = True
    console.print(table)
