"""Jobs of a worker: several at once, a thread for each, one device for all."""

import logging
import os
import threading
import traceback
from dataclasses import dataclass, replace
from typing import Final

from upscaled.config import SLOTS_ON_CPU, SLOTS_ON_CUDA, Settings
from upscaled.errors import InternalError, ServiceError
from upscaled.logs import event
from upscaled.pool.messages import (
    Answer,
    Done,
    Failed,
    JobCancelled,
    JobProgress,
    JobRefused,
    WorkerJob,
)
from upscaled.upscale.cancellation import Cancelled
from upscaled.upscale.core import Core
from upscaled.upscale.engines import choose_device
from upscaled.upscale.result import Result
from upscaled.worker.connection import FrontEnd, FrontEndGone, JobQueue

_MAX_REASON_CHARACTERS: Final = 8000

_log = logging.getLogger(__name__)


def count_slots(settings: Settings) -> int:
    """Return how many jobs a worker has in flight at once; by the device, if not by the settings.

    Raises:
        SettingsError: the device that the settings name is not here.
    """
    if settings.jobs_per_worker:
        return settings.jobs_per_worker
    return SLOTS_ON_CUDA if choose_device(settings).is_cuda else SLOTS_ON_CPU


@dataclass(frozen=True, slots=True)
class JobThreads:
    """Threads that each work on one job at a time.

    slots: how many there are; the front end never sends more jobs at once.
    """

    front_end: FrontEnd
    jobs: JobQueue
    core: Core
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
            os._exit(0)  # there is nothing left to answer or to save
        except BaseException:  # noqa: BLE001  (the process ends of it)
            _log.critical("a job's thread crashed", exc_info=True, extra=event("crash"))
            os._exit(1)  # the front end retries what is in flight, in a sound process

    def _work(self, job: WorkerJob, source: bytes) -> None:
        """Upscale the image of one job, and answer it."""
        try:
            result = self._upscale(job, source)
        except Cancelled:
            self._answer(JobCancelled(job=job.job))
        except FrontEndGone:
            raise
        except Exception as error:  # noqa: BLE001  (the answer says which)
            self._answer_error(job, error)
        else:
            self._answer(Done(job=job.job, result=replace(result, data=b"")), result.data)

    def _upscale(self, job: WorkerJob, source: bytes) -> Result:
        def send_progress(done: int, total: int) -> None:
            self.front_end.send(JobProgress(job=job.job, done=done, total=total))

        return self.core.upscale(
            source,
            job.request.scale,
            output=job.request.output,
            model=job.request.model,
            ladder=job.request.ladder,
            key_id=job.request.key_id,
            on_tile=send_progress,
            cancellation=self.jobs.cancellation(job),
        )

    def _answer(self, answer: Answer, data: bytes = b"") -> None:
        self.jobs.settle(answer.job)
        self.front_end.send(answer, data)

    def _answer_error(self, job: WorkerJob, error: Exception) -> None:
        """Answer whose fault it is; where it may be the device's, first test that it still works.

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
                JobRefused(job=job.job, error_code=error.error_code, public_text=error.public_text)
            )
            return
        trace = "".join(traceback.format_exception(error, limit=-8))
        self.core.check_engines()
        self._answer(Failed(job=job.job, reason=trace[-_MAX_REASON_CHARACTERS:]))
