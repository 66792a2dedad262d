"""The front end's side of one worker: start it, talk with it, see it die."""

import asyncio
import os
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ValidationError

from upscaled.pool.executor import OnTile
from upscaled.pool.messages import (
    Alive,
    Answer,
    Cancel,
    Configure,
    FromWorker,
    Job,
    Progress,
    Ready,
    ToWorker,
    Unusable,
    decode_from_worker,
    encode,
)
from upscaled.pool.stats import WorkerFigures
from upscaled.process import channel
from upscaled.process.child import WorkerUnusable, spawn
from upscaled.process.supervision import ALIVE_EVERY_S, Limits


class WorkerDied(Exception):
    """The process ended, or was killed because it hung; the text says how.

    `was_alone`: nothing but the image that is told this was under way, so nothing else can be at
    fault.
    """

    def __init__(self, text: str, *, was_alone: bool = False) -> None:
        super().__init__(text)
        self.was_alone = was_alone


class WorkTookTooLong(Exception):
    """The worker was alive and working, but the deadline passed; it has been killed."""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A job that was sent. A death is a value, not an exception: it may interest nobody."""

    on_tile: OnTile
    answer: asyncio.Future[tuple[Answer, bytes] | WorkerDied]


class WorkerProcess:
    """One running worker. `start` makes it; `gone` is set once the process is reaped.

    figures: what it said last of what it has done.
    """

    def __init__(self, process: Process, sock: socket.socket, limits: Limits) -> None:
        loop = asyncio.get_running_loop()
        self.gone = asyncio.Event()
        self.answered = 0
        self.end_text = ""
        self.figures = WorkerFigures()
        self._process = process
        self._sock = sock
        self._limits = limits
        self._is_usable = True
        self._sending = asyncio.Lock()
        # It holds a death as a value, as answers do.
        self._ready: asyncio.Future[Ready | WorkerUnusable | WorkerDied] = loop.create_future()
        self._under_way: dict[int, _UnderWay] = {}
        self._under_way_at_end: int | None = None
        self._heard_at = loop.time()
        self._tasks = {asyncio.create_task(self._listen())}

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        configure: Configure,
        limits: Limits,
    ) -> tuple["WorkerProcess", Ready]:
        """Start a worker and wait until its models are loaded.

        Raises:
            WorkerUnusable: it said why it cannot work, or could not be started at all.
            WorkerDied: it ended, or was not ready within `limits.start_s`.
        """
        spawning = asyncio.create_task(spawn(command, environment))
        try:
            worker = cls(*await asyncio.shield(spawning), limits)
        except asyncio.CancelledError:
            await asyncio.wait([spawning])
            if not spawning.exception():
                await cls(*spawning.result(), limits).end()
            raise
        ready = None
        try:
            async with asyncio.timeout(limits.start_s):
                await worker._say(configure)
                ready = await worker._ready
        except TimeoutError:
            raise WorkerDied(f"not ready within {limits.start_s:g} s") from None
        finally:
            if not isinstance(ready, Ready):
                await worker.end()
        if not isinstance(ready, Ready):
            raise ready
        return worker, ready

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether a job sent now may be answered."""
        return self._is_usable

    async def work(self, job: Job, source: bytes, on_tile: OnTile) -> tuple[Answer, bytes]:
        """Have one job done, beside others.

        Returns once the worker is done with it, also after `cancel`. Past its deadline the worker
        is killed, with all that it has under way.

        Raises:
            WorkerDied: the process ended, or fell silent and was killed.
            WorkTookTooLong: the deadline passed while it was working.
        """
        if not self._is_usable:
            raise WorkerDied("died before the job reached it")
        under_way = _UnderWay(on_tile, asyncio.get_running_loop().create_future())
        self._under_way[job.job] = under_way
        try:
            async with asyncio.timeout(self._limits.work_s):
                await self._say(job, source)
                answer = await under_way.answer
        except TimeoutError:
            raise self._overdue() from None
        finally:
            del self._under_way[job.job]
        if isinstance(answer, WorkerDied):
            raise answer
        self.answered += 1
        return answer

    def cancel(self, job: Job) -> None:
        """Ask for a running job to be stopped; `work` then returns `Cancelled` or what was done."""
        task = asyncio.create_task(self._say_if_alive(Cancel(job=job.job)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Let the process end, then make it; cancelled meanwhile, it is still seen through."""
        self._is_usable = False
        ending = asyncio.create_task(self._end())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait([ending])
            raise

    async def _end(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        try:
            async with asyncio.timeout(self._limits.end_s):
                await self.gone.wait()
        except TimeoutError:
            self._kill()
            await self.gone.wait()

    def _overdue(self) -> Exception:
        silent_s = asyncio.get_running_loop().time() - self._heard_at
        self._is_usable = False
        self._count_under_way()
        self._kill()
        if silent_s > 2.5 * ALIVE_EVERY_S:
            return self._death(f"worker {self.pid} hung, silent for {silent_s:.1f} s, killed")
        return WorkTookTooLong(f"worked on one image for {self._limits.work_s:g} s")

    async def _say(self, message: ToWorker, payload: bytes = b"") -> None:
        try:
            async with self._sending:
                await channel.asend(self._sock, encode(message), payload)
        except OSError:
            await self.gone.wait()
            raise self._death(self.end_text) from None

    async def _say_if_alive(self, message: ToWorker) -> None:
        with suppress(WorkerDied):
            await self._say(message)

    async def _listen(self) -> None:
        """Hear the worker out until it ends, then settle everything that waits for it."""
        cause = "was let go"
        limit_s = self._limits.start_s
        try:
            while True:
                async with asyncio.timeout(limit_s):
                    frame = await channel.areceive(self._sock)
                self._heard_at = asyncio.get_running_loop().time()
                self._hear(decode_from_worker(frame.header), frame.payload)
                if self._ready.done():
                    limit_s = self._limits.silence_s
        except TimeoutError:
            cause = f"was silent for {limit_s:g} s, killed"
        except (EOFError, OSError):
            cause = "ended"
        except (channel.FrameError, ValidationError) as error:
            cause = f"spoke nonsense, killed: {error}"
        finally:
            await self._bury(cause)

    def _hear(self, message: FromWorker, payload: bytes) -> None:
        match message:
            case Alive():
                self.figures = message.figures
            case Ready() if not self._ready.done():
                self._ready.set_result(message)
            case Unusable() if not self._ready.done():
                self._ready.set_result(WorkerUnusable(message.reason))
            case Ready() | Unusable():
                raise channel.FrameError(f"{message.kind} out of place")
            case _ if message.job not in self._under_way:
                raise channel.FrameError(f"{message.kind} for a job that is not running")
            case Progress():
                self._under_way[message.job].on_tile(message.done, message.total)
            case _ if not self._under_way[message.job].answer.done():
                self._under_way[message.job].answer.set_result((message, payload))

    async def _bury(self, cause: str) -> None:
        self._is_usable = False
        self._count_under_way()
        self._kill()
        status = await self._process.wait()
        self.end_text = f"worker {self.pid} {cause} ({_describe_status(status)})"
        if not self._ready.done():
            self._ready.set_result(WorkerDied(self.end_text))
        for under_way in self._under_way.values():
            if not under_way.answer.done():
                under_way.answer.set_result(self._death(self.end_text))
        self.gone.set()
        # Whoever is still sending fails now, for the other end is closed; closing this end
        # under them would leave them waiting for ever.
        async with self._sending:
            self._sock.close()

    def _count_under_way(self) -> None:
        """Once, when the end comes: from then on images leave one by one."""
        if self._under_way_at_end is None:
            self._under_way_at_end = len(self._under_way)

    def _death(self, text: str) -> WorkerDied:
        return WorkerDied(text, was_alone=self._under_way_at_end == 1)

    def _kill(self) -> None:
        # Not Process.kill: it may reap the process before asyncio does, and lose its exit status.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def _describe_status(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    return f"by {signal.Signals(-status).name}"
