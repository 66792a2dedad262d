"""Print a command's columns, reports and errors, and open the state, as all commands do."""

import errno
import logging
import os
import pwd
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import typer

from upscaled.config import load_settings
from upscaled.logs import ROOM_WAIT_S, event, has_room

if TYPE_CHECKING:
    from upscaled.state import State
import csv
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

_log: Final = logging.getLogger(__name__)
Format = Literal["columns", "json", "csv"]

Since = Annotated[
    str,
    typer.Option(
        metavar="WHEN",
        help="Start of the report: an age (7d or 12h), or in UTC a date (2026-11-01) or a time "
        "(2026-11-01T12:00:00Z).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV with a line of names.")]

_AGO: Final = re.compile(r"([0-9]{1,5})([dh])")


class CannotServe(Exception):
    """The service does not start; the text gives the reason, and the command ends with a status."""

    exit_status = 1


class CannotUpscale(CannotServe):
    """No worker can start with these settings: a model or the device is missing."""

    exit_status = 2


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns as wide as their widest cell, one line each, for people and `awk`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def announce(text: str) -> None:
    """Print a line of the server's, whose work does not depend on it.

    An output that cannot be written (its reader is gone or hangs, its disk is full) is replaced:
    Python would write to it again at its exit. The loss is logged.
    """
    try:
        if not has_room(sys.stdout, ROOM_WAIT_S):
            raise BlockingIOError(errno.EAGAIN, "it is full and nothing reads it")
        print(text, flush=True)
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  as long as the process
        _log.warning(
            "standard output cannot be written (%s): what the start prints is lost, an API key too",
            error.strerror,
            extra=event("stdout_unusable"),
        )


def fail(reason: object, status: int = 1) -> typer.Exit:
    """Print why the command fails to standard error, and return the exit to raise."""
    typer.echo(f"upscaled: {reason}", err=True)
    return typer.Exit(status)


def describe_user() -> str:
    """Return who runs this command, for the audit log: user and machine, and whom sudo serves."""
    user_id = os.getuid()
    try:
        user = pwd.getpwuid(user_id).pw_name
    except KeyError:  # a container's user needs no name
        user = str(user_id)
    if (asking := os.environ.get("SUDO_USER")) and user_id == 0:
        user = f"{user} for {asking}"
    return f"{user}@{socket.gethostname()}"


@contextmanager
def opened_state() -> Iterator["State"]:
    """Open the state that the settings name, which is safe while a server uses it too.

    Where it fails the command ends with status 1; standard error says why.
    """
    # Not at the top: the commands about models need no database library.
    from upscaled.state import StateError, open_state
    from upscaled.state.errors import describe_failure

    try:
        with open_state(load_settings()) as state:
            yield state
    except (StateError, OSError) as error:
        raise fail(describe_failure(error)) from None


def parse_time(text: str, option: str, now: datetime) -> datetime:
    """Return the time that an option names: an age before `now`, a date or a time, in UTC.

    Anything else ends the command with status 2.
    """
    if ago := _AGO.fullmatch(text):
        number = int(ago[1])
        return now - (timedelta(days=number) if ago[2] == "d" else timedelta(hours=number))
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        reason = f"{option}: {text!r} is no time; write 7d, 12h, 2026-11-01 or 2026-11-01T12:00:00Z"
        raise fail(reason, 2) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def choose_format(*, as_json: bool, as_csv: bool = False) -> Format:
    """Return the format of a report; asking for both ends the command with status 2."""
    if as_json and as_csv:
        raise fail("--json and --csv are two formats; choose one", 2)
    return "json" if as_json else "csv" if as_csv else "columns"


def print_report(
    names: Sequence[str], rows: Sequence[Mapping[str, object]], report_format: Format
) -> None:
    """Print rows that have a cell for each name; one that is not known is None, "-" in columns."""
    if report_format == "json":
        typer.echo(json.dumps(rows, indent=2))
    elif report_format == "csv":
        writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        heads = [name.upper().replace("_", " ") for name in names]
        print_columns([heads, *([show_cell(row[name]) for name in names] for row in rows)])


def show_cell(cell: object) -> str:
    """Return a cell of a column."""
    if cell is None:
        return "-"
    if isinstance(cell, list):
        return ",".join(cell)
    return f"{cell:.15g}" if isinstance(cell, float) else str(cell)


def format_time(at_s: float) -> str:
    """Return seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
