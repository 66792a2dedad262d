"""Print the findings of checks: coloured on a terminal, a line each in a pipe, or as JSON."""

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from upscaled import __version__
from upscaled.doctor.finding import Finding, Status, worst_of

_COLOURS: Final = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILURE: "bold red"}
_STATUS_WIDTH: Final = 9
_CHECK_WIDTH: Final = 15


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
