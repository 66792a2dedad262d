"""`upscaled serve`: the HTTP service and its workers."""

import gc
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import typer

from upscaled.cli.console import CannotServe, fail
from upscaled.cli.process_limits import ignore_signals, raise_descriptor_limit
from upscaled.cli.supervisor import FrontEndSupervisor
from upscaled.config import Settings, find_near_names, load_settings
from upscaled.logs import configure_logging, event, log_uncaught_exceptions
from upscaled.process.confinement import hide_memory
from upscaled.process.listener import CannotListen, open_listener

_log: Final = logging.getLogger(__name__)


def run(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; else UPSCALED_HOST, 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port, 0: any free one; else UPSCALED_PORT, 8000."),
    ] = None,
) -> None:
    """Serve POST /v1/upscale until stopped. Settings: see `upscaled config`."""
    hide_memory()  # before there is a child: they run as the same user
    options = {"host": host, "port": port}
    options = {name: value for name, value in options.items() if value is not None}
    settings = load_settings(None, **options)
    configure_logging(settings.log_level, settings.log_format)
    log_uncaught_exceptions()
    _warn_of_near_names()
    survived = ignore_signals()
    raise_descriptor_limit()
    try:
        with open_listener(settings.host, settings.port) as listener, _admin(settings) as admin:
            link = FrontEndSupervisor(listener, survived).run()
            # From here on this process is a front end, whose modules the supervisor does not need.
            # Imports leave no garbage to collect; `run_server` enables collections again.
            gc.disable()
            from upscaled.cli.server import run_server

            run_server(settings, listener, link, admin)
            if settings.cluster:
                # All is closed. Ray's own end would wait while the head is away, or crash.
                os._exit(0)
    except CannotListen as error:
        where = f"{settings.host} port {settings.port}"
        names = "UPSCALED_HOST and UPSCALED_PORT"
        raise fail(f"cannot listen on {where}: {error} ({names} say where)") from None
    except CannotServe as error:
        raise fail(error, error.exit_status) from None


def _warn_of_near_names() -> None:
    for name, setting in find_near_names(os.environ).items():
        _log.warning(
            "%s is no setting, and is ignored; did you mean %s?",
            name,
            setting,
            extra=event("setting_misspelt", variable=name, setting=setting),
        )


@contextmanager
def _admin(settings: Settings) -> Iterator[socket.socket | None]:
    """Open the listener of administration; None where it has none of its own."""
    if not settings.has_admin_listener:
        yield None
        return
    try:
        listener = open_listener(settings.admin_host, settings.admin_port)
    except CannotListen as error:
        where = f"{settings.admin_host} port {settings.admin_port}"
        names = "UPSCALED_ADMIN_HOST and UPSCALED_ADMIN_PORT"
        raise CannotServe(
            f"administration cannot listen on {where}: {error} ({names} say where)"
        ) from None
    with listener:
        yield listener
