"""A worker's connection to the front end: messages, the jobs among them, and a listener thread."""

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from upscaled.logs import event
from upscaled.pool.messages import (
    ALIVE_EVERY_S,
    MAX_RESULT_BYTES,
    Alive,
    Cancel,
    Configure,
    FromWorker,
    Job,
    ToWorker,
    decode_to_worker,
    encode,
)
from upscaled.process import channel
from upscaled.worker.stats import Counters

_log = logging.getLogger(__name__)


class FrontEndGone(Exception):
    """The front end closed the socket: there is nothing left to work for."""


class FrontEnd:
    """The front end as a worker sees it; any thread may send.

    Both directions raise `FrontEndGone`, so that no error of an image is taken for one of the
    socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()

    def send(self, message: FromWorker, payload: bytes = b"") -> None:
        """Send a message, and the result that belongs to it."""
        header = encode(message)
        try:
            with self._sending:
                channel.send(self._sock, header, payload, max_payload_bytes=MAX_RESULT_BYTES)
        except OSError as error:
            raise FrontEndGone from error

    def receive(self) -> tuple[ToWorker, bytes]:
        """Wait for the next message, and the source that belongs to it."""
        try:
            frame = channel.receive(self._sock)
        except (EOFError, OSError) as error:
            raise FrontEndGone from error
        return decode_to_worker(frame.header), frame.payload

    def wait_readable(self, within_s: float) -> bool:
        """Return whether a message has begun to come within some seconds."""
        return bool(select.select([self._sock], [], [], within_s)[0])


@dataclass(slots=True)
class _OpenJob:
    is_cancelled: bool = False
    on_cancel: Callable[[], None] | None = None


class JobQueue:
    """The jobs that were sent and are not answered yet, in their order; for any thread."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[Job, bytes]] = SimpleQueue()
        self._lock = threading.Lock()
        self._open: dict[int, _OpenJob] = {}
        self._idle_since_s = time.monotonic()

    @property
    def idle_s(self) -> float:
        """For how long no job has been waiting or in flight; 0 while one is."""
        with self._lock:
            return 0.0 if self._open else time.monotonic() - self._idle_since_s

    def put(self, message: ToWorker, payload: bytes) -> None:
        """Take in what the front end sent: a job, or the cancellation of one."""
        match message:
            case Job():
                with self._lock:
                    self._open[message.job] = _OpenJob()
                self._waiting.put((message, payload))
            case Cancel():
                self._cancel(message.job)
            case Configure():
                raise channel.FrameError("configured twice")

    def next(self) -> tuple[Job, bytes]:
        """Wait for the next job; it is open until `settle`."""
        return self._waiting.get()

    def is_cancelled(self, job: Job) -> bool:
        """Return whether the front end has cancelled an open job."""
        return self._open[job.job].is_cancelled

    def on_cancel(self, job: Job, call: Callable[[], None]) -> None:
        """Call `call` in the listener's thread when the job is cancelled; now if it already is."""
        with self._lock:
            self._open[job.job].on_cancel = call
            is_cancelled = self._open[job.job].is_cancelled
        if is_cancelled:
            call()

    def settle(self, job: int) -> None:
        """Close a job that is answered; a `Cancel` that comes later is ignored."""
        with self._lock:
            del self._open[job]
            self._idle_since_s = time.monotonic()

    def _cancel(self, job: int) -> None:
        with self._lock:
            if (opened := self._open.get(job)) is None:
                return
            opened.is_cancelled = True
            call = opened.on_cancel
        if call is not None:
            call()


def listen(front_end: FrontEnd, jobs: JobQueue, counters: Counters) -> None:
    """Receive messages until the front end is gone, and send `Alive` every second meanwhile.

    The end of this loop is the end of the process: without its listener a worker would neither
    stop when it is to stop nor seem to hang.
    """
    alive_at_s = time.monotonic() + ALIVE_EVERY_S
    try:
        while True:
            if front_end.wait_readable(max(0.0, alive_at_s - time.monotonic())):
                jobs.put(*front_end.receive())
            if time.monotonic() >= alive_at_s:
                front_end.send(Alive(stats=counters.read()))
                alive_at_s = time.monotonic() + ALIVE_EVERY_S
    except FrontEndGone:
        os._exit(0)
    except BaseException:  # noqa: BLE001  (the process ends of it)
        _log.critical("the listener thread crashed", exc_info=True, extra=event("crash"))
        os._exit(1)
