"""Print reports: of a time that the user names, as columns, JSON or CSV."""

import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

import typer

from upscaled.cli.console import fail, print_columns

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
