"""A worker: the process that owns one device and upscales several images at once.

Started by the front end as `python -m upscaled.worker.main --fd N`, N being its end of a socket
pair. Its threads:

    listener   hears jobs and cancellations; says `Alive`, with figures, every second; ends the
               process, whatever it is doing, when the front end is gone
    device     runs the networks (`upscaled.upscale.scheduler`), and computes as the last in turn
    aside      runs them for small images where the device is busy with others
    job-N      one for each image under way: decode, the loop over its tiles, encode
    opener     opens models, at the start and when a job needs one that is not in memory
    retuning   measures what is fastest, while the worker is idle (`upscaled.worker.retuning`)
    main       opens all else, then waits for the others

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
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from upscaled.config import Settings
from upscaled.logs import configure_logging, event, log_what_nobody_catches
from upscaled.pool.messages import Configure, Ready, Unusable
from upscaled.process.channel import FrameError
from upscaled.worker.connection import FrontEndGone, Inbox, Wire, listen
from upscaled.worker.stats import Tally

if TYPE_CHECKING:
    from upscaled.upscale.upscaler import Upscaler

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
    with ExitStack() as stack:
        try:
            upscaler = _open_upscaler(stack, settings, tally)
            ready = _describe(upscaler)
        except Exception as error:  # noqa: BLE001  (whatever it is, without it there is no worker)
            _log.debug("cannot open the engines", exc_info=True, extra=event("engines_unusable"))
            wire.say(Unusable(reason=str(error) or type(error).__name__))
            raise SystemExit(1) from None
        wire.say(ready)
        from upscaled.worker.jobs import Bench
        from upscaled.worker.retuning import IdleMinutes

        IdleMinutes(upscaler, inbox).start(_compute_last)
        Bench(wire, inbox, upscaler, ready.places).work_for_ever()


def _open_upscaler(stack: ExitStack, settings: Settings, tally: Tally) -> "Upscaler":
    from upscaled.upscale.upscaler import open_upscaler
    from upscaled.worker.stats import count_batches

    return stack.enter_context(
        open_upscaler(
            settings,
            on_batch=count_batches(tally),
            begin=_compute_last,
            on_decoder_death=tally.note_decoder_death,
            is_warm=True,
        )
    )


def _describe(upscaler: "Upscaler") -> Ready:
    from upscaled.upscale.engines import choose_device
    from upscaled.worker.jobs import count_places

    ladders = upscaler.ladders
    models = {scale: ladder[0].model for scale, ladder in ladders.items()}
    return Ready(
        device=str(choose_device(upscaler.settings).torch_device),
        models=models,
        labels={scale: upscaler.label(model) for scale, model in models.items()},
        seconds_per_px={
            scale: upscaler.seconds_per_px[ladder[-1].model] for scale, ladder in ladders.items()
        },
        ladders={scale: list(ladder) for scale, ladder in ladders.items()},
        model_seconds_per_px=dict(upscaler.seconds_per_px),
        places=count_places(upscaler.settings),
    )


if __name__ == "__main__":
    main()
