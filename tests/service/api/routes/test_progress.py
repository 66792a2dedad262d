"""Progress over a real socket, while the request it belongs to is under way."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.service.api.answers import assert_error, assert_request_id
from tests.service.api.executors import FailingExecutor, ResizingExecutor
from tests.service.api.serving import MakeService, Service
from tests.service.api.waiting import wait_until
from upscaled.api.progress import MAX_WATCHERS_PER_KEY, Progress
from upscaled.api.routes import progress as progress_route
from upscaled.api.routes.progress import write_events
from upscaled.pool.executor import UpscaleRequest
from upscaled.upscale.result import Result

TILES = 3


class SteppingExecutor(ResizingExecutor):
    """Finishes one tile whenever the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Semaphore(0)
        self.images = 0

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        self.images += 1
        for done in range(TILES + 1):
            await asyncio.to_thread(self.may_go_on.acquire)
            if request.on_tile:
                request.on_tile(done, TILES)
        await asyncio.to_thread(self.may_go_on.acquire)
        return await super().upscale(source, request)

    def go_on(self, steps: int = 1) -> None:
        self.may_go_on.release(steps)


@pytest.fixture
def executor() -> Iterator[SteppingExecutor]:
    executor = SteppingExecutor()
    yield executor
    executor.go_on(1000)


@pytest.fixture
def stepping(make_service: MakeService, executor: SteppingExecutor) -> Service:
    service = make_service(executor)
    service.app.state.context.progress.arrival_wait_s = 0.05
    return service


def watch(service: Service, request_id: str, key: str = "") -> requests.Response:
    headers = {"X-API-KEY": key or service.key}
    return service.get(f"/v1/progress/{request_id}", headers=headers, stream=True)


def send(service: Service, request_id: str) -> requests.Response:
    return service.upload(headers={**service.headers, "X-Request-Id": request_id})


def read_events(answer: requests.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    lines = answer.iter_lines(decode_unicode=True, chunk_size=1)
    for line in lines:
        if line.startswith("event: "):
            yield line[7:], json.loads(next(lines).removeprefix("data: "))


def test_a_client_reads_the_tiles_of_its_own_request(
    stepping: Service, executor: SteppingExecutor
) -> None:
    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(send, stepping, "my-1")
        wait_until(lambda: watch(stepping, "my-1").status_code == 200)
        answer = watch(stepping, "my-1")
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
        assert_request_id(answer)
        events = read_events(answer)
        name, step = next(event for event in events if event[1]["stage"] != "receive")
        assert (name, step["stage"], step["tiles_total"]) == ("progress", "queue", None)
        seen = []
        for _ in range(TILES + 1):
            executor.go_on()
            seen.append(next(events))
        assert [step["stage"] for _, step in seen] == ["network"] * TILES + ["encode"]
        assert [step["tiles_done"] for _, step in seen] == list(range(TILES + 1))
        assert {step["tiles_total"] for _, step in seen} == {TILES}
        assert seen[0][1]["remaining_s"] == 0.25  # as the executor says, before the first tile
        assert all(step["remaining_s"] >= 0 for _, step in seen[1:])
        executor.go_on()
        assert list(events) == [("end", {"error_code": None})]
        assert sent.result().status_code == 200
    assert_error(watch(stepping, "my-1"), 404, "not_found")


def test_the_request_of_another_key_is_not_found(
    stepping: Service, executor: SteppingExecutor
) -> None:
    other_key = stepping.state.keys.create("other")
    with ThreadPoolExecutor(1) as thread:
        thread.submit(send, stepping, "my-2")
        wait_until(lambda: watch(stepping, "my-2").status_code == 200)
        others = watch(stepping, "my-2", other_key)
        never_sent = watch(stepping, "my-3", other_key)
        executor.go_on(1000)
    assert_error(others, 404, "not_found")
    assert others.text == never_sent.text
    assert others.status_code == never_sent.status_code


def test_progress_needs_a_key(service: Service) -> None:
    assert_error(service.get("/v1/progress/x"), 401, "invalid_auth_token")
    assert_error(watch(service, "x", "upk_wrong"), 401, "invalid_auth_token")


def test_watching_does_not_count_against_the_rate(make_service: MakeService) -> None:
    service = make_service(rate_per_s=0.001, rate_burst=1)
    service.app.state.context.progress.arrival_wait_s = 0.01
    for _ in range(3):
        assert_error(watch(service, "x"), 404, "not_found")
    assert service.upload().status_code == 200


def test_a_refused_request_ends_its_stream_with_the_reason(make_service: MakeService) -> None:
    may_fail = threading.Event()

    class Failing(FailingExecutor):
        async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
            await asyncio.to_thread(may_fail.wait, 60)
            return await super().upscale(source, request)

    service = make_service(Failing(RuntimeError("secret")))
    with ThreadPoolExecutor(1) as thread:
        thread.submit(send, service, "bad-1")
        events = read_events(watch(service, "bad-1"))
        next(events)
        may_fail.set()
        *_, last = events
    assert last == ("end", {"error_code": "internal_error"})


def test_a_head_is_answered_without_the_stream(
    stepping: Service, executor: SteppingExecutor
) -> None:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(send, stepping, "my-4")
        wait_until(lambda: watch(stepping, "my-4").status_code == 200)
        url = f"{stepping.url}/v1/progress/my-4"
        head = requests.head(url, headers=stepping.headers, timeout=60)
        executor.go_on(1000)
    assert head.status_code == 200
    assert head.headers["Content-Type"].startswith("text/event-stream")


def test_a_watcher_that_leaves_is_no_longer_counted(
    stepping: Service, executor: SteppingExecutor
) -> None:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(send, stepping, "my-5")
        wait_until(lambda: watch(stepping, "my-5").status_code == 200)
        wait_until(lambda: not stepping.app.state.context.progress._watchers)
        open_streams = [watch(stepping, "my-5") for _ in range(MAX_WATCHERS_PER_KEY)]
        refused = watch(stepping, "my-5")
        assert_error(refused, 429, "rate_limit_exceeded")
        assert refused.headers["Retry-After"] == "1"
        for stream in open_streams:
            stream.close()
        wait_until(lambda: watch(stepping, "my-5").status_code == 200)
        executor.go_on(1000)
    wait_until(lambda: not stepping.app.state.context.progress._watchers)


async def test_a_silent_request_is_kept_alive_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_route, "KEEP_ALIVE_S", 0.01)
    progress = Progress()
    events = write_events(progress)
    assert (await anext(events)).startswith(b"event: progress\n")
    assert await anext(events) == b":\n\n"
    progress.end("malformed_image")
    rest = [event async for event in events]
    assert rest[-1] == b'event: end\ndata: {"error_code": "malformed_image"}\n\n'


async def test_a_slow_watcher_misses_steps_but_not_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress_route, "LEAST_INTERVAL_S", 0.05)
    progress = Progress()
    events = write_events(progress)
    await anext(events)
    for done in range(1001):
        progress.note_tile(done, 1000)
    progress.end(None)
    rest = [event.decode() async for event in events]
    assert len(rest) == 2
    assert '"tiles_done": 1000' in rest[0]
