"""A worker: the process that owns one device and upscales several images at once.

Started by the front end as `python -m service.pool.worker --fd N`, N being its end of a socket
pair. Its threads:

    listener   hears jobs and cancellations; says `Alive`, with figures, every second; ends the
               process, whatever it is doing, when the front end is gone
    device     runs the networks (`service.upscale.scheduler`), and computes as the last in turn
    aside      runs them for small images where the device is busy with others
    job-N      one for each image under way: decode, the loop over its tiles, encode
    main       opens the engines, then waits for the others

Nothing heavy is imported before the listener runs, so that loading torch does not look like a hang.
"""

import argparse
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.config import Settings
from service.cores import count_cores
from service.logs import configure_logging, event, log_what_nobody_catches
from service.pool.frames import FrameError
from service.pool.messages import Configure, Ready, Unusable
from service.pool.tally import Tally
from service.pool.wire import FrontEndGone, Inbox, Wire, listen

if TYPE_CHECKING:
    from service.engine.engine import Engine
    from service.upscale.scheduler import Scheduler

SCALES: Final = (2, 4)
NICENESS: Final = 1
"""Below the front end, which must answer while every core computes."""
NETWORK_NICENESS: Final = 5
"""Further below: what takes long. Small images and all that is not the network have three times its
share of a core that they want at once, and mostly get it at once.
"""
OOM_SCORE_ADJ: Final = 500
"""Where memory ends, the kernel ends a worker, which is replaced, and not the front end."""

IGNORED_SIGNALS: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)

_log = logging.getLogger(__name__)


def main() -> None:
    """Run until the front end closes the socket."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fd", type=int, required=True, help="this end of the socket pair")
    fd = parser.parse_args().fd
    # Signals reach a whole process group or control group; the front end decides what ends.
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    _step_back()
    wire = Wire(socket.socket(fileno=fd))
    try:
        settings = _hear_settings(wire)
        configure_logging(settings.log_level, settings.log_format)
        log_what_nobody_catches()
        inbox, tally = Inbox(), Tally()
        threading.Thread(target=listen, args=(wire, inbox, tally.read), daemon=True).start()
        _work_for_ever(wire, inbox, settings, tally)
    except FrontEndGone:
        os._exit(0)  # the front end is gone; nothing is left to be told or saved


def _step_back() -> None:
    """Leave the processor, and what memory there is, to the front end first."""
    os.nice(NICENESS)
    with suppress(OSError):  # a sandbox may hide the file
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ))


def _compute_last() -> None:
    """Put the calling thread behind the others; elsewhere than on Linux that is the whole process,
    which is left as it is.
    """
    if sys.platform == "linux":
        os.nice(NETWORK_NICENESS)


def _hear_settings(wire: Wire) -> Settings:
    message, _ = wire.hear()
    if not isinstance(message, Configure):
        raise FrameError(f"{message.kind} before configure")
    return Settings.model_validate(message.settings)


def _work_for_ever(wire: Wire, inbox: Inbox, settings: Settings, tally: Tally) -> None:
    import cv2

    from service.decoding.decoder import Decoder, count_decoders
    from service.engine.device import has_free_cores
    from service.pool.counting import count_batches
    from service.pool.jobs import Bench
    from service.upscale.scheduler import Scheduler

    cv2.setNumThreads(1)  # the other cores are the network's, or other images'
    decoders = count_decoders()
    with (
        Scheduler(count_batches(tally, settings), begin=_compute_last) as scheduler,
        Decoder(
            settings.formats,
            processes=decoders,
            log_format=settings.log_format,
            on_death=tally.note_decoder_death,
        ) as decoder,
    ):
        decoder.warm_up(decoders)  # while the engines are opened
        # Threads that libraries start for the network have the priority of whoever was first to use
        # it: not this thread, which starts those of the jobs.
        with ThreadPoolExecutor(1, initializer=_compute_last) as opener:
            opening = opener.submit(_open_engines, wire, settings, scheduler)
            engines, places = opening.result()
        care_pool = ThreadPoolExecutor(count_cores()) if has_free_cores(settings) else None
        bench = Bench(wire, inbox, engines, settings, scheduler, decoder, places, care_pool)
        bench.work_for_ever()


def _open_engines(
    wire: Wire, settings: Settings, scheduler: "Scheduler"
) -> tuple[Mapping[int, "Engine"], int]:
    """Both engines, warm, and how many places there are; says `Ready`, or why not and ends the
    process.
    """
    try:
        from service.engine.choice import open_engine
        from service.engine.device import choose_device
        from service.pool.jobs import count_places
        from service.pool.warm_up import warm_up
        from service.upscale.model_choice import Rung

        engines = {scale: open_engine(settings, scale) for scale in SCALES}
        seconds_per_px = {scale: warm_up(engine, scheduler) for scale, engine in engines.items()}
        ready = Ready(
            device=str(choose_device(settings).torch_device),
            models={scale: engine.model for scale, engine in engines.items()},
            labels={scale: engine.label for scale, engine in engines.items()},
            seconds_per_px=seconds_per_px,
            ladders={scale: [Rung(model=engine.model)] for scale, engine in engines.items()},
            model_seconds_per_px={
                engine.model: seconds_per_px[scale] for scale, engine in engines.items()
            },
            places=count_places(settings),
        )
    except Exception as error:  # noqa: BLE001  (whatever it is, without engines there is no worker)
        _log.debug("cannot open the engines", exc_info=True, extra=event("engines_unusable"))
        wire.say(Unusable(reason=str(error) or type(error).__name__))
        raise SystemExit(1) from None
    wire.say(ready)
    return engines, ready.places


if __name__ == "__main__":
    main()
