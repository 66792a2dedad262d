"""The jobs of a worker: several at once, a thread for each, one device for all."""

import logging
import os
import threading
import traceback
from dataclasses import dataclass
from typing import Final

from upscaled.config import Settings
from upscaled.errors import InternalError, ServiceError
from upscaled.logs import event
from upscaled.pool.messages import Answer, Cancelled, Done, Failed, Job, Progress, Refused
from upscaled.upscale.cancellation import Cancellation
from upscaled.upscale.engines import choose_device
from upscaled.upscale.result import Result
from upscaled.upscale.stream import Cancelled as NobodyWaits
from upscaled.upscale.upscaler import Upscaler
from upscaled.worker.connection import FrontEndGone, Inbox, Wire

_log = logging.getLogger(__name__)


PLACES: Final = 4
PLACES_ON_CUDA: Final = 8
"""More small images fill larger batches: 200 of 96 px from 8 clients came through x4plus on an H100
2.8 times as fast as one at a time with 4 places, 3.8 times with 8."""


def count_places(settings: Settings) -> int:
    """How many jobs a worker has under way at once; by the device, where the settings give none.

    Raises:
        SettingsError: the device that the settings name is not here.
    """
    if settings.jobs_per_worker:
        return settings.jobs_per_worker
    return PLACES_ON_CUDA if choose_device(settings).is_cuda else PLACES


@dataclass(frozen=True, slots=True)
class Bench:
    """All that working on a job takes. The front end never sends more jobs than it has places."""

    wire: Wire
    inbox: Inbox
    upscaler: Upscaler
    places: int

    def work_for_ever(self) -> None:
        """Work on jobs until the process ends, `places` of them at once."""
        threads = [
            threading.Thread(target=self._work_alone, name=f"job-{number}", daemon=True)
            for number in range(self.places)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work_alone(self) -> None:
        try:
            while True:
                self._work(*self.inbox.next())
        except FrontEndGone:
            os._exit(0)  # nothing is left to be told or saved
        except BaseException:  # noqa: BLE001  (told below)
            _log.critical("a job's thread ended", exc_info=True, extra=event("crash"))
            os._exit(1)  # the front end tries again what is under way, in a sound process

    def _work(self, job: Job, source: bytes) -> None:
        """One job, from its frame to its answer."""
        try:
            result = self._run(job, source)
        except NobodyWaits:
            self._answer(Cancelled(job=job.job))
        except FrontEndGone:
            raise
        except Exception as error:  # noqa: BLE001  (told whole)
            self._refuse_or_fail(job, error)
        else:
            self._answer(_describe(job, result), result.data)

    def _answer(self, answer: Answer, data: bytes = b"") -> None:
        self.inbox.settle(answer.job)
        self.wire.say(answer, data)

    def _run(self, job: Job, source: bytes) -> Result:
        cancellation = Cancellation()

        def on_tile(done: int, total: int) -> None:
            cancellation.check()
            self.wire.say(Progress(job=job.job, done=done, total=total))

        self.inbox.on_cancel(job, cancellation.cancel)
        return self.upscaler.upscale(
            source,
            job.scale,
            output=job.output,
            model=job.model,
            key_id=job.key_id,
            on_tile=on_tile,
            cancellation=cancellation,
        )

    def _refuse_or_fail(self, job: Job, error: Exception) -> None:
        """Say whose fault it is; where it may be the device's, prove that it still works.

        After some errors of a device every further call fails. The proof then raises, the process
        ends, and the next one starts clean.
        """
        if isinstance(error, ServiceError) and not isinstance(error, InternalError):
            told = event(
                "image_refused",
                request_id=job.request_id,
                error_code=error.error_code,
                error_detail=error.detail,
            )
            _log.info("the worker refuses an image", extra=told)
            self._answer(
                Refused(job=job.job, error_code=error.error_code, public_text=error.public_text)
            )
            return
        trace = "".join(traceback.format_exception(error, limit=-8))
        self._answer(Failed(job=job.job, reason=trace[-8000:]))
        self.upscaler.prove()


def _describe(job: Job, result: Result) -> Done:
    return Done(
        job=job.job,
        media_type=result.media_type,
        width_px=result.width_px,
        height_px=result.height_px,
        model=result.model,
        tempered_with=result.tempered_with,
        label=result.label,
        decode_s=result.timings.decode_s,
        network_s=result.timings.network_s,
        encode_s=result.timings.encode_s,
        device_s=result.timings.device_s,
    )
