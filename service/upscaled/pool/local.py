"""Executor of one machine: supervised worker processes, shared fairly between API keys.

    upscale            admit the request, unless the service is stopping
    _upscale_retrying  send the image to workers until one answers, or until two have died with it
                       as their only image; what one device fails is tried on another
    _acquire_slot      wait in the request queue for a slot at a worker, or refuse the request
    _work_in_slot      send the job and wait for its answer; cancel it if the caller is cancelled
    _work_and_release  the same as a task of its own: the slot is free when the worker is done

A `Supervisor` for each worker starts it, hands it to the queue, waits for its death, and restarts
it.
"""

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Final

from upscaled.config import Settings
from upscaled.errors import InternalError, RateLimitExceeded, RefusalReason, rebuild
from upscaled.logs import event
from upscaled.pool import executor
from upscaled.pool.admission import Admission
from upscaled.pool.cost import CostModel, estimate_wait_s
from upscaled.pool.devices import plan_workers, share_canvas_px
from upscaled.pool.messages import Answer, Done, Failed, JobRefused, WorkerJob, WorkerReady
from upscaled.pool.queue import QueueFull, RequestQueue
from upscaled.pool.slots import MAX_DEATHS_ALONE, Attempts, Slot
from upscaled.pool.supervisor import Supervisor, refuse_without_workers, starting_s
from upscaled.pool.worker_process import WorkerDied, WorkerProcess, WorkTookTooLong
from upscaled.process.child import ChildUnusable
from upscaled.process.supervision import Limits
from upscaled.upscale.model_choice import AutoChoice, Rung
from upscaled.upscale.result import Result
from upscaled_models.store import ModelStore

WORKER_COMMAND: Final = (sys.executable, "-m", "upscaled.worker.main")

_log = logging.getLogger(__name__)


class LocalPool:
    """`Executor` over worker processes of this machine."""

    def __init__(
        self,
        settings: Settings,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        limits: Limits | None = None,
    ) -> None:
        """Plan the workers of the settings; each entry of `device` has workers of its own.

        Args:
            command: starts a worker, with further arguments behind it; for tests.
            limits: the waits of the supervision; by default `work_timeout_s` and their own.
        """
        limits = limits or Limits(work_s=settings.work_timeout_s)
        self._settings = settings
        self._cost = CostModel(ModelStore(settings.models_dir))
        self._queue = RequestQueue(settings.max_queue, self._cost)
        self._supervisors = [
            Supervisor(number, each, tuple(command), limits, self)
            for number, each in enumerate(plan_workers(settings))
        ]
        self._tasks: set[asyncio.Task[Any]] = set()
        self._supervising: list[asyncio.Task[None]] = []
        self._first_ready: WorkerReady | None = None
        self._first_start_over = asyncio.Event()
        self._job_numbers = count(1)
        self._faults = 0
        self._admission = Admission(settings.shutdown_grace_s)

    async def start(self) -> None:
        """Start the workers; returns at once. See `wait_ready`."""
        self._supervising = [each.start() for each in self._supervisors]

    async def wait_ready(self) -> WorkerReady:
        """Wait, if need be for ever, until a first worker is ready, and return its message.

        Raises:
            ChildUnusable: none was ready yet, and each reports why it cannot be.
        """
        await self._first_start_over.wait()
        if self._first_ready is None:
            raise ChildUnusable(self._supervisors[0].last_error)
        return self._first_ready

    def is_ready(self) -> bool:
        """Return whether an upscale sent now, by a key that has none here, would be worked on."""
        return bool(self._workers) and not self._admission.is_draining and not self._queue.is_full

    def stats(self) -> executor.PoolStats:
        waiting_by_key = self._queue.waiting_by_key()
        readies = [worker.ready for worker in self._workers]
        in_flight = Counter(slot.worker for slot in self._queue.in_flight())
        return executor.PoolStats(
            waiting=self._queue.waiting,
            waiting_most=self._settings.max_queue,
            keys_waiting=len(waiting_by_key),
            most_of_one_key=max(waiting_by_key.values(), default=0),
            running=len(self._queue.in_flight()),
            running_most=sum(ready.slots for ready in readies),
            workers_ready=len(readies),
            workers_wanted=len(self._supervisors),
            restarts=sum(each.restarts for each in self._supervisors),
            failed_starts=sum(each.failed_starts for each in self._supervisors),
            faults=self._faults,
            engines=frozenset(
                executor.EngineInUse(scale, model, ready.labels.get(scale, ""), ready.device)
                for ready in readies
                for scale, model in ready.models.items()
            ),
            done=sum((each.done() for each in self._supervisors), executor.WorkerStats()),
            resident_bytes={
                each.number: each.worker.stats.resident_bytes
                for each in self._supervisors
                if each.worker is not None
            },
            workers=tuple(
                each.state(in_flight[each.worker] if each.worker else 0)
                for each in self._supervisors
            ),
            ladders=self._cost.ladders,
            seconds_per_px=self._cost.seconds_per_px(),
        )

    def drain(self) -> None:
        """Report not ready from now on; images are still accepted until `stop`."""
        self._admission.is_draining = True

    async def stop(self, grace_s: float) -> None:
        """Refuse new requests, finish what was admitted for at most `grace_s`, end every worker."""
        await self._admission.stop(grace_s)
        self._queue.close(InternalError(detail="the service is stopping"))
        for task in self._supervising:
            task.cancel()
        await asyncio.gather(*self._supervising, *self._tasks, return_exceptions=True)

    def expect(self, request: executor.UpscaleRequest) -> executor.Expectation:
        return self._cost.expect(request)

    async def own_choice(self) -> AutoChoice:
        return (await self.wait_ready()).choice

    def adopt_ladders(self, ladders: Mapping[int, tuple[Rung, ...]]) -> None:
        self._cost.adopt(ladders)

    async def upscale(self, source: bytes, request: executor.UpscaleRequest) -> Result:
        with self._admission.admit():
            request = replace(self._cost.bind(request), store=None)
            return await self._upscale_retrying(source, request)

    async def _upscale_retrying(self, source: bytes, request: executor.UpscaleRequest) -> Result:
        now = asyncio.get_running_loop().time
        admitted_at = now()
        attempts = Attempts()
        while True:
            slot = await self._acquire_slot(request, attempts)
            queue_s = now() - admitted_at
            try:
                answer, data = await self._work_in_slot(slot, source)
            except WorkerDied as death:
                fields = event("worker_died_under_image", request_id=request.request_id)
                text = "a worker died while it upscaled this image: %s"
                _log.warning(text, str(death), extra=fields)
                attempts.note_death(slot.worker, death)
                if attempts.is_given_up:
                    detail = f"{MAX_DEATHS_ALONE} workers died while this was their only image"
                    raise InternalError(detail=detail) from None
                continue
            except WorkTookTooLong as error:
                raise InternalError(detail=str(error)) from None
            if isinstance(answer, Failed):
                if self._may_try_another_device(slot, answer, attempts):
                    continue
                if attempts.failed_at is None:
                    raise executor.DeviceFault(detail=f"the worker reports: {answer.reason}")
            elif isinstance(answer, Done) and (faulty := attempts.find_faulty(slot.worker)):
                self._faults += 1
                faulty.note_fault()
            return _read_answer(answer, data, queue_s)

    def _may_try_another_device(self, slot: Slot, failed: Failed, attempts: Attempts) -> bool:
        """Return whether another device is to try the image that this one failed, and log that."""
        device = slot.worker.device
        has_other = any(worker.device != device for worker in self._workers)
        if not attempts.note_failure(slot.worker, has_other=has_other):
            return False
        fields = event("device_fault", request_id=slot.request.request_id, device=device)
        text = "%s failed this image, another device tries it: %s"
        _log.warning(text, device, failed.reason, extra=fields)
        return True

    async def _acquire_slot(self, request: executor.UpscaleRequest, attempts: Attempts) -> Slot:
        if refusal := refuse_without_workers(self._supervisors):
            raise refusal
        try:
            return await self._queue.acquire(
                request, is_retry=attempts.is_retry, avoided=attempts.avoided
            )
        except QueueFull as error:
            reason: RefusalReason = "gave_way" if error.gave_way else "queue"
            work_s = self._queue.work_before_s(request)
            wait_s = estimate_wait_s(work_s, len(self._workers), starting_s(self._supervisors))
            raise RateLimitExceeded(wait_s, reason=reason, detail=str(error)) from None

    async def _work_in_slot(self, slot: Slot, source: bytes) -> tuple[Answer, bytes]:
        job = WorkerJob(job=next(self._job_numbers), request=slot.request)
        task = asyncio.create_task(self._work_and_release(slot, job, source))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            slot.worker.cancel(job)
            raise
        finally:
            del task  # its error's traceback leads to this frame: they would keep the file

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        """Drop a finished task, and retrieve its error, which a cancelled request does not."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    async def _work_and_release(
        self, slot: Slot, job: WorkerJob, source: bytes
    ) -> tuple[Answer, bytes]:
        try:
            answer, data = await slot.worker.work(job, source, slot.note_tile)
        finally:
            self._queue.release(slot)
        if isinstance(answer, Done):
            timings = answer.result.timings
            self._cost.learn(
                slot.request,
                answer.result.made_by,
                timings.full_work_s,
                timings.work_s,
                encode_s=timings.encode_s,
                opening_s=timings.opening_s,
            )
        return answer, data

    def add_worker(self, worker: WorkerProcess) -> None:
        """Give jobs to a worker; see `upscaled.pool.supervisor.Pool`."""
        self._cost.assume(worker.ready)
        self._first_ready = self._first_ready or worker.ready
        self._first_start_over.set()
        self._queue.add_worker(worker, worker.ready.slots, share_canvas_px(self._settings))

    def remove_worker(self, worker: WorkerProcess) -> None:
        """Give no more jobs to a worker; see `upscaled.pool.supervisor.Pool`."""
        self._queue.remove_worker(worker)
        for supervisor in self._supervisors:
            if not self.may_do_without(supervisor):
                supervisor.recall()

    def may_do_without(self, supervisor: Supervisor) -> bool:
        """Return whether workers of other devices are ready; see `upscaled.pool.supervisor`."""
        return any(worker.device != supervisor.device for worker in self._workers)

    def note_failed_start(self) -> None:
        """Refuse what waits if no start can be hoped for; see `upscaled.pool.supervisor.Pool`."""
        if all(supervisor.is_unusable for supervisor in self._supervisors):
            self._first_start_over.set()
        if refusal := refuse_without_workers(self._supervisors):
            self._queue.dismiss(refusal)

    @property
    def _workers(self) -> list[WorkerProcess]:
        return [each.worker for each in self._supervisors if each.worker is not None]


def _read_answer(answer: Answer, data: bytes, queue_s: float) -> Result:
    if isinstance(answer, Done):
        timings = replace(answer.result.timings, queue_s=queue_s)
        return replace(answer.result, data=data, timings=timings)
    if isinstance(answer, JobRefused):
        raise rebuild(answer.error_code, answer.public_text)
    detail = answer.reason if isinstance(answer, Failed) else answer.kind
    raise InternalError(detail=f"the worker reports: {detail}")
