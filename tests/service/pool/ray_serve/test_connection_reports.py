"""Reports of replicas come in although one of them is silent; no cluster is started."""

import asyncio
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any

import pytest

from upscaled.logs import JsonFormatter
from upscaled.pool.ray_serve.messages import ReplicaLost
from upscaled.pool.ray_serve.options import RECONNECT_TIMEOUT

pytestmark = [
    pytest.mark.skipif(
        find_spec("ray") is None, reason="ray is not installed (requirements-cluster.lock)"
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of ray, as it is loaded
]


class Silent:
    """What Ray has of a replica that does not answer."""

    def get(self, timeout_s: float) -> bytes:
        time.sleep(timeout_s)
        raise TimeoutError

    async def get_async(self) -> bytes:
        await asyncio.sleep(1000)
        raise AssertionError


class Answering:
    """What Ray has of a replica that answers at once."""

    def get(self, timeout_s: float) -> bytes:
        return b"report"

    async def get_async(self) -> bytes:
        return b"report"


async def test_a_silent_replica_delays_no_other_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(RECONNECT_TIMEOUT, "3600")  # the import would set it for all tests
    from ray.serve.handle import DeploymentBroadcastResponse

    from upscaled.pool.ray_serve import connection

    async def ask() -> list[Silent | Answering]:
        return [Answering(), Silent(), Answering()]

    class Handle:
        def broadcast(self, _: str) -> DeploymentBroadcastResponse:
            return DeploymentBroadcastResponse(ask(), asyncio.get_running_loop())

    monkeypatch.setattr(connection, "_REPORTS_WITHIN_S", 0.2)
    replicas = connection.RayConnection()
    replicas._generation = connection._Generation(None, Handle())
    assert await replicas.reports() == [b"report", b"report"]


def test_warnings_of_ray_are_lines_of_the_log_and_nothing_else_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(RECONNECT_TIMEOUT, "3600")
    from upscaled.pool.ray_serve import connection

    monkeypatch.setenv("RAY_BACKEND_LOG_JSON", "")
    monkeypatch.delenv("RAY_BACKEND_LOG_JSON")
    monkeypatch.setattr(caplog.handler, "formatter", JsonFormatter())
    connection.RayConnection()
    logging.getLogger("ray.serve").warning("a replica has died")
    logging.getLogger("ray.worker").info("connected")
    assert caplog.messages == ["a replica has died"]
    assert os.environ["RAY_BACKEND_LOG_JSON"] == "1"  # what its C++ writes is JSON too


@pytest.mark.parametrize("call", ["_find_deployment", "ray.shutdown"])
def test_a_front_end_ends_while_a_call_of_ray_waits_for_the_head(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RECONNECT_TIMEOUT, "3600")
    from upscaled.pool.ray_serve import connection

    is_head_back, is_waiting = threading.Event(), threading.Event()

    def wait() -> tuple[object, object]:
        is_waiting.set()
        is_head_back.wait()
        return object(), object()

    async def start_and_stop() -> None:
        replicas = connection.RayConnection()
        await replicas.start()
        if call == "_find_deployment":
            await asyncio.to_thread(is_waiting.wait)
        await replicas.stop()

    monkeypatch.setattr(connection, "_DISCONNECTED_WITHIN_S", 0.1)
    monkeypatch.setattr(connection, "_find_deployment", lambda: (object(), object()))
    monkeypatch.setattr(f"{connection.__name__}.{call}", wait)
    later = threading.Timer(30, is_head_back.set)  # where it does wait, the test fails in time
    later.start()
    try:
        asyncio.run(start_and_stop())
        assert is_waiting.is_set()
        assert not is_head_back.is_set()
    finally:
        later.cancel()
        is_head_back.set()


async def cancel() -> list[Answering]:
    raise asyncio.CancelledError


async def fail() -> list[Answering]:
    raise RuntimeError("Event loop is closed")


@pytest.mark.parametrize("ask", [cancel, fail])
async def test_a_report_that_ray_cancels_only_counts_as_missing(
    ask: Callable[[], Coroutine[None, None, list[Answering]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RECONNECT_TIMEOUT, "3600")
    from ray.serve.handle import DeploymentBroadcastResponse

    from upscaled.pool.ray_serve import connection

    class Handle:
        def broadcast(self, _: str) -> DeploymentBroadcastResponse:
            return DeploymentBroadcastResponse(ask(), asyncio.get_running_loop())

    replicas = connection.RayConnection()
    replicas._generation = connection._Generation(None, Handle())
    with pytest.raises(ReplicaLost):
        await replicas.reports()


async def test_the_error_by_which_ray_answers_a_cancellation_is_not_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(RECONNECT_TIMEOUT, "3600")
    from upscaled.pool.ray_serve import connection

    class Answers:
        async def __anext__(self) -> tuple[bytes, bytes]:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                raise RuntimeError("cancelled") from None
            raise AssertionError

    logged: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: logged.append(context))
    over: asyncio.Future[None] = loop.create_future()
    loop.call_soon(loop.call_soon, over.set_result, None)  # once it waits
    with pytest.raises(ReplicaLost):
        await connection._next(Answers(), over)
    await asyncio.sleep(0.05)
    gc.collect()
    assert logged == []
