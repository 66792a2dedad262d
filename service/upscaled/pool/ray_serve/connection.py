"""Connect a front end to the deployment, and again whenever Ray Serve is made anew."""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Final, TypeVar

from upscaled.pool.ray_serve.options import NODE_ENVIRONMENT, RECONNECT_TIMEOUT

# Read as ray is loaded: a front end waits so long for a cluster's head that is away. Ray's default
# is a minute, after which the process aborts, whatever it has under way.
os.environ.setdefault(RECONNECT_TIMEOUT, NODE_ENVIRONMENT[RECONNECT_TIMEOUT])
# Read then too: gRPC writes text to standard error, among it a line for each process that is
# forked. What its errors lead to is logged by this process.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import ray
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import (
    DeploymentBroadcastResponse,
    DeploymentHandle,
    DeploymentResponseGenerator,
)

from upscaled.errors import InternalError
from upscaled.logs import JsonFormatter, event
from upscaled.pool.ray_serve import messages

_LOGGERS: Final = ("ray", "ray.serve")
"""Each has a handler of its own once it is imported, which writes text to standard error."""
_CPP_LOG_JSON: Final = "RAY_BACKEND_LOG_JSON"
"""Ray's C++ writes to standard error past every logger: its errors, as text unless this is set."""
_CHECKED_EVERY_S: Final = 2.0
_REPORTS_WITHIN_S: Final = 5.0
_DISCONNECTED_WITHIN_S: Final = 5.0

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class _Generation:
    """The deployment under one controller; a handle of it is of no use under the next.

    over: done once there is another, or this front end stops.
    """

    def __init__(self, controller: object, handle: DeploymentHandle) -> None:
        self.controller = controller
        self.handle = handle
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class RayConnection:
    """`Replicas` of a Ray cluster: that of this machine, or the one that `RAY_ADDRESS` names."""

    def __init__(self) -> None:
        _log_as_all_else()
        self._generation: _Generation | None = None
        self._connected = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._last_trouble = ""

    async def start(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """See `Replicas.stop`; nothing of the cluster is stopped.

        While the head is away, Ray neither answers nor disconnects. Its threads are then left
        behind, and the end of the process must not wait for them: see `upscaled.cli.serve`.
        """
        if self._watching:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
        try:
            async with asyncio.timeout(_DISCONNECTED_WITHIN_S):
                await self._leave()
        except TimeoutError:
            _log.warning("Ray does not disconnect, its head is away", extra=event("cluster_left"))
        self._connected.set()  # what still waits for a connection gets none

    async def upscale(self, job: bytes, source: bytes) -> AsyncGenerator[tuple[bytes, bytes], None]:
        await self._connected.wait()
        generation = self._generation
        if generation is None:
            raise messages.ReplicaLost("the connection ended")
        answers = generation.handle.options(stream=True).upscale.remote(job, source)
        del source  # the call of a faulty replica is kept when the image is answered long since
        try:
            while True:
                yield await _next(answers, generation.over)
        except StopAsyncIteration:
            return
        except BackPressureError as error:
            raise messages.NoReplicaFree(str(error)) from None
        except RayTaskError as error:
            raise InternalError(detail=f"a replica failed: {error}") from None
        except (RayError, RayServeException) as error:
            raise messages.ReplicaLost(_first_line(error)) from None
        finally:
            answers.cancel()

    async def reports(self) -> list[bytes]:
        if self._generation is None:
            raise messages.ReplicaLost(self._last_trouble or "not connected")
        try:
            asked = self._generation.handle.broadcast("report")
            answers = await asyncio.to_thread(_collect, asked)
        except Exception as error:  # noqa: BLE001 (what Ray raises here has no common type)
            raise messages.ReplicaLost(_first_line(error)) from None
        return [answer for answer in answers if isinstance(answer, bytes)]

    async def _watch(self) -> None:
        while True:
            try:
                if self._generation is None:
                    await self._connect()
                elif await self._is_replaced(self._generation):
                    await self._leave()
                    continue
            except Exception as error:  # noqa: BLE001 (what Ray raises here has no common type)
                self._note_trouble(_first_line(error))
            await asyncio.sleep(_CHECKED_EVERY_S)

    async def _connect(self) -> None:
        self._generation = _Generation(*await _in_thread(_find_deployment))
        self._connected.set()
        self._last_trouble = ""
        _log.info("connected to the cluster", extra=event("cluster_connected"))

    async def _is_replaced(self, generation: _Generation) -> bool:
        """Return whether another controller runs; while none can be found, nothing has changed."""
        with suppress(ValueError, RayError):
            return bool(await _in_thread(_find_controller) != generation.controller)
        return False

    async def _leave(self) -> None:
        """Disconnect, so that what is under way is sent again over the next connection."""
        generation, self._generation = self._generation, None
        self._connected.clear()
        if generation:
            generation.over.set_result(None)
        await _in_thread(ray.shutdown)

    def _note_trouble(self, trouble: str) -> None:
        if trouble != self._last_trouble:
            fields = event("cluster_unreachable")
            _log.warning("no deployment is reached: %s", trouble, extra=fields)
        self._last_trouble = trouble


def _log_as_all_else() -> None:
    """Have what Ray logs, from warnings on, written by this process's log and in its format."""
    root = logging.getLogger()
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(logging.WARNING, root.level))
    if any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers):
        os.environ.setdefault(_CPP_LOG_JSON, "1")  # read when it connects


async def _in_thread(call: Callable[[], _T]) -> _T:
    """Return what a call returns that may wait for as long as the cluster's head is away.

    It has a thread that the end of this process does not wait for, unlike the event loop's own.
    """
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 (raised by what awaits it)
            outcome.set_exception(error)

    outcome.set_running_or_notify_cancel()
    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(outcome)


def _find_deployment() -> tuple[object, DeploymentHandle]:
    if not ray.is_initialized():
        ray.init("auto", namespace=messages.NAMESPACE, log_to_driver=False, configure_logging=False)
    return _find_controller(), serve.get_deployment_handle(
        messages.DEPLOYMENT, messages.APPLICATION
    )


def _find_controller() -> object:
    """Return what no two controllers have in common; raises ValueError where there is none."""
    return ray.get_actor(messages.CONTROLLER, namespace=messages.NAMESPACE)._actor_id


def _collect(asked: DeploymentBroadcastResponse) -> list[object]:
    """Wait for answers, in a thread: `results_async` has none at all where a replica is silent.

    Raises:
        ReplicaLost: no answer can come; a future that Ray cancels would here cancel the caller.
    """
    try:
        answers: list[object] = asked.results(timeout_s=_REPORTS_WITHIN_S, return_exceptions=True)
    except CancelledError:
        raise messages.ReplicaLost("Ray gave the reports up") from None
    return answers


async def _next(
    answers: DeploymentResponseGenerator, over: "asyncio.Future[None]"
) -> tuple[bytes, bytes]:
    """Return the next message of a call, or raise ReplicaLost once its generation is over."""
    step = asyncio.ensure_future(answers.__anext__())
    # Ray answers a cancellation with an error, and asyncio logs one that is not looked at.
    step.add_done_callback(lambda step: step.cancelled() or step.exception())
    try:
        await asyncio.wait((step, over), return_when=asyncio.FIRST_COMPLETED)
        if not step.done():
            raise messages.ReplicaLost("Ray Serve was made anew")
        header, payload = step.result()
        return header, payload
    finally:
        step.cancel()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
