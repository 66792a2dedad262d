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
import signal
import socket
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.config import Settings
from service.errors import ServiceError
from service.logs import configure_logging
from service.pool.frames import FrameError
from service.pool.messages import (
    Cancelled,
    Configure,
    Done,
    Failed,
    Job,
    Progress,
    Ready,
    Refused,
    Unusable,
)
from service.pool.wire import FrontEndGone, Inbox, Wire, listen

if TYPE_CHECKING:
    from service.engine.engine import Engine
    from service.upscale.scheduler import Scheduler

SCALES: Final = (2, 4)
WARM_UP_CORE_PX: Final = 64
NICENESS: Final = 5
"""Below the front end, which must answer while every core computes."""
OOM_SCORE_ADJ: Final = 500
"""Where memory ends, the kernel ends a worker, which is replaced, and not the front end."""

_log = logging.getLogger(__name__)


def main() -> None:
    """Run until the front end closes the socket."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fd", type=int, required=True, help="this end of the socket pair")
    fd = parser.parse_args().fd
    # Both signals reach a whole process group or control group; the front end decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    _step_back()
    wire = Wire(socket.socket(fileno=fd))
    try:
        settings = _hear_settings(wire)
        configure_logging(settings.log_level)
        inbox = Inbox()
        threading.Thread(target=listen, args=(wire, inbox), daemon=True).start()
        from service.upscale.scheduler import Scheduler

        scheduler = Scheduler()
        engines = _open_engines(wire, settings, scheduler)
        while True:
            _work(wire, inbox, engines, settings, scheduler)
    except FrontEndGone:
        os._exit(0)  # the front end is gone; nothing is left to be told or saved


def _step_back() -> None:
    """Leave the processor, and what memory there is, to the front end first."""
    os.nice(NICENESS)
    with suppress(OSError):  # a sandbox may hide the file
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ))


def _hear_settings(wire: Wire) -> Settings:
    message, _ = wire.hear()
    if not isinstance(message, Configure):
        raise FrameError(f"{message.kind} before configure")
    return Settings.model_validate(message.settings)


def _open_engines(wire: Wire, settings: Settings, scheduler: "Scheduler") -> Mapping[int, "Engine"]:
    """Both engines, warm; says `Ready`, or why not and ends the process."""
    try:
        from service.engine.choice import open_engine
        from service.engine.device import choose_device

        engines = {scale: open_engine(settings, scale) for scale in SCALES}
        ready = Ready(
            device=str(choose_device(settings).torch_device),
            models={scale: engine.model for scale, engine in engines.items()},
            seconds_per_px={
                scale: _warm_up(engine, scheduler) for scale, engine in engines.items()
            },
        )
    except Exception as error:  # noqa: BLE001  (whatever it is, without engines there is no worker)
        _log.debug("cannot open the engines", exc_info=True)
        wire.say(Unusable(reason=str(error) or type(error).__name__))
        raise SystemExit(1) from None
    wire.say(ready)
    return engines


def _warm_up(engine: "Engine", scheduler: "Scheduler") -> float:
    """Run a small window twice: seconds per input pixel of the second."""
    import numpy as np

    rest_px = -(2 * engine.halo_px + WARM_UP_CORE_PX) % engine.multiple_px
    side_px = min(engine.window_px, 2 * engine.halo_px + WARM_UP_CORE_PX + rest_px)
    window = np.zeros((side_px, side_px, 3), np.uint8)
    times_s = []
    for _ in range(2):
        started = time.perf_counter()
        with scheduler.open_lane(engine) as lane:
            for _result in lane.run([window]):
                pass
        times_s.append(time.perf_counter() - started)
    return times_s[-1] / side_px**2


def _work(
    wire: Wire,
    inbox: Inbox,
    engines: Mapping[int, "Engine"],
    settings: Settings,
    scheduler: "Scheduler",
) -> None:
    """One job, from its frame to its answer."""
    from service.upscale.job import run_job
    from service.upscale.lane import Cancelled as CancelledByFrontEnd

    job, source = inbox.next()

    def on_tile(done: int, total: int) -> None:
        if inbox.is_cancelled(job):
            raise CancelledByFrontEnd
        wire.say(Progress(job=job.job, done=done, total=total))

    try:
        if inbox.is_cancelled(job):
            raise CancelledByFrontEnd
        with scheduler.open_lane(engines[job.scale]) as lane:
            finished = run_job(source, job.scale, lane, settings, on_tile)
    except CancelledByFrontEnd:
        wire.say(Cancelled(job=job.job))
    except FrontEndGone:
        raise
    except ServiceError as error:
        _log.info("request %s: refused: %s", job.request_id, error)
        wire.say(Refused(job=job.job, error_code=error.error_code, public_text=error.public_text))
    except Exception:  # noqa: BLE001  (reported whole)
        _fail(wire, job, engines, scheduler)
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


def _fail(wire: Wire, job: Job, engines: Mapping[int, "Engine"], scheduler: "Scheduler") -> None:
    """Report the exception being handled; then prove that the device still works.

    After some errors of a device every further call fails. The proof then raises, the process ends,
    and the next one starts clean.
    """
    wire.say(Failed(job=job.job, reason=traceback.format_exc(limit=-8)[-8000:]))
    for engine in engines.values():
        _warm_up(engine, scheduler)


if __name__ == "__main__":
    main()
