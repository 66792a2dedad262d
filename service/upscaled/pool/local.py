"""The executor of one machine: supervised worker processes, shared fairly between API keys.

    upscale() -> Line: a slot at a worker, a place in the request queue, or RateLimitExceeded
              -> WorkerProcess.work: job out, answer in
              -> died? once more, before all others and alone in a worker; a death in company
                 counts for nothing, a second one alone is the image's own
    a Keeper for each worker: start it, hand it to the line, wait for its death, and again

A conversation with a worker is a task apart from the caller's: a caller that gives up has the work
cancelled, and its place is free again when the worker says so.
"""

import asyncio
import logging
import math
import os
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from upscaled.config import Settings
from upscaled.errors import InternalError, RateLimitExceeded, RefusalReason, ServiceError, rebuild
from upscaled.logs import event
from upscaled.pool.books import Books
from upscaled.pool.cost import CostModel, retry_after_s, work_before_s
from upscaled.pool.environment import worker_environment, worker_settings
from upscaled.pool.executor import StageTimes, Upscaled, UpscaleRequest
from upscaled.pool.messages import Answer, Configure, Done, Job, Ready, Refused
from upscaled.pool.queue import Line, LineFull
from upscaled.pool.room import Place
from upscaled.pool.stats import PoolFigures
from upscaled.pool.supervisor import Keeper
from upscaled.pool.worker_process import WorkerDied, WorkerProcess, WorkTookTooLong
from upscaled.process.child import WorkerUnusable
from upscaled.process.supervision import Limits
from upscaled_models.errors import ModelError
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore

WORKER_COMMAND = (sys.executable, "-m", "upscaled.worker.main")
DEATHS_ALONE = 2
"""So many say that it is the image; those in company may be anybody's."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Running:
    """An image at a worker, and the part of its tiles that is done, 0 to 1."""

    request: UpscaleRequest
    done_part: float = 0

    def note_tile(self, done: int, total: int) -> None:
        self.done_part = done / max(1, total)
        self.request.on_tile(done, total)


class LocalPool:
    """`Executor` over processes of this machine.

    Args:
        settings: `workers`, `threads`, `max_queue`, `work_timeout_s`, and all that a worker reads.
        command: what starts a worker; `--fd N` is added.
        limits: the waits of the supervision; `work_s` is the setting's unless given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        limits: Limits | None = None,
    ) -> None:
        self._settings = settings
        self._command = tuple(command)
        self._limits = limits or Limits(work_s=settings.work_timeout_s)
        self._cost = CostModel(partial(_find_spec, ModelStore(settings.models_dir)))
        self._line = Line(settings.max_queue, self._cost.estimate)
        self._books = Books()
        self._keepers = [
            Keeper(number, self._start_worker, self._limits, self)
            for number in range(settings.workers)
        ]
        self._workers: set[WorkerProcess] = set()
        self._running: set[_Running] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._keeping: list[asyncio.Task[None]] = []
        self._facts: Ready | None = None
        self._first_start_over = asyncio.Event()
        self._jobs = count(1)
        self._admitted = 0
        self._none_admitted = asyncio.Event()
        self._is_draining = False
        self._is_stopping = False

    async def start(self) -> None:
        """Start the workers; returns at once. See `wait_ready`."""
        self._keeping = [asyncio.create_task(keeper.keep()) for keeper in self._keepers]
        for keeping in self._keeping:
            keeping.add_done_callback(_report_end)

    async def wait_ready(self) -> Ready:
        """Wait, if need be for ever, until a first worker is ready: its facts.

        Raises:
            WorkerUnusable: none was ready yet, and each says why it cannot be.
        """
        await self._first_start_over.wait()
        if self._facts is None:
            raise WorkerUnusable(self._keepers[0].trouble)
        return self._facts

    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers that are ready."""
        return tuple(worker.pid for worker in self._workers)

    def is_ready(self) -> bool:
        """Whether an upscale sent now, by a key that has none under way, would be worked on."""
        return bool(self._workers) and not self._is_draining and not self._line.is_full

    def figures(self) -> PoolFigures:
        """How the workers are and what they have done."""
        return self._books.read(
            waiting=self._line.waiting,
            waiting_most=self._settings.max_queue,
            keys_waiting=self._line.keys_waiting,
            most_of_one_key=self._line.most_of_one_key,
            running=len(self._running),
            workers_wanted=self._settings.workers,
            seconds_per_px=self._cost.seconds_per_px(),
        )

    def drain(self) -> None:
        """Not ready any more from now on; images are still taken until `stop`."""
        self._is_draining = True

    async def stop(self, grace_s: float) -> None:
        """Take nothing new, finish what was admitted for at most `grace_s`, end every worker."""
        self._is_draining = self._is_stopping = True
        self._none_admitted.clear()
        if self._admitted:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._none_admitted.wait()
        self._line.close(InternalError(detail="the service is stopping"))
        for keeping in self._keeping:
            keeping.cancel()
        await asyncio.gather(*self._keeping, *self._tasks, return_exceptions=True)

    def expected_s(self, request: UpscaleRequest) -> float:
        """Seconds of one worker that an image will take; see `Executor.expected_s`."""
        return self._cost.expected_s(request)

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Upscaled:
        """Upscale one encoded image; see `Executor.upscale`."""
        if self._is_stopping:
            grace_s = math.ceil(self._settings.shutdown_grace_s)
            raise RateLimitExceeded(grace_s, reason="stopping", detail="stopping")
        self._admitted += 1
        try:
            return await self._upscale(source, request)
        finally:
            self._admitted -= 1
            if not self._admitted:
                self._none_admitted.set()

    async def _upscale(self, source: bytes, request: UpscaleRequest) -> Upscaled:
        now = asyncio.get_running_loop().time
        admitted_at = now()
        deaths_alone = 0
        is_again = False
        while deaths_alone < DEATHS_ALONE:
            place = await self._take_place(request, is_again=is_again)
            queue_s = now() - admitted_at
            try:
                answer, data = await self._converse(place, source)
            except WorkerDied as death:
                told = event("worker_died_under_image", request_id=request.request_id)
                _log.warning("%s", death, extra=told)
                deaths_alone += death.was_alone
                is_again = True
                continue
            except WorkTookTooLong as error:
                raise InternalError(detail=str(error)) from None
            label = self._books.label(place.worker, request.scale)
            return _read_answer(answer, data, queue_s, label)
        raise InternalError(detail=f"{DEATHS_ALONE} workers died under this image alone")

    async def _take_place(self, request: UpscaleRequest, *, is_again: bool) -> Place:
        if refusal := self._refusal_without_workers():
            raise refusal
        try:
            return await self._line.take(request, is_again=is_again, is_alone=is_again)
        except LineFull as error:
            reason: RefusalReason = "gave_way" if error.gave_way else "queue"
            wait_s = self._retry_after_s(request)
            raise RateLimitExceeded(wait_s, reason=reason, detail=str(error)) from None

    def _retry_after_s(self, request: UpscaleRequest) -> int:
        """Whole seconds until the queue takes one more request of this key."""
        in_flight_s = [
            self._cost.expected_s(run.request) * (1 - run.done_part) for run in self._running
        ]
        own_s = self._cost.expected_s(request)
        waiting_s = self._line.waiting_s()
        work_s = work_before_s(request.key_id, own_s, in_flight_s, waiting_s)
        return retry_after_s(work_s, len(self._workers), self._starting_s())

    def _starting_s(self) -> float:
        """Seconds until a worker is ready, if the next start goes well; 0 while one is."""
        if self._workers:
            return 0
        return min(keeper.ready_in_s() for keeper in self._keepers)

    async def _converse(self, place: Place, source: bytes) -> tuple[Answer, bytes]:
        request = place.request
        job = Job(
            job=next(self._jobs),
            request_id=request.request_id,
            scale=request.scale,
            output=request.output,
            key_id=request.key_id,
            model=request.model,
        )
        running = _Running(request)
        self._running.add(running)
        conversation = self._keep_task(self._work(place, job, source, running))
        try:
            return await asyncio.shield(conversation)
        except asyncio.CancelledError:
            place.worker.cancel(job)
            raise

    async def _work(
        self, place: Place, job: Job, source: bytes, running: _Running
    ) -> tuple[Answer, bytes]:
        try:
            answer, data = await place.worker.work(job, source, running.note_tile)
        finally:
            self._running.discard(running)
            self._line.release(place)
        if isinstance(answer, Done):
            worked_s = answer.decode_s + answer.device_s + answer.encode_s
            self._cost.learn(place.request, answer.model, worked_s)
        return answer, data

    def _keep_task(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _start_worker(self) -> tuple[WorkerProcess, Ready]:
        configure = Configure.model_validate({"settings": worker_settings(self._settings)})
        environment = worker_environment(self._settings, os.environ)
        return await WorkerProcess.start(self._command, environment, configure, self._limits)

    def join(self, number: int, worker: WorkerProcess, ready: Ready) -> None:
        self._books.join(number, worker, ready)
        self._cost.assume(ready)
        self._facts = ready
        self._first_start_over.set()
        self._workers.add(worker)
        self._line.join(worker, ready.places)

    def leave(self, worker: WorkerProcess) -> None:
        self._books.leave(worker)
        self._workers.discard(worker)
        self._line.withdraw(worker)

    def note_failed_start(self) -> None:
        self._books.note_failed_start()
        if all(keeper.is_unusable for keeper in self._keepers):
            self._first_start_over.set()
        if refusal := self._refusal_without_workers():
            self._line.dismiss(refusal)

    def _refusal_without_workers(self) -> ServiceError | None:
        """The answer to every request while the starts of all workers fail; None otherwise.

        Starts that fail are tried again, so the answer is to come back when the next one should be
        ready. It is an error of the service only where every worker says itself that it cannot
        work, a model or a device being gone: then no wait would be truthful.
        """
        if self._workers or not all(keeper.is_hopeless for keeper in self._keepers):
            return None
        if all(keeper.is_unusable for keeper in self._keepers):
            return InternalError(detail=self._keepers[0].trouble)
        wait_s = retry_after_s(0, 1, self._starting_s())
        detail = f"no worker: {self._keepers[0].trouble}"
        return RateLimitExceeded(wait_s, reason="starting", detail=detail)


def _report_end(keeping: "asyncio.Task[None]") -> None:
    if not keeping.cancelled() and (error := keeping.exception()):
        told = event("keeper_died")
        _log.critical("a worker is not kept alive any more", exc_info=error, extra=told)


def _find_spec(store: ModelStore, model: str) -> ModelSpec | None:
    try:
        return store.find(model)
    except ModelError:
        return None


def _read_answer(answer: Answer, data: bytes, queue_s: float, label: str) -> Upscaled:
    if isinstance(answer, Done):
        times = StageTimes(queue_s, answer.decode_s, answer.network_s, answer.encode_s)
        return Upscaled(
            data,
            answer.media_type,
            answer.width_px,
            answer.height_px,
            answer.model,
            times,
            engine=answer.label or label,
            tempered_with=answer.tempered_with,
        )
    if isinstance(answer, Refused):
        raise rebuild(answer.error_code, answer.public_text)
    detail = getattr(answer, "reason", answer.kind)
    raise InternalError(detail=f"the worker says: {detail}")
