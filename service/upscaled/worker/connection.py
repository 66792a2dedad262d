"""A worker's side of the socket: whole messages, the jobs among them, and a thread that listens."""

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from upscaled.logs import event
from upscaled.pool.messages import (
    Alive,
    Cancel,
    Configure,
    FromWorker,
    Job,
    ToWorker,
    decode_to_worker,
    encode,
)
from upscaled.pool.stats import WorkerFigures
from upscaled.process import channel
from upscaled.process.supervision import ALIVE_EVERY_S

_log = logging.getLogger(__name__)


class FrontEndGone(Exception):
    """The socket closed: nobody is left to work for."""


class Wire:
    """The worker's end of the socket: whole frames, from any thread.

    Both calls raise `FrontEndGone`, so that no error of a decoder is taken for one of the socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()

    def say(self, message: FromWorker, payload: bytes = b"") -> None:
        try:
            with self._sending:
                channel.send(self._sock, encode(message), payload)
        except OSError as error:
            raise FrontEndGone from error

    def hear(self) -> tuple[ToWorker, bytes]:
        try:
            frame = channel.receive(self._sock)
        except (EOFError, OSError) as error:
            raise FrontEndGone from error
        return decode_to_worker(frame.header), frame.payload

    def has_something_within(self, wait_s: float) -> bool:
        return bool(select.select([self._sock], [], [], wait_s)[0])


class Inbox:
    """Jobs in their order, and which of them nobody waits for any more."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Job, bytes]] = SimpleQueue()
        self._lock = threading.Lock()
        self._on_cancel: dict[int, list[Callable[[], None]]] = {}
        self._cancelled: set[int] = set()
        self._idle_since_s = time.monotonic()

    @property
    def idle_s(self) -> float:
        """For how long no job has been under way or waiting; 0 while one is."""
        with self._lock:
            return 0.0 if self._on_cancel else time.monotonic() - self._idle_since_s

    def put(self, message: ToWorker, payload: bytes) -> None:
        match message:
            case Job():
                with self._lock:
                    self._on_cancel[message.job] = []
                self._jobs.put((message, payload))
            case Cancel():
                self._cancel(message.job)
            case Configure():
                raise channel.FrameError("configured twice")

    def next(self) -> tuple[Job, bytes]:
        """Wait for the next job; its `settle` ends what this opens."""
        return self._jobs.get()

    def is_cancelled(self, job: Job) -> bool:
        return job.job in self._cancelled

    def on_cancel(self, job: Job, call: Callable[[], None]) -> None:
        """Have `call` called, by the thread that listens, when the job is cancelled, or now."""
        with self._lock:
            self._on_cancel[job.job].append(call)
            is_cancelled = job.job in self._cancelled
        if is_cancelled:
            call()

    def settle(self, job: int) -> None:
        """Forget a job that is answered; a `Cancel` that comes too late means nothing."""
        with self._lock:
            del self._on_cancel[job]
            self._cancelled.discard(job)
            self._idle_since_s = time.monotonic()

    def _cancel(self, job: int) -> None:
        with self._lock:
            if job not in self._on_cancel:
                return
            self._cancelled.add(job)
            calls = tuple(self._on_cancel[job])
        for call in calls:
            call()


def listen(
    wire: Wire, inbox: Inbox, read_figures: Callable[[], WorkerFigures] = WorkerFigures
) -> None:
    """Hear the front end until it is gone, and tell it the figures meanwhile."""
    tell_at = time.monotonic() + ALIVE_EVERY_S
    try:
        while True:
            if wire.has_something_within(max(0.0, tell_at - time.monotonic())):
                inbox.put(*wire.hear())
            if time.monotonic() >= tell_at:
                wire.say(Alive(figures=read_figures()))
                tell_at = time.monotonic() + ALIVE_EVERY_S
    except FrontEndGone:
        os._exit(0)
    except BaseException:  # noqa: BLE001  (told below)
        _log.critical("the listener ended", exc_info=True, extra=event("crash"))
        os._exit(1)  # without its listener the worker would neither stop nor seem to hang
