"""A flood of one key or of many refuses no image of another key."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.service.api.executors import ResizingExecutor
from tests.service.api.pictures import picture
from tests.service.api.serving import MakeService, Service
from tests.service.api.waiting import wait_until
from tests.service.pool.pools import QUICK, fake_command, order
from upscaled.config import load_settings
from upscaled.pool.executor import PoolStats, UpscaleRequest
from upscaled.pool.local import LocalPool
from upscaled.upscale.result import Result

QUEUE = 6
REFUSALS = 'upscaled_refusals_total{reason="queue"} '


class QueueingExecutor(ResizingExecutor):
    """The pool of one worker with one slot, which takes 0.1 s for any image."""

    def __init__(self) -> None:
        super().__init__()
        settings = load_settings({}, max_queue=QUEUE, workers=1, jobs_per_worker=1)
        self.pool = LocalPool(settings, command=fake_command(), limits=QUICK)

    async def start(self) -> None:
        await self.pool.start()
        await self.pool.wait_ready()

    async def stop(self, grace_s: float) -> None:
        await self.pool.stop(grace_s)

    def is_ready(self) -> bool:
        return self.pool.is_ready()

    def stats(self) -> PoolStats:
        return self.pool.stats()

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        return await self.pool.upscale(order("answer", after_s=0.1), request)


@pytest.fixture
def shared(make_service: MakeService) -> Service:
    return make_service(QueueingExecutor(), max_queue=QUEUE, jobs_per_worker=1)


def upload(service: Service, key: str, side_px: int = 64) -> requests.Response:
    headers = {"X-API-KEY": key, "Accept": "image/*"}
    return service.upload(picture(side_px, side_px), headers=headers)


def flood(
    service: Service, pool: ThreadPoolExecutor, keys: list[str], is_over: threading.Event
) -> list[int]:
    """Statuses of 12 clients, each of which sends its next picture at once."""

    def send_on(number: int) -> list[int]:
        statuses = []
        while not is_over.is_set():
            statuses.append(upload(service, keys[number % len(keys)], 300).status_code)
        return statuses

    return [status for each in pool.map(send_on, range(12)) for status in each]


@pytest.mark.slow
@pytest.mark.parametrize("many", [1, QUEUE - 1], ids=["one key floods", "many keys flood"])
def test_a_flood_refuses_no_picture_of_another_key(shared: Service, many: int) -> None:
    flooding = [shared.state.keys.create(f"flood{number}") for number in range(many)]
    with ThreadPoolExecutor(20) as pool:
        is_over = threading.Event()
        flooded = pool.submit(flood, shared, pool, flooding, is_over)
        try:
            wait_until(lambda: shared.executor.stats().waiting == QUEUE)
            own = [upload(shared, shared.key).status_code for _ in range(5)]
        finally:
            is_over.set()
        statuses = Counter(flooded.result())
    assert own == [200] * 5
    assert set(statuses) == {200, 429}


def test_a_flood_of_one_key_leaves_the_service_ready_and_counts_its_refusals(
    shared: Service,
) -> None:
    with ThreadPoolExecutor(20) as pool:
        is_over = threading.Event()
        flooded = pool.submit(flood, shared, pool, [shared.key], is_over)
        try:
            wait_until(lambda: shared.executor.stats().most_of_one_key == QUEUE)
            assert shared.get("/readyz").status_code == 200
            wait_until(lambda: REFUSALS in shared.get("/metrics").text)
        finally:
            is_over.set()
        statuses = Counter(flooded.result())
    assert set(statuses) == {200, 429}


def test_queued_requests_of_a_revoked_key_are_answered(shared: Service) -> None:
    key = shared.state.keys.create("revoked")
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(upload, shared, key) for _ in range(QUEUE)]
        wait_until(lambda: shared.executor.stats().waiting >= 2)
        shared.state.keys.revoke("revoked")
        assert upload(shared, key).status_code == 401
        assert upload(shared, shared.key).status_code == 200
        statuses = Counter(answer.result().status_code for answer in answers)
    assert set(statuses) <= {200, 401}  # one may have come too late
    assert statuses[200] >= 3
