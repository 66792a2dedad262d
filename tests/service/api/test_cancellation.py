"""A client that leaves: its work stops, nothing is stored, nothing is charged."""

import asyncio
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.buckets import Bucket
from tests.garbage import Traced, leaving_none
from tests.service.api.answers import assert_error
from tests.service.api.executors import FailingExecutor, HangingExecutor, ResizingExecutor
from tests.service.api.pictures import picture
from tests.service.api.serving import MakeService, Service, serve
from tests.service.api.waiting import wait_until
from upscaled.api.cancellation import (
    Client,
    ClientDisconnected,
    cancel,
    run_to_end,
    watch_client,
)
from upscaled.api.memory import MemoryBudget, MemoryShare
from upscaled.state import open_state


def start_upload(service: Service) -> socket.socket:
    """Send a whole good upload and do not wait for the answer."""
    asked = requests.Request(
        "POST",
        f"{service.url}/v1/upscale",
        headers=service.headers,
        data={"scale": "2"},
        files={"image": ("a.png", picture())},
    ).prepare()
    head = "".join(f"{name}: {value!s}\r\n" for name, value in asked.headers.items())
    connection = socket.create_connection((service.host, service.port), timeout=60)
    assert isinstance(asked.body, bytes)
    connection.sendall(f"POST /v1/upscale HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + asked.body)
    return connection


def test_a_client_that_leaves_just_before_the_end_leaves_nothing_stored(
    make_service: MakeService,
) -> None:
    class LeftBehind(ResizingExecutor):
        """Finishes although it was cancelled, as a worker between two tiles may."""

        async def upscale(self, source: bytes, request: Any) -> Any:
            connections.pop().close()
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                return await super().upscale(source, request)

    connections: list[socket.socket] = []
    service = make_service(LeftBehind(), metering=True, credits=5)
    connections.append(start_upload(service))
    wait_until(lambda: not connections)
    wait_until(lambda: service.balance() == 5)
    assert service.stored_files() == []
    assert service.state.credits.audit() == ()


def test_a_client_that_leaves_while_its_result_is_stored_leaves_none_in_the_bucket(
    make_service: MakeService, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from upscaled.state.bucket_results import BucketResults

    store = BucketResults.store

    async def store_and_lose_the_client(self: BucketResults, data: bytes, media_type: str) -> str:
        name = await store(self, data, media_type)
        assert f"{bucket.prefix}/{name}" in bucket.list_keys()
        connection = connections.pop()
        # Reset at once, not half closed, which a client that still reads may do too.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        await asyncio.sleep(0.2)
        return name

    connections: list[socket.socket] = []
    monkeypatch.setattr(BucketResults, "store", store_and_lose_the_client)
    service = make_service(metering=True, credits=5, **bucket.settings)
    connections.append(start_upload(service))
    wait_until(lambda: not connections and service.balance() == 5)
    assert bucket.list_keys() == []
    assert service.state.credits.audit() == ()


def test_a_client_that_leaves_while_sending_is_charged_nothing(make_service: MakeService) -> None:
    service = make_service(metering=True, credits=5)
    connection = socket.create_connection((service.host, service.port))
    head = (
        f"POST /v1/upscale HTTP/1.1\r\nHost: x\r\nX-API-KEY: {service.key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    connection.sendall(head.encode())
    time.sleep(0.1)
    connection.close()
    wait_until(lambda: "client_gone" in service.get("/metrics").text)
    assert service.balance() == 5


def test_a_request_that_waits_at_shutdown_is_answered_with_an_error(tmp_path: Path) -> None:
    """In the contract's words, and with its credit back."""
    executor = HangingExecutor()
    with serve(tmp_path, executor, metering=True, credits=5, stop_after_s=1) as service:
        connection = start_upload(service)
        assert executor.has_begun.wait(60)
    answer = connection.recv(4096)
    connection.close()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert answer.endswith(b'{"error":"Internal service error","error_code":"internal_error"}')
    with open_state(service.settings) as state:
        assert state.credits.show("test") == 5
        assert state.credits.audit() == ()


def test_work_cancelled_by_the_executor_is_an_internal_error(make_service: MakeService) -> None:
    service = make_service(FailingExecutor(asyncio.CancelledError()), metering=True, credits=5)
    assert_error(service.upload(), 500, "internal_error")
    assert service.balance() == 5


# The watch itself.


class Receiver:
    """An ASGI receive that returns once the client disconnects."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}


async def test_work_that_ends_first_gives_its_result() -> None:
    async with watch_client(Receiver().receive) as client:
        assert await client.run(asyncio.sleep(0, "done")) == "done"
        client.raise_if_disconnected()


async def test_an_exception_of_the_work_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("as it was")

    async with watch_client(Receiver().receive) as client:
        with pytest.raises(ValueError, match="as it was"):
            await client.run(fail())


async def test_a_client_that_disconnects_cancels_the_work_and_waits_for_its_end() -> None:
    receiver, ended = Receiver(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            ended.set()

    async with watch_client(receiver.receive) as client:
        asyncio.get_running_loop().call_later(0.01, receiver.left.set)
        with pytest.raises(ClientDisconnected):
            await client.run(work())
        assert ended.is_set()
        with pytest.raises(ClientDisconnected):
            client.raise_if_disconnected()


async def test_a_cancelled_request_cancels_the_work() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async def handle() -> None:
        async with watch_client(Receiver().receive) as client:
            await client.run(work())

    task = asyncio.create_task(handle())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_watching_a_client_leaves_no_task_running() -> None:
    async with watch_client(Receiver().receive) as client:
        assert isinstance(client, Client)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_run_to_end_returns_the_result() -> None:
    assert await run_to_end(asyncio.to_thread(lambda: 5)) == 5


async def test_run_to_end_raises_the_error() -> None:
    with pytest.raises(ZeroDivisionError):
        await run_to_end(asyncio.to_thread(lambda: 1 // 0))


@pytest.mark.parametrize("is_failing", [False, True])
async def test_a_cancelled_step_is_waited_for_and_undone(is_failing: bool) -> None:
    begun, go_on = threading.Event(), threading.Event()
    undone: list[str] = []

    def step() -> str:
        begun.set()
        go_on.wait(60)
        if is_failing:
            raise ValueError
        return "made"

    async def undo(made: str) -> None:
        undone.append(made)

    task = asyncio.create_task(run_to_end(asyncio.to_thread(step), undo))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == ([] if is_failing else ["made"])


async def fail_with(source: bytes) -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError(len(source))


async def receive_and_hang(share: MemoryShare, source: bytes) -> None:
    async with share.arriving():
        share.count(len(source))
    await asyncio.sleep(60)


@pytest.mark.parametrize("is_shielded", [False, True])
async def test_work_that_fails_is_forgotten_without_a_collection(is_shielded: bool) -> None:
    client = Client(asyncio.create_task(asyncio.sleep(60)))
    with leaving_none():
        with suppress(ZeroDivisionError):
            await (run_to_end if is_shielded else client.run)(fail_with(Traced(b"source")))
        await asyncio.sleep(0)
    await cancel(client._disconnect)


async def test_the_image_of_a_client_that_left_is_forgotten_without_a_collection() -> None:
    """The share of memory was in use while it arrived, and outlives the work."""
    client = Client(asyncio.create_task(asyncio.sleep(0)))
    with leaving_none():
        with MemoryBudget(1000).share(1) as share, suppress(ClientDisconnected):
            await client.run(receive_and_hang(share, Traced(b"source")))
        del share
        await asyncio.sleep(0)
