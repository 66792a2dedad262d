"""`upscaled doctor`: examine this installation and print each fault with its remedy."""

import os
from typing import Annotated

import typer

from upscaled.cli.findings import print_findings


def run(
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Where the service listens; else UPSCALED_HOST."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, metavar="PORT", help="Its port; else UPSCALED_PORT."),
    ] = None,
    is_expected: Annotated[
        bool, typer.Option("--running", help="A service that does not answer is a failure.")
    ] = False,
    may_connect: Annotated[
        bool,
        typer.Option("--connect", help="Call UPSCALED_PUBLIC_BASE_URL though it leads elsewhere."),
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
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
