"""Jobs of a worker, from the messages of the front end to the answers: a thread for each job."""

import logging
import os
import select
import socket
import threading
import time
import traceback
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from upscaled.errors import InternalError, ServiceError
from upscaled.logs import event
from upscaled.pool import messages
from upscaled.pool.executor import ModelStats, WorkerStats
from upscaled.process import channel
from upscaled.process.confinement import measure_resident
from upscaled.upscale.concurrency import Cancellation, Cancelled
from upscaled.upscale.result import Result
from upscaled_models.registry import split_strength

if TYPE_CHECKING:  # they load numpy, which starts threads
    from upscaled.decoder.pool import Decoder
    from upscaled.image.encode import Piece
    from upscaled.upscale.core import Core
    from upscaled.upscale.scheduler import BatchDone

_MAX_REASON_CHARACTERS: Final = 8000

_log = logging.getLogger(__name__)


class FrontEndGone(Exception):
    """The front end has closed the socket, so the worker ends."""


class FrontEnd:
    """A worker's connection to its front end; any thread may send.

    Both directions raise `FrontEndGone`, so that an error of the socket is never reported as one of
    an image.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()

    def send(self, message: messages.FromWorker, payload: bytes | memoryview = b"") -> None:
        """Send a message, and the bytes of a result that belong to it."""
        header = messages.encode(message)
        try:
            with self._sending:
                channel.send(
                    self._sock, header, payload, max_payload_bytes=messages.MAX_RESULT_BYTES
                )
        except OSError as error:
            raise FrontEndGone from error

    def receive(self) -> tuple[messages.ToWorker, bytes]:
        """Wait for the next message, and the source that belongs to it."""
        try:
            frame = channel.receive(self._sock)
        except (EOFError, OSError) as error:
            raise FrontEndGone from error
        return messages.decode_to_worker(frame.header), frame.payload

    def wait_readable(self, within_s: float) -> bool:
        """Return whether a message has begun to arrive within some seconds."""
        return bool(select.select([self._sock], [], [], within_s)[0])


class JobQueue:
    """Queue of the unanswered jobs, in their order; any thread may use it."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[messages.WorkerJob, bytes]] = SimpleQueue()
        self._lock = threading.Lock()
        self._open: dict[int, Cancellation] = {}
        self._idle_since_s = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Return the seconds for which no job has been waiting or in flight; 0 while one is."""
        with self._lock:
            return 0.0 if self._open else time.monotonic() - self._idle_since_s

    def put(self, message: messages.ToWorker, payload: bytes) -> None:
        """Queue a job that the front end sent, or cancel one."""
        match message:
            case messages.WorkerJob():
                with self._lock:
                    self._open[message.job] = Cancellation()
                self._waiting.put((message, payload))
            case messages.Cancel():
                with self._lock:
                    cancellation = self._open.get(message.job)
                if cancellation is not None:
                    cancellation.cancel()
            case messages.Configure():
                raise channel.FrameError("configured twice")

    def next(self) -> tuple[messages.WorkerJob, bytes]:
        """Wait for the next job; it is open until `settle`."""
        return self._waiting.get()

    def cancellation(self, job: messages.WorkerJob) -> Cancellation:
        """Return the cancellation of an open job, which a `Cancel` of the front end calls."""
        return self._open[job.job]

    def settle(self, job: int) -> None:
        """Close a job that is answered; a later `Cancel` is ignored."""
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
    """Receive messages until the front end disconnects, and send `Alive` every second meanwhile.

    When this loop ends, it ends the process: without its listener a worker would not stop when it
    should, and could not be recognised as hung.
    """
    alive_at_s = time.monotonic() + messages.ALIVE_EVERY_S
    try:
        while True:
            if front_end.wait_readable(max(0.0, alive_at_s - time.monotonic())):
                jobs.put(*front_end.receive())
            if time.monotonic() >= alive_at_s:
                front_end.send(messages.Alive(stats=counters.read()))
                alive_at_s = time.monotonic() + messages.ALIVE_EVERY_S
    except FrontEndGone:
        os._exit(0)
    except BaseException:  # noqa: BLE001  (the process ends of it)
        _log.critical("the listener thread crashed", exc_info=True, extra=event("crash"))
        os._exit(1)


@dataclass(frozen=True, slots=True)
class _ResultSink:
    """Passes the file of a job on to the front end, piece by piece, and then answers the job."""

    front_end: FrontEnd
    jobs: JobQueue
    job: int

    def write(self, piece: "Piece", offset: int) -> None:
        self.front_end.send(messages.ResultPiece(job=self.job, offset=offset), piece)

    def end(self, result: Result) -> None:
        _answer(self.front_end, self.jobs, messages.Done(job=self.job, result=result))


@dataclass(frozen=True, slots=True)
class JobThreads:
    """Threads that each work on one job at a time.

    slots: how many there are; the front end never sends more jobs at once.
    """

    front_end: FrontEnd
    jobs: JobQueue
    core: "Core"
    slots: int

    def run(self) -> None:
        """Work on jobs until the process ends."""
        threads = [
            threading.Thread(target=self._work_until_the_end, name=f"job-{number}", daemon=True)
            for number in range(self.slots)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work_until_the_end(self) -> None:
        try:
            while True:
                self._work(*self.jobs.next())
        except FrontEndGone:
            os._exit(0)  # no answer can be sent any more
        except BaseException:  # noqa: BLE001  (the process ends of it)
            _log.critical("a job's thread crashed", exc_info=True, extra=event("crash"))
            os._exit(1)  # the front end tries what is in flight again, in a new process

    def _work(self, job: messages.WorkerJob, source: bytes) -> None:
        """Upscale the image of one job, and answer it."""
        try:
            self._upscale(job, source)
        except Cancelled:
            self._answer(messages.JobCancelled(job=job.job))
        except FrontEndGone:
            raise
        except Exception as error:  # noqa: BLE001  (the answer says which)
            self._answer_error(job, error)

    def _upscale(self, job: messages.WorkerJob, source: bytes) -> None:
        def send_progress(done: int, total: int) -> None:
            self.front_end.send(messages.JobProgress(job=job.job, done=done, total=total))

        self.core.upscale(
            source,
            job.request.scale,
            output=job.request.output,
            model=job.request.model,
            ladder=job.request.ladder,
            key_id=job.request.key_id,
            on_tile=send_progress,
            sink=_ResultSink(self.front_end, self.jobs, job.job),
            cancellation=self.jobs.cancellation(job),
        )

    def _answer(self, answer: messages.Answer) -> None:
        _answer(self.front_end, self.jobs, answer)

    def _answer_error(self, job: messages.WorkerJob, error: Exception) -> None:
        """Answer with a refusal or a failure; before a failure, test that the device still works.

        After some errors of a device every further call fails. The test then raises and the process
        ends without an answer: the front end sends the image to another device, if there is one,
        and the next process starts clean.
        """
        if isinstance(error, ServiceError) and not isinstance(error, InternalError):
            fields = event(
                "image_refused",
                request_id=job.request.request_id,
                error_code=error.error_code,
                error_detail=error.detail,
            )
            _log.info("the worker refuses an image", extra=fields)
            self._answer(
                messages.JobRefused(
                    job=job.job, error_code=error.error_code, public_text=error.public_text
                )
            )
            return
        trace = "".join(traceback.format_exception(error, limit=-8))
        self.core.check_engines()
        self._answer(messages.Failed(job=job.job, reason=trace[-_MAX_REASON_CHARACTERS:]))


def _answer(front_end: FrontEnd, jobs: JobQueue, answer: messages.Answer) -> None:
    jobs.settle(answer.job)
    front_end.send(answer)
