"""The jobs of a worker: several at once, a thread for each, one device for all."""

import logging
import os
import threading
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from service.config import Settings
from service.decoding.decoder import Decoder
from service.engine.device import choose_device
from service.engine.engine import Engine
from service.errors import InternalError, ServiceError
from service.logs import event
from service.pool.messages import Answer, Cancelled, Done, Failed, Job, Progress, Refused
from service.pool.warm_up import warm_up
from service.pool.wire import FrontEndGone, Inbox, Wire
from service.upscale.job import Finished, run_job
from service.upscale.lane import Cancelled as NobodyWaits
from service.upscale.lane import Lane
from service.upscale.scheduler import Scheduler

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
    engines: Mapping[int, Engine]
    settings: Settings
    scheduler: Scheduler
    decoder: Decoder
    places: int
    care_pool: ThreadPoolExecutor | None = None

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
            with self.scheduler.open_lane(self.engines[job.scale], job.key_id) as lane:
                self.inbox.on_cancel(job, lane.cancel)
                finished = self._run(job, source, lane)
        except NobodyWaits:
            self._answer(Cancelled(job=job.job))
        except FrontEndGone:
            raise
        except Exception as error:  # noqa: BLE001  (told whole)
            self._refuse_or_fail(job, error)
        else:
            self._answer(_describe(job, finished), finished.data)

    def _answer(self, answer: Answer, data: bytes = b"") -> None:
        self.inbox.settle(answer.job)
        self.wire.say(answer, data)

    def _run(self, job: Job, source: bytes, lane: Lane) -> Finished:
        def on_tile(done: int, total: int) -> None:
            self._leave_if_cancelled(job)
            self.wire.say(Progress(job=job.job, done=done, total=total))

        self._leave_if_cancelled(job)
        decode = self.decoder.decode
        return run_job(
            source,
            job.scale,
            lane,
            self.settings,
            on_tile,
            decode=decode,
            care_pool=self.care_pool,
        )

    def _leave_if_cancelled(self, job: Job) -> None:
        if self.inbox.is_cancelled(job):
            raise NobodyWaits

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
        for engine in self.engines.values():
            warm_up(engine, self.scheduler)


def _describe(job: Job, finished: Finished) -> Done:
    return Done(
        job=job.job,
        media_type=finished.media_type,
        width_px=finished.width_px,
        height_px=finished.height_px,
        model=finished.model,
        decode_s=finished.decode_s,
        network_s=finished.network_s,
        encode_s=finished.encode_s,
        device_s=finished.device_s,
    )
