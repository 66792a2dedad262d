"""Worker process that owns one device and upscales several images at once.

Started by the front end as `python -m upscaled.worker.main --fd N --lifeline M`, N being its end of
a socket pair. Its threads:

    listener    receives jobs and cancellations; sends `Alive`, with statistics, every second; ends
                the process, whatever it is doing, when the front end is gone
    device      runs the networks (`upscaled.upscale.scheduler`), at the lowest priority
    fast-path   runs them for small images where the device is busy with others
    job-N       one for each image in flight: decode, the loop over its tiles, encode
    opener      opens models, at the start and when a job needs one that is not in memory
    retuning    measures what is fastest, while the worker is idle (`upscaled.worker.retuning`)
    main        opens all else, then waits for the others

Nothing heavy is imported before the listener runs, so that loading torch does not look like a hang.
"""

import faulthandler
import gc
import logging
import os
import socket
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from upscaled.config import SLOTS_ON_CPU, SLOTS_ON_CUDA, Settings
from upscaled.config.values import cores_of
from upscaled.logs import configure_logging, event, log_uncaught_exceptions
from upscaled.pool.messages import Configure, Unusable, WorkerReady
from upscaled.process.channel import FrameError
from upscaled.process.confinement import OomScore, child_parser, confine, needs_setuid_programs
from upscaled.worker.jobs import Counters, FrontEnd, FrontEndGone, JobQueue, JobThreads, listen
from upscaled_models.processor import pin_to

if TYPE_CHECKING:
    from upscaled.upscale.core import Core
    from upscaled_models.backends.device import Device

NICENESS: Final = 1
"""Below the front end, which must answer while every core computes."""

NETWORK_NICENESS: Final = 5
"""Further below, for the network's long computations: small images, and all work beside the
network, get three times its share of a core."""

_log = logging.getLogger(__name__)


def main() -> None:
    """Work on jobs until the front end closes the socket."""
    arguments = child_parser(__doc__.partition("\n")[0]).parse_args()
    confine(arguments.lifeline, OomScore.WORKER, keeps_setuid=needs_setuid_programs())
    faulthandler.enable()
    os.nice(NICENESS)
    front_end = FrontEnd(socket.socket(fileno=arguments.fd))
    try:
        settings = _receive_settings(front_end)
        pin_to(cores_of(settings.device))  # before threads and decoders start, which inherit it
        configure_logging(settings.log_level, settings.log_format)
        log_uncaught_exceptions()
        jobs, counters = JobQueue(), Counters()
        threading.Thread(target=listen, args=(front_end, jobs, counters), daemon=True).start()
        _work(front_end, jobs, settings, counters)
    except FrontEndGone:
        os._exit(0)  # no answer can be sent any more


def _receive_settings(front_end: FrontEnd) -> Settings:
    message, _ = front_end.receive()
    if not isinstance(message, Configure):
        raise FrameError(f"{message.kind} before configure")
    return Settings.model_validate(message.settings)


def _work(front_end: FrontEnd, jobs: JobQueue, settings: Settings, counters: Counters) -> None:
    """Open the models, report ready, and work until the process ends."""
    with ExitStack() as stack:
        gc.disable()  # imports make a million objects, which each collection would visit
        try:
            from upscaled.upscale.named_models import require_models

            require_models(settings)
            from upscaled.upscale.opening import open_core

            core = stack.enter_context(
                open_core(settings, counter=counters, niceness=NETWORK_NICENESS, is_warm=True)
            )
            counters.decoder = core.decoder
            ready = _describe(core)
        except Exception as error:  # noqa: BLE001  (whatever it is, without it there is no worker)
            _log.debug("cannot open the engines", exc_info=True, extra=event("engines_unusable"))
            front_end.send(Unusable(reason=str(error) or type(error).__name__))
            raise SystemExit(1) from None
        gc.freeze()
        gc.enable()
        front_end.send(ready)
        from upscaled.worker.retuning import IdleTuning

        IdleTuning(core, jobs).start(NETWORK_NICENESS)
        JobThreads(front_end, jobs, core, ready.slots).run()


def _describe(core: "Core") -> WorkerReady:
    from upscaled.upscale.engines import choose_device
    from upscaled.upscale.ladder import plan_ladder

    settings, device = core.settings, choose_device(core.settings)
    models = {scale: ladder[0].model for scale, ladder in core.ladders.items()}
    return WorkerReady(
        # `cpu:0-15` for listed cores, as the setting has it; else the name that torch gives it.
        device=settings.device if cores_of(settings.device) else str(device.torch_device),
        models=models,
        labels={scale: core.label(model) for scale, model in models.items()},
        ladders={scale: list(ladder) for scale, ladder in core.ladders.items()},
        plans={scale: plan_ladder(settings, scale).describe() for scale in core.ladders},
        seconds_per_px=dict(core.seconds_per_px),
        slots=count_slots(settings, device),
    )


def count_slots(settings: Settings, device: "Device") -> int:
    """Return how many jobs a worker has in flight at once: by the settings, else by the device."""
    return settings.jobs_per_worker or (SLOTS_ON_CUDA if device.is_cuda else SLOTS_ON_CPU)


if __name__ == "__main__":
    main()
