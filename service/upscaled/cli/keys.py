"""`upscaled keys`: make, list, change, rename, rotate and revoke API keys.

A running server applies each change from the next request on.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from upscaled.cli import console
from upscaled.state import RateLimit
from upscaled.state.key_rows import SCOPES, KeyChanges, order_scopes
from upscaled.state.keys import MAX_KEEP_S

commands = typer.Typer(no_args_is_help=True, help="Make, list, change, rotate and revoke API keys.")

_TIMES: Final = ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ")
_TIMES_SHOWN: Final = "2027-01-31 or 2027-01-31T12:00:00Z"

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the key: letters, digits and . _ @ -")
]
PerSecond = Annotated[
    float | None,
    typer.Option("--rate", metavar="R", help="Requests a second; default: UPSCALED_RATE_PER_S."),
]
Burst = Annotated[
    int | None,
    typer.Option("--burst", metavar="B", help="Requests at once; default: UPSCALED_RATE_BURST."),
]


@commands.command("create")
def create_key(
    name: Name,
    credits: Annotated[int, typer.Option(metavar="N", min=0, help="Credits to begin with.")] = 0,
    rate: PerSecond = None,
    burst: Burst = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="DATE", help=f"When it ends, in UTC: {_TIMES_SHOWN}; by default never."
        ),
    ] = None,
    scopes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help=f"What it may be used for: {', '.join(SCOPES)}; by default all."
        ),
    ] = None,
) -> None:
    """Make an API key and print it: alone on the last line, and never again."""
    expires_at_s = None
    if expires is not None:
        with _refusing("--expires", expires, f"write {_TIMES_SHOWN}"):
            expires_at_s = _parse_end(expires)
    with console.opened_state() as state:
        secret = state.keys.create(
            name,
            credits=credits,
            rate=RateLimit(rate, burst),
            expires_at_s=expires_at_s,
            scopes=None if scopes is None else _split(scopes.lower()),
            by=console.describe_user(),
        )
    with _revoked_unless_shown(name):
        typer.echo(f"API key {name} with {credits} credits. Keep it now, it cannot be shown again:")
        typer.echo(secret)


@commands.command("list")
def list_keys(as_json: console.AsJson = False) -> None:
    """Print every key ever made, oldest first: name, state, credits, start of the secret, rate.

    A rate or burst of "-" is that of the settings, scopes of "-" are all.
    """
    with console.opened_state() as state:
        keys = state.keys.list()
    rows = [
        {
            "name": key.name,
            "state": key.state_at(time.time()),
            "credits": key.balance,
            "created": console.format_time(key.created_at_s),
            "key": key.shown_secret,
            "rate": key.rate.per_s,
            "burst": key.rate.burst,
            "expires": None if key.expires_at_s is None else console.format_time(key.expires_at_s),
            "scopes": None if key.scopes is None else order_scopes(key.scopes),
        }
        for key in keys
    ]
    names = ("name", "state", "credits", "created", "key", "rate", "burst", "expires", "scopes")
    console.print_report(names, rows, console.choose_format(as_json=as_json))


@commands.command("rate")
def set_rate(name: Name, rate: PerSecond = None, burst: Burst = None) -> None:
    """Give an API key a rate of its own; what is not given is that of the settings again."""
    own = RateLimit(rate, burst)
    with console.opened_state() as state:
        state.keys.set_rate(name, own, by=console.describe_user())
    shown = (
        f"{console.show_cell(own.per_s)} requests a second, {console.show_cell(own.burst)} at once"
    )
    typer.echo(f"API key {name}: {shown} (-: as the settings say).")


@commands.command("set")
def change_key(
    name: Name,
    rate: Annotated[
        str | None, typer.Option(metavar="R", help='Requests a second, or "settings".')
    ] = None,
    burst: Annotated[
        str | None, typer.Option(metavar="B", help='Requests at once, or "settings".')
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="DATE", help='When it ends, in UTC: 2027-01-31, or "never".'),
    ] = None,
    scopes: Annotated[
        str | None, typer.Option(metavar="A,B", help=f'{", ".join(SCOPES)}; or "all".')
    ] = None,
) -> None:
    """Change the rate, burst, end or scopes of an API key; what is not given stays as it is.

    A key that has expired is active again with a later end.
    """
    changes: KeyChanges = {}
    if rate is not None:
        with _refusing("--rate", rate, 'write a number, or "settings"'):
            changes["rate_per_s"] = None if rate == "settings" else float(rate)
    if burst is not None:
        with _refusing("--burst", burst, 'write a whole number, or "settings"'):
            changes["rate_burst"] = None if burst == "settings" else int(burst)
    if expires is not None:
        with _refusing("--expires", expires, f'write {_TIMES_SHOWN}, or "never"'):
            changes["expires_at_s"] = None if expires == "never" else _parse_end(expires)
    if scopes is not None:
        scopes = scopes.lower()
        changes["scopes"] = None if scopes == "all" else _split(scopes)
    if not changes:
        raise console.fail("name what to change: --rate, --burst, --expires or --scopes", 2)
    with console.opened_state() as state:
        state.keys.change(name, changes, by=console.describe_user())
    given = [("rate", rate), ("burst", burst), ("expires", expires), ("scopes", scopes)]
    shown = ", ".join(f"{what} {value}" for what, value in given if value is not None)
    typer.echo(f"API key {name}: {shown}.")


@commands.command("rename")
def rename_key(
    name: Name, new_name: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")]
) -> None:
    """Give an API key another name; its secret, credits and history stay."""
    with console.opened_state() as state:
        state.keys.change(name, {"name": new_name}, by=console.describe_user())
    typer.echo(f"API key {name} is now named {new_name}.")


@commands.command("rotate")
def rotate_key(
    name: Name,
    keep_hours: Annotated[
        int,
        typer.Option(
            "--keep",
            metavar="HOURS",
            min=0,
            max=MAX_KEEP_S // 3600,
            help="How long the present secret stays valid as well.",
        ),
    ] = 24,
) -> None:
    """Give an API key a new secret and print it: alone on the last line, and never again.

    The secret that it has stays valid for a day, or as long as `--keep` says, so that clients can
    change over one by one.
    """
    with console.opened_state() as state:
        secret = state.keys.rotate(name, keep_s=keep_hours * 3600, by=console.describe_user())
    typer.echo(f"API key {name} has a new secret; the one before is valid for {keep_hours} hours.")
    typer.echo(secret)


@commands.command("webhook")
def set_webhook(
    name: Name,
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="Address to call when a job of the key ends."),
    ] = None,
    new_secret: Annotated[bool, typer.Option("--new-secret", help="Make a new secret.")] = False,
) -> None:
    """Set the address of an API key's webhooks, and print the secret that signs them.

    The address is trusted: it may be in your own network. Without URL the key has none, and its
    jobs may still name theirs by X-Upscale-Webhook.
    """
    from upscaled.fetch.url import UnusableUrl, check_source_url

    try:
        checked = None if url is None else check_source_url(url)
    except UnusableUrl as error:
        raise console.fail(f"{url} cannot be called: {error.detail}", 2) from None
    with console.opened_state() as state:
        webhook = state.webhooks.configure(
            name, checked, renews_secret=new_secret, by=console.describe_user()
        )
    typer.echo(f"API key {name}: webhooks go to {webhook.url or 'no address'}. Verify them with:")
    typer.echo(webhook.secret)


@commands.command("revoke")
def revoke_key(name: Name) -> None:
    """End an API key at once. Its name is then free for a new one; its credits do not move."""
    with console.opened_state() as state:
        state.keys.revoke(name, by=console.describe_user())
    typer.echo(f"API key {name} is revoked.")


@contextmanager
def _revoked_unless_shown(name: str) -> Iterator[None]:
    """Revoke the key if the block, which prints its secret, fails."""
    try:
        if sys.stdout is None:  # it was closed before Python began; printing would do nothing
            raise typer.Exit(1)
        yield
    except BaseException:
        with console.opened_state() as state:
            state.keys.revoke(name, by=console.describe_user())
        typer.echo(f"upscaled: API key {name} could not be shown and is revoked", err=True)
        raise


@contextmanager
def _refusing(option: str, text: str, advice: str) -> Iterator[None]:
    """Refuse an option whose `text` the block cannot parse, and say what to write."""
    try:
        yield
    except ValueError:
        raise console.fail(f"{option}: {text!r} is not a valid value; {advice}", 2) from None


def _parse_end(text: str) -> int:
    for form in _TIMES:
        with suppress(ValueError):
            return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp())
    raise ValueError(text)


def _split(scopes: str) -> frozenset[str]:
    return frozenset(scopes.split(","))
