"""`upscaled admin`: make the keys of administrators over HTTP."""

import secrets
from typing import Annotated, Final

import typer

from upscaled.cli.console import fail

ADMIN_PREFIX: Final = "upa_"
"""The beginning of an administrator's key, by which scanners find a leaked one."""

commands = typer.Typer(no_args_is_help=True, help="Make keys for administration over HTTP.")


@commands.callback()
def _group() -> None:
    # With one command alone, typer would make it the group itself.
    pass


@commands.command("key")
def make_admin_key(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the administrator, for the audit log.")
    ],
) -> None:
    """Make an administrator's key: the setting to add, and the key alone on the last line.

    Nothing is stored: the key counts once the server is started with the setting, and ends when it
    is started without.
    """
    from upscaled.state.errors import InvalidValue
    from upscaled.state.key_rows import check_name, hash_secret

    try:
        check_name(name, "an administrator")
    except InvalidValue as error:
        raise fail(error, 2) from None
    secret = f"{ADMIN_PREFIX}{secrets.token_urlsafe(32)}"
    typer.echo("Start the server with this setting; several are separated by commas:")
    typer.echo(f"UPSCALED_ADMIN_KEYS={name}:{hash_secret(secret)}")
    typer.echo("The key, which cannot be shown again:")
    typer.echo(secret)
