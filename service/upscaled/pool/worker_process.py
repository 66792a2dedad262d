"""Start one worker process, exchange messages with it, and notice its end."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from pydantic import ValidationError

from upscaled.config import Settings
from upscaled.pool import messages
from upscaled.pool.devices import worker_environment, worker_settings
from upscaled.pool.executor import OnTile, WorkerStats
from upscaled.pool.job_in_flight import JobInFlight
from upscaled.process.channel import FrameError
from upscaled.process.child import AsyncChild, ChildLost, ChildUnusable
from upscaled.process.supervision import Limits, TimeAllowed

_MAX_QUIET_S: Final = 2.5
"""A worker sends `Alive` every second; one that is quiet for longer at its deadline hangs."""

_STEP_S: Final = 1.0

MAX_FAULTS: Final = 3
"""Images in a row that a worker may fail and another device make: then its device is broken."""


class WorkerDied(Exception):
    """The process ended, or was killed because it hung; the text says how.

    was_alone: the image that gets this error was the only one in flight at the worker, so nothing
    else can be at fault.
    """

    def __init__(self, text: str, *, was_alone: bool = False) -> None:
        super().__init__(text)
        self.was_alone = was_alone


class WorkTookTooLong(Exception):
    """The worker was alive and working, but the deadline passed; it has been killed."""


class WorkerProcess:
    """A running worker, made by `start`.

    ready: its message once its models were loaded. device: of its settings. gone: set once it is
    reaped. answered: the number of jobs answered. is_faulty: it was killed because it failed images
    that another device made. end_text: how it ended. stats: its last report of its work.
    """

    def __init__(self, child: AsyncChild, limits: Limits, device: str) -> None:
        loop = asyncio.get_running_loop()
        self.device = device
        self.ready: messages.WorkerReady
        self.gone = asyncio.Event()
        self.answered = 0
        self.is_faulty = False
        self.end_text = ""
        self.stats = WorkerStats()
        self._child = child
        self._limits = limits
        self._is_usable = True
        self._faults = 0
        self._ready: asyncio.Future[messages.WorkerReady | ChildUnusable | WorkerDied] = (
            loop.create_future()
        )
        self._in_flight: dict[int, JobInFlight] = {}
        self._in_flight_at_end: int | None = None
        self._last_message_at = loop.time()
        self._tasks = {asyncio.create_task(self._listen())}

    @classmethod
    async def start(
        cls, command: Sequence[str], settings: Settings, limits: Limits
    ) -> "WorkerProcess":
        """Start a worker and wait until its models are loaded.

        Raises:
            ChildUnusable: it reported why it cannot work, or its program cannot be run.
            SpawnFailed: the machine cannot start a process for now.
            WorkerDied: it ended, or was not ready within `limits.start_s`.
        """
        configure = messages.Configure.model_validate({"settings": worker_settings(settings)})
        environment = worker_environment(settings, os.environ)
        worker = cls(await AsyncChild.start(command, environment), limits, settings.device)
        ready = None
        try:
            await worker._send(configure)
            ready = await worker._wait_ready()
        finally:
            if not isinstance(ready, messages.WorkerReady):
                await worker.end()
        if not isinstance(ready, messages.WorkerReady):
            raise ready
        worker.ready = ready
        return worker

    async def _wait_ready(self) -> messages.WorkerReady | ChildUnusable | WorkerDied:
        """Return what the worker reports of its start; or WorkerDied after `limits.start_s`."""
        allowed = TimeAllowed(self.pid, self._limits.start_s)
        while allowed.left_s > 0:
            step_s = min(_STEP_S, allowed.left_s)
            await asyncio.wait({self._ready}, timeout=step_s)
            if self._ready.done():
                return self._ready.result()
            await asyncio.to_thread(allowed.note, step_s)
        return WorkerDied(f"not ready within {self._limits.start_s:g} s")

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        """Return whether a job sent now may be answered."""
        return self._is_usable

    async def work(
        self, job: messages.WorkerJob, source: bytes, on_tile: OnTile | None = None
    ) -> tuple[messages.Answer, bytes]:
        """Send one job and wait for its answer, beside other jobs.

        Returns once the worker is done with the job, also after `cancel`. Past its deadline the
        worker is killed, with all that it has in flight.

        Raises:
            WorkerDied: the process ended, or fell silent and was killed.
            WorkTookTooLong: the deadline passed while it was working.
        """
        if not self._is_usable:
            raise WorkerDied("died before the job reached it")
        in_flight = JobInFlight(on_tile, asyncio.get_running_loop().create_future())
        self._in_flight[job.job] = in_flight
        quiet_s = None
        try:
            async with asyncio.timeout(self._limits.work_s):
                await self._send(job, source)
                answer = await in_flight.answer
        except TimeoutError:
            quiet_s = self._kill_overdue()
        finally:
            del self._in_flight[job.job]
        if quiet_s is not None:  # an error raised above would have that one, which has this task
            raise self._describe_overdue(quiet_s)
        if answer is None:
            raise self._death(self.end_text)
        self.answered += 1
        if isinstance(answer[0], messages.Done):
            self._faults = 0
        return answer

    def note_fault(self) -> None:
        """Count an image that it failed and another device made; kill it after `MAX_FAULTS`.

        An image that is made in between resets the count. What is in flight then gets `WorkerDied`.
        """
        self._faults += 1
        if self._faults < MAX_FAULTS or not self._is_usable:
            return
        self.is_faulty = True
        self._is_usable = False
        self._in_flight_at_end = 0  # none of its images is at fault
        self._child.kill()

    def cancel(self, job: messages.WorkerJob) -> None:
        """Have a job stopped; its `work` returns `JobCancelled`, or what was finished before."""
        task = asyncio.create_task(self._send_if_alive(messages.Cancel(job=job.job)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """End the process, by force after a grace period; cancelled, it is still waited for."""
        self._is_usable = False
        ending = asyncio.create_task(self._end())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait([ending])
            raise

    async def _end(self) -> None:
        self._child.close_sending()
        try:
            async with asyncio.timeout(self._limits.end_s):
                await self.gone.wait()
        except TimeoutError:
            self._child.kill()
            await self.gone.wait()

    def _kill_overdue(self) -> float:
        """Kill the worker, and return for how many seconds it has said nothing."""
        self._is_usable = False
        self._count_in_flight()
        self._child.kill()
        return asyncio.get_running_loop().time() - self._last_message_at

    def _describe_overdue(self, quiet_s: float) -> Exception:
        if quiet_s > _MAX_QUIET_S:
            return self._death(f"worker {self.pid} hung, silent for {quiet_s:.1f} s, killed")
        return WorkTookTooLong(f"worked on one image for {self._limits.work_s:g} s")

    async def _send(self, message: messages.ToWorker, payload: bytes = b"") -> None:
        try:
            await self._child.send(messages.encode(message), payload)
        except OSError:
            await self.gone.wait()
            raise self._death(self.end_text) from None

    async def _send_if_alive(self, message: messages.ToWorker) -> None:
        with suppress(WorkerDied):
            await self._send(message)

    async def _listen(self) -> None:
        """Receive messages until the worker ends, then answer everything that waits for it."""
        cause = "was stopped"
        limit_s: float | None = None  # of the start, see `_wait_ready`
        try:
            while True:
                frame = await self._child.receive(
                    within_s=limit_s, max_payload_bytes=messages.MAX_RESULT_BYTES
                )
                self._last_message_at = asyncio.get_running_loop().time()
                self._handle(messages.decode_from_worker(frame.header), frame.payload)
                if self._ready.done():
                    limit_s = self._limits.silence_s
        except ChildLost as lost:
            cause = str(lost)
        except (FrameError, ValidationError) as error:
            cause = f"broke the protocol, killed: {error}"
        finally:
            await self._settle_all(cause)

    def _handle(self, message: messages.FromWorker, payload: bytes) -> None:
        match message:
            case messages.Alive():
                self.stats = message.stats
            case messages.WorkerReady() if not self._ready.done():
                self._ready.set_result(message)
            case messages.Unusable() if not self._ready.done():
                self._ready.set_result(ChildUnusable(message.reason))
            case messages.WorkerReady() | messages.Unusable():
                raise FrameError(f"{message.kind} out of turn")
            case _ if message.job not in self._in_flight:
                raise FrameError(f"{message.kind} for a job that is not in flight")
            case _:
                self._in_flight[message.job].receive(message, payload)

    async def _settle_all(self, cause: str) -> None:
        """Reap the process, and answer with its death everything that waits for it."""
        self._is_usable = False
        self._count_in_flight()
        self._child.kill()
        if self.is_faulty:
            cause = f"failed {MAX_FAULTS} images in a row that another device made, killed"
        self.end_text = f"worker {self.pid} {cause} ({await self._child.wait()})"
        if not self._ready.done():
            self._ready.set_result(WorkerDied(self.end_text))
        for in_flight in self._in_flight.values():
            in_flight.end()
        self.gone.set()
        await self._child.close()

    def _count_in_flight(self) -> None:
        """Record, once, how many images are in flight as the worker dies: they leave one by one."""
        if self._in_flight_at_end is None:
            self._in_flight_at_end = len(self._in_flight)

    def _death(self, text: str) -> WorkerDied:
        return WorkerDied(text, was_alone=self._in_flight_at_end == 1)
