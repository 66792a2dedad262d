"""Executor whose workers are replicas on other machines.

A replica that dies, falls silent or is replaced loses nothing: an upscale can be made again, and
its images go to another one. An image under which two workers died alone is not sent again. One
that a replica's only device failed is tried on another replica; where both fail it, it fails.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Final

from upscaled.config import Settings
from upscaled.errors import InternalError, RateLimitExceeded, rebuild
from upscaled.logs import event
from upscaled.pool import messages
from upscaled.pool.admission import Admission
from upscaled.pool.cost import CostModel, estimate_wait_s
from upscaled.pool.executor import Expectation, PoolStats, UpscaleRequest
from upscaled.pool.ray_serve import messages as replica_messages
from upscaled.pool.ray_serve.calls import Call, Calls, NoAnswer
from upscaled.pool.ray_serve.reports import Reports, add_reports
from upscaled.upscale.model_choice import AutoChoice, Rung
from upscaled.upscale.result import Result
from upscaled_models.store import ModelStore

MAX_REPLAYS: Final = 3
"""Limits how often an image is sent again: what ends replicas must not tour the cluster."""

MAX_FAULTS: Final = 8
"""Limits how often one replica may fail an image that Ray sends it again and again: each keeps a
call of it, until it has as many as the others."""

_SILENCE_S: Final = 5.0
"""A replica that has answered sends something every second; after this one is cut off or hangs."""

_AFTER_SILENCE_S: Final = 1.0
"""First wait for a replica to confirm receipt while another is silent: it may be the silent one."""

_FIRST_ANSWER_S: Final = 60.0
"""Longest wait for a replica's first answer: a new controller takes up to 20 s, a node that starts
a replica longer. While there are replicas, an image is sent again sooner, first after `_SILENCE_S`:
its replica hangs or is cut off, which the cluster notices much later."""

_STARTING_S: Final = 20.0
"""The promised wait while no replica is there: about as long as one takes to load its models."""

_PASSING_REASONS: Final = frozenset({"starting", "stopping"})
"""Refusals of one replica that another one does not share."""

_log = logging.getLogger(__name__)


class _ReplicaDeviceFault(Exception):
    """A replica's device failed the image; its call is kept, if there are other replicas."""

    def __init__(self, message: replica_messages.DeviceFaultMessage, call: Call) -> None:
        super().__init__(f"replica {message.replica} reports: {message.reason}")
        self.replica = message.replica
        self.call = call


class RayPool:
    """`Executor` over the replicas of a Ray Serve deployment."""

    def __init__(self, settings: Settings, replicas: replica_messages.Replicas) -> None:
        self._settings = settings
        self._replicas = replicas
        self._calls = Calls(replicas)
        self._cost = CostModel(ModelStore(settings.models_dir))
        self._reports = Reports(settings, replicas, self._cost)
        self._in_flight: dict[int, UpscaleRequest] = {}
        self._numbers = count()
        self._admission = Admission(settings.shutdown_grace_s)
        self._watching: asyncio.Task[None] | None = None
        self._has_ended = False
        self._faults = 0

    async def start(self) -> None:
        """Connect to the replicas; returns at once. See `wait_ready`."""
        await self._replicas.start()
        self._watching = asyncio.create_task(self._reports.watch())

    async def wait_ready(self) -> messages.WorkerReady:
        """Wait, if need be for ever, until a replica is ready; return its worker's message."""
        return (await self._reports.first()).ready

    def is_ready(self) -> bool:
        """Return whether a replica accepts images, and all of them would make the same result."""
        accepts = any(report.accepts for report in self._reports.here.values())
        return accepts and not self._reports.difference and not self._admission.is_draining

    def stats(self) -> PoolStats:
        """Return the statistics of all replicas, those of the other front ends' images included."""
        stats = add_reports(
            tuple(self._reports.here.values()),
            tuple(self._reports.gone.values()),
            self._cost.ladders,
            self._cost.seconds_per_px(),
        )
        return replace(stats, faults=stats.faults + self._faults)

    def expect(self, request: UpscaleRequest) -> Expectation:
        return self._cost.expect(request)

    def drain(self) -> None:
        """Report not ready from now on; images are still accepted until `stop`."""
        self._admission.is_draining = True

    async def stop(self, grace_s: float) -> None:
        """Refuse new requests, finish what was admitted for at most `grace_s`, and disconnect."""
        await self._admission.stop(grace_s)
        self._has_ended = True
        if self._watching:
            self._watching.cancel()
        await self._calls.close()
        await self._replicas.stop()

    async def own_choice(self) -> AutoChoice:
        return (await self.wait_ready()).choice

    def adopt_ladders(self, ladders: Mapping[int, tuple[Rung, ...]]) -> None:
        self._cost.adopt(ladders)

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        with self._admission.admit():
            if not self._reports.here and len(self._in_flight) >= self._settings.max_queue:
                raise self._refusal("no replica is there, and as many wait as may")
            number = next(self._numbers)
            self._in_flight[number] = request
            try:
                return await self._upscale_replaying(source, self._cost.bind(request))
            finally:
                del self._in_flight[number]

    async def _upscale_replaying(self, source: bytes, request: UpscaleRequest) -> Result:
        # None has a traceback, whose frames would hold the source and the result.
        refusals: list[RateLimitExceeded] = []
        faults: list[_ReplicaDeviceFault] = []
        store_until = asyncio.get_running_loop().time()
        if request.store:
            store_until += request.store.within_s
        replay = 0
        while replay <= MAX_REPLAYS:
            try:
                result = await self._upscale_once(source, request, store_until)
                self._faults += bool(faults)
                return result
            except _ReplicaDeviceFault as error:
                self._note_fault(error.with_traceback(None), faults, request)
                await asyncio.sleep(0.1)
                continue
            except replica_messages.NoReplicaFree as error:
                raise self._refusal(str(error)) from None
            except RateLimitExceeded as error:
                if error.reason not in _PASSING_REASONS:
                    raise
                refusals.append(error.with_traceback(None))
            except replica_messages.ReplicaLost as error:
                if self._has_ended:
                    raise InternalError(detail="the service is stopping") from None
                fields = event("replica_lost", request_id=request.request_id, replay=replay)
                _log.warning("a replica was lost under this image: %s", error, extra=fields)
                if not self._reports.here:
                    refusals.append(self._refusal(str(error)))
            await asyncio.sleep(0.1 * 2**replay)
            replay += 1
        if refusals:
            raise refusals.pop()
        raise InternalError(detail=f"replicas were lost under it {1 + MAX_REPLAYS} times")

    def _note_fault(
        self,
        fault: _ReplicaDeviceFault,
        earlier: list[_ReplicaDeviceFault],
        request: UpscaleRequest,
    ) -> None:
        """Add a fault to the earlier ones of an image that another replica is to try.

        Ray may send it to the same one again, where the others have more calls under way.

        Raises:
            InternalError: two have failed it, so that neither is at fault, or there is no other, or
                one has `MAX_FAULTS` times.
        """
        is_elsewhere = any(each.replica != fault.replica for each in earlier)
        earlier.append(fault)
        if is_elsewhere:
            for each in earlier:
                each.call.release()
        if is_elsewhere or not fault.call.is_faulty or len(earlier) == MAX_FAULTS:
            raise InternalError(detail=str(fault)) from None
        fields = event("device_fault", request_id=request.request_id)
        _log.warning("another replica is to try a failed image: %s", fault, extra=fields)

    async def _upscale_once(
        self, source: bytes, request: UpscaleRequest, store_until: float
    ) -> Result:
        """Upscale on the first replica that confirms receipt; the others have begun no work.

        Args:
            store_until: when the order to store the result is too old, by the clock of the loop.
        """
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + _FIRST_ANSWER_S
        resent = 0
        while True:
            if request.store and clock() > store_until:
                request = replace(request, store=None)
            wait_s = _AFTER_SILENCE_S if self._calls.has_silent else _SILENCE_S
            wait_s *= 2**resent  # a cluster that is merely slow answers the later ones
            rest_s = give_up_at - clock()
            limit_s = min(wait_s, rest_s) if self._reports.here else rest_s
            try:
                return await self._call_replica(source, request, limit_s)
            except NoAnswer as error:
                if clock() >= give_up_at:
                    raise
                fields = event("replica_silent", request_id=request.request_id)
                _log.warning("an image is sent again: %s", error, extra=fields)
                resent += 1

    async def _call_replica(self, source: bytes, request: UpscaleRequest, limit_s: float) -> Result:
        """Have one replica upscale; its first answer is due within `limit_s`."""
        job = messages.encode(messages.WorkerJob(job=replica_messages.ONLY_JOB, request=request))
        async with self._calls.open(job, source) as call:
            while True:
                header, data = await call.receive(limit_s)
                limit_s = _SILENCE_S
                message = replica_messages.decode_from_replica(header)
                if isinstance(message, replica_messages.DeviceFaultMessage):
                    call.is_faulty = len(self._reports.here) > 1
                    raise _ReplicaDeviceFault(message, call)
                result = self._handle(message, data, request)
                if result:
                    return result

    def _handle(
        self, message: replica_messages.ReplicaMessage, data: bytes, request: UpscaleRequest
    ) -> Result | None:
        """Return the result that a message brings, raise the error, or pass on the progress."""
        match message:
            case messages.Alive():
                pass
            case messages.JobProgress():
                if request.on_tile:
                    request.on_tile(message.done, message.total)
            case messages.Done(result=result):
                if result.stored_as not in ("", request.store.file_name if request.store else ""):
                    raise InternalError(detail="a replica named a result that is not this image's")
                timings = result.timings
                if timings.full_work_s is not None:
                    self._cost.learn(
                        request,
                        result.made_by,
                        timings.full_work_s,
                        encode_s=timings.encode_s,
                        opening_s=timings.opening_s,
                    )
                return replace(result, data=data)
            case replica_messages.Busy() as busy:
                raise RateLimitExceeded(busy.retry_after_s, reason=busy.reason, detail=busy.detail)
            case messages.JobRefused() as refused:
                raise rebuild(refused.error_code, refused.public_text)
            case messages.Failed() as failed:
                raise InternalError(detail=failed.reason)
        return None

    def _refusal(self, detail: str) -> RateLimitExceeded:
        """Return the answer where no replica says itself when to come back."""
        work_s = sum(self._cost.estimate(each).work_s for each in self._in_flight.values())
        workers = sum(report.workers_ready for report in self._reports.here.values())
        wait_s = estimate_wait_s(work_s, workers, 0 if workers else _STARTING_S)
        return RateLimitExceeded(wait_s, reason="queue" if workers else "starting", detail=detail)
