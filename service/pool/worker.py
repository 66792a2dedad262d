"""A worker: the process that owns one device and upscales one image after the other.

Started by the front end as `python -m service.pool.worker --fd N`, N being its end of a socket
pair. Two threads share it:

    listener   hears jobs and cancellations; says `Alive` when nothing comes; ends the process,
               whatever it is doing, when the front end is gone
    main       loads the models, then works on jobs in their order

Nothing heavy is imported before the listener runs, so that loading torch does not look like a hang.
"""

import argparse
import faulthandler
import logging
import os
import select
import signal
import socket
import threading
import time
import traceback
from collections.abc import Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from service.config import Settings
from service.errors import ServiceError
from service.logs import configure_logging
from service.pool import frames
from service.pool.limits import ALIVE_EVERY_S
from service.pool.messages import (
    Alive,
    Cancel,
    Cancelled,
    Configure,
    Done,
    Failed,
    FromWorker,
    Job,
    Progress,
    Ready,
    Refused,
    Unusable,
    decode_to_worker,
    encode,
)

if TYPE_CHECKING:
    from service.engine.engine import Engine

SCALES: Final = (2, 4)
WARM_UP_CORE_PX: Final = 64
NICENESS: Final = 5
"""Below the front end, which must answer while every core computes."""

_log = logging.getLogger(__name__)


class FrontEndGone(Exception):
    """The socket closed: nobody is left to work for."""


class Wire:
    """The worker's end of the socket: whole frames, from either thread.

    Both calls raise `FrontEndGone`, so that no error of a decoder is taken for one of the socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()

    def say(self, message: FromWorker, payload: bytes = b"") -> None:
        try:
            with self._sending:
                frames.send(self._sock, encode(message), payload)
        except OSError as error:
            raise FrontEndGone from error

    def hear(self) -> tuple[Configure | Job | Cancel, bytes]:
        try:
            frame = frames.receive(self._sock)
        except (EOFError, OSError) as error:
            raise FrontEndGone from error
        return decode_to_worker(frame.header), frame.payload

    def has_something_within(self, wait_s: float) -> bool:
        return bool(select.select([self._sock], [], [], wait_s)[0])


class Inbox:
    """Jobs in their order, and which of them nobody waits for any more."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Job, bytes]] = SimpleQueue()
        self._latest_cancelled = 0

    def put(self, message: Configure | Job | Cancel, payload: bytes) -> None:
        match message:
            case Job():
                self._jobs.put((message, payload))
            case Cancel():
                self._latest_cancelled = message.job
            case Configure():
                raise frames.FrameError("configured twice")

    def next(self) -> tuple[Job, bytes]:
        return self._jobs.get()

    def is_cancelled(self, job: Job) -> bool:
        return self._latest_cancelled == job.job


def main() -> None:
    """Run until the front end closes the socket."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fd", type=int, required=True, help="this end of the socket pair")
    fd = parser.parse_args().fd
    # Both signals reach a whole process group or control group; the front end decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    os.nice(NICENESS)
    wire = Wire(socket.socket(fileno=fd))
    try:
        settings = hear_settings(wire)
        configure_logging(settings.log_level)
        inbox = Inbox()
        threading.Thread(target=listen, args=(wire, inbox), daemon=True).start()
        engines = _open_engines(wire, settings)
        while True:
            _work(wire, inbox, engines, settings)
    except FrontEndGone:
        os._exit(0)  # the front end is gone; nothing is left to be told or saved


def hear_settings(wire: Wire) -> Settings:
    message, _ = wire.hear()
    if not isinstance(message, Configure):
        raise frames.FrameError(f"{message.kind} before configure")
    return Settings.model_validate(message.settings)


def listen(wire: Wire, inbox: Inbox) -> None:
    try:
        while True:
            if wire.has_something_within(ALIVE_EVERY_S):
                inbox.put(*wire.hear())
            else:
                wire.say(Alive())
    except FrontEndGone:
        os._exit(0)
    except BaseException:  # noqa: BLE001  (told below)
        traceback.print_exc()
        os._exit(1)  # without its listener the worker would neither stop nor seem to hang


def _open_engines(wire: Wire, settings: Settings) -> Mapping[int, "Engine"]:
    """Both engines, warm; says `Ready`, or why not and ends the process."""
    try:
        from service.engine.choice import open_engine
        from service.engine.device import choose_device

        engines = {scale: open_engine(settings, scale) for scale in SCALES}
        ready = Ready(
            device=str(choose_device(settings).torch_device),
            models={scale: engine.model for scale, engine in engines.items()},
            seconds_per_px={scale: _warm_up(engine) for scale, engine in engines.items()},
        )
    except Exception as error:  # noqa: BLE001  (whatever it is, without engines there is no worker)
        _log.debug("cannot open the engines", exc_info=True)
        wire.say(Unusable(reason=str(error) or type(error).__name__))
        raise SystemExit(1) from None
    wire.say(ready)
    return engines


def _warm_up(engine: "Engine") -> float:
    """Run a small window twice: seconds per input pixel of the second."""
    import numpy as np

    rest_px = -(2 * engine.halo_px + WARM_UP_CORE_PX) % engine.multiple_px
    side_px = min(engine.window_px, 2 * engine.halo_px + WARM_UP_CORE_PX + rest_px)
    window = np.zeros((side_px, side_px, 3), np.uint8)
    times_s = []
    for _ in range(2):
        started = time.perf_counter()
        for _result in engine.run([window]):
            pass
        times_s.append(time.perf_counter() - started)
    return times_s[-1] / side_px**2


def _work(wire: Wire, inbox: Inbox, engines: Mapping[int, "Engine"], settings: Settings) -> None:
    """One job, from its frame to its answer."""
    from service.upscale.job import run_job
    from service.upscale.loop import Cancelled as CancelledByFrontEnd

    job, source = inbox.next()

    def on_tile(done: int, total: int) -> None:
        if inbox.is_cancelled(job):
            raise CancelledByFrontEnd
        wire.say(Progress(job=job.job, done=done, total=total))

    try:
        if inbox.is_cancelled(job):
            raise CancelledByFrontEnd
        finished = run_job(source, job.scale, engines[job.scale], settings, on_tile)
    except CancelledByFrontEnd:
        wire.say(Cancelled(job=job.job))
    except FrontEndGone:
        raise
    except ServiceError as error:
        _log.info("request %s: refused: %s", job.request_id, error)
        wire.say(Refused(job=job.job, error_code=error.error_code, public_text=error.public_text))
    except Exception:  # noqa: BLE001  (reported whole)
        _fail(wire, job, engines)
    else:
        wire.say(
            Done(
                job=job.job,
                media_type=finished.media_type,
                width_px=finished.width_px,
                height_px=finished.height_px,
                model=finished.model,
                decode_s=finished.decode_s,
                network_s=finished.network_s,
                encode_s=finished.encode_s,
            ),
            finished.data,
        )


def _fail(wire: Wire, job: Job, engines: Mapping[int, "Engine"]) -> None:
    """Report the exception being handled; then prove that the device still works.

    After some errors of a device every further call fails. The proof then raises, the process ends,
    and the next one starts clean.
    """
    wire.say(Failed(job=job.job, reason=traceback.format_exc(limit=-8)[-8000:]))
    for engine in engines.values():
        _warm_up(engine)


if __name__ == "__main__":
    main()
