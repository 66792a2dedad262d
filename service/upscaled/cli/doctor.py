"""`upscaled doctor`: examine this installation, and print the findings of checks."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from upscaled import __version__
from upscaled.doctor.finding import Finding, Status, worst_of

_COLOURS: Final = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILURE: "bold red"}
_STATUS_WIDTH: Final = 9
_CHECK_WIDTH: Final = 15


def run(
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Address of the service; else UPSCALED_HOST."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, metavar="PORT", help="Port of the service; else UPSCALED_PORT."
        ),
    ] = None,
    is_expected: Annotated[
        bool, typer.Option("--running", help="Fail if the service does not answer.")
    ] = False,
    may_connect: Annotated[
        bool,
        typer.Option("--connect", help="Call UPSCALED_PUBLIC_BASE_URL even on another machine."),
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Look at everything the service needs; each line is ok, a warning or a failure.

    Sends two golden pictures the whole way through the engines. Changes nothing, and connects to
    nothing but the database and the service; --connect adds the public URL. Exit status 1 if there
    is a failure, 0 without.
    """
    from upscaled.doctor.checkup import list_checks, run_checks
    from upscaled.doctor.environment import read_settings

    settings, _ = read_settings(os.environ)
    checks = list_checks(
        settings,
        os.environ,
        host=settings.host if host is None else host,
        port=settings.port if port is None else port,
        is_expected=is_expected,
        may_connect=may_connect,
    )
    print_findings(run_checks(checks), is_json=is_json)


def print_findings(findings: Iterable[Finding], *, is_json: bool) -> None:
    """Print findings one by one and a summary, or one JSON document; exit 1 on a failure."""
    started = time.monotonic()
    console = Console(highlight=False, markup=False, emoji=False)
    printed = []
    for finding in findings:
        printed.append(finding)
        if not is_json:
            _show(finding, console)
    report = _as_json if is_json else _summarise
    typer.echo(report(printed, time.monotonic() - started))
    if worst_of(printed) is Status.FAILURE:
        raise typer.Exit(1)


def _show(finding: Finding, console: Console) -> None:
    """Print a finding and its advice: coloured on a terminal, a line each in a pipe."""
    advice = f"do: {finding.advice}" if finding.advice else ""
    if not console.is_terminal:
        status, check = finding.status.ljust(_STATUS_WIDTH), finding.check.ljust(_CHECK_WIDTH)
        typer.echo(f"{status}{check}{finding.found}")
        if advice:
            typer.echo(f"{' ' * (_STATUS_WIDTH + _CHECK_WIDTH)}{advice}")
        return
    table = Table.grid()
    table.add_column(width=_STATUS_WIDTH, style=_COLOURS[finding.status])
    table.add_column(width=_CHECK_WIDTH, style="bold")
    table.add_row(finding.status, finding.check, finding.found)
    if advice:
        table.add_row("", "", Text(advice, style="cyan"))
    console.print(table)


def _summarise(findings: list[Finding], seconds: float) -> str:
    counts = Counter(finding.status for finding in findings)
    words = [f"{counts[Status.OK]} ok"]
    for status in (Status.WARNING, Status.FAILURE):
        if counts[status]:
            words.append(f"{counts[status]} {status}{'s' if counts[status] > 1 else ''}")
    return f"\nupscaled {__version__}: {', '.join(words)}, in {seconds:.1f} s"


def _as_json(findings: list[Finding], seconds: float) -> str:
    document = {
        "version": __version__,
        "status": worst_of(findings),
        "seconds": round(seconds, 2),
        "findings": [asdict(finding) for finding in findings],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)
