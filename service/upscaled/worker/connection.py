"""Connection of a worker to the front end: messages, jobs, counters, and a listener thread."""

import logging
import os
import select
import socket
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING

from upscaled.logs import event
from upscaled.pool.messages import (
    ALIVE_EVERY_S,
    MAX_RESULT_BYTES,
    Alive,
    Cancel,
    Configure,
    FromWorker,
    ToWorker,
    WorkerJob,
    decode_to_worker,
    encode,
)
from upscaled.pool.stats import ModelStats, WorkerStats
from upscaled.process import channel
from upscaled.process.confinement import measure_resident
from upscaled.upscale.cancellation import Cancellation
from upscaled_models.registry import split_strength

if TYPE_CHECKING:  # the scheduler loads numpy, which starts threads
    from upscaled.decoder.pool import Decoder
    from upscaled.upscale.scheduler import BatchDone

_log = logging.getLogger(__name__)


class FrontEndGone(Exception):
    """The front end has closed the socket: there is nothing left to work for."""


class FrontEnd:
    """Front end as a worker sees it; any thread may send.

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


class JobQueue:
    """Queue of the jobs that are not answered yet, in their order; for any thread."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[WorkerJob, bytes]] = SimpleQueue()
        self._lock = threading.Lock()
        self._open: dict[int, Cancellation] = {}
        self._idle_since_s = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Return the seconds for which no job has been waiting or in flight; 0 while one is."""
        with self._lock:
            return 0.0 if self._open else time.monotonic() - self._idle_since_s

    def put(self, message: ToWorker, payload: bytes) -> None:
        """Take in what the front end sent: a job, or the cancellation of one."""
        match message:
            case WorkerJob():
                with self._lock:
                    self._open[message.job] = Cancellation()
                self._waiting.put((message, payload))
            case Cancel():
                with self._lock:
                    cancellation = self._open.get(message.job)
                if cancellation is not None:
                    cancellation.cancel()
            case Configure():
                raise channel.FrameError("configured twice")

    def next(self) -> tuple[WorkerJob, bytes]:
        """Wait for the next job; it is open until `settle`."""
        return self._waiting.get()

    def cancellation(self, job: WorkerJob) -> Cancellation:
        """Return the cancellation of an open job, which a `Cancel` of the front end calls."""
        return self._open[job.job]

    def settle(self, job: int) -> None:
        """Close a job that is answered; a `Cancel` that comes later is ignored."""
        with self._lock:
            del self._open[job]
            self._idle_since_s = time.monotonic()


class Counters:
    """Counters of a worker since its start: counted by any thread, read by the listener.

    decoder: the decoder whose deaths are reported, once it is open.
    """

    def __init__(self) -> None:
        self.decoder: Decoder | None = None
        self._lock = threading.Lock()
        self._models: dict[str, ModelStats] = {}

    def count_batch(self, done: "BatchDone") -> None:
        """Count one batch on the device, at its cost in trunk pixels."""
        spec = done.engine.info.spec
        model, _ = split_strength(spec.name)
        batch = ModelStats(
            batches=1,
            windows=done.windows,
            slots=done.max_windows,
            trunk_px=done.windows * spec.trunk_pixels(done.width_px, done.height_px),
            device_s=done.seconds,
        )
        with self._lock:
            self._models[model] = self._models.get(model, ModelStats()) + batch

    def read(self) -> WorkerStats:
        """Return what was counted so far, with this process's own processor time and memory."""
        with self._lock:
            models = dict(self._models)
        return WorkerStats(
            models=models,
            decoder_deaths=self.decoder.deaths if self.decoder else 0,
            cpu_s=time.process_time(),
            resident_bytes=measure_resident() or 0,
        )


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
