import asyncio
import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.service.api.answers import assert_error
from tests.service.api.executors import HangingExecutor, LargeExecutor, ResizingExecutor
from tests.service.api.pictures import picture_of_bytes
from tests.service.api.raw import Connection
from tests.service.api.serving import MakeService, Service
from tests.service.api.waiting import wait_until
from upscaled.api.memory import (
    ARRIVING_IMAGES,
    UNPAID_BODIES,
    MemoryBudget,
    MemoryShare,
    UnsentResponses,
    build_budget,
    max_bodies,
)
from upscaled.config import SLOTS_ON_CUDA, load_settings
from upscaled.errors import RateLimitExceeded

MB = 1024 * 1024


def test_memory_is_returned_at_the_end_of_a_request() -> None:
    budget = MemoryBudget(100)
    with budget.share(1) as first:
        first.count(60)
        with budget.share(1) as second:
            second.count(40)
            with pytest.raises(RateLimitExceeded):
                second.count(1)
            with pytest.raises(RateLimitExceeded):
                first.count(1)
        first.count(40)
    assert budget.held_bytes == 0


def test_memory_is_returned_after_an_error_too() -> None:
    budget = MemoryBudget(100)

    def fail() -> None:
        with budget.share(1) as share:
            share.count(100)
            raise ValueError("any")

    with pytest.raises(ValueError, match="any"):
        fail()
    assert budget.held_bytes == 0
    assert not budget._accounts


@pytest.mark.parametrize(("given", "slots"), [(0, SLOTS_ON_CUDA), (1, 1), (16, 16)])
def test_the_budget_is_enough_for_queue_and_workers(given: int, slots: int) -> None:
    settings = load_settings({}, max_queue=3, workers=2, jobs_per_worker=given, max_file_bytes=MB)
    assert build_budget(settings).limit_bytes == (3 + 2 * slots + ARRIVING_IMAGES) * MB


Arrival = tuple[MemoryShare, "asyncio.Task[None]"]


async def hold(budget: MemoryBudget, key_id: int, size_bytes: int) -> Arrival:
    """An image of a key that arrives until it is preempted."""
    begun: asyncio.Future[MemoryShare] = asyncio.get_running_loop().create_future()

    async def arrive() -> None:
        with budget.share(key_id) as share:
            async with share.arriving():
                share.count(size_bytes)
                begun.set_result(share)
                await asyncio.sleep(3600)

    task = asyncio.create_task(arrive())
    return await begun, task


async def gave_way(*arrivals: Arrival) -> str:
    """A letter for each: y or n."""
    for _ in range(3):
        await asyncio.sleep(0)
    for _, task in arrivals:
        if task.done():
            with pytest.raises(RateLimitExceeded) as caught:
                task.result()
            assert caught.value.reason == "gave_way"
    return "".join("y" if task.done() else "n" for _, task in arrivals)


async def test_the_newest_image_of_the_key_that_holds_most_is_preempted() -> None:
    budget = MemoryBudget(100)
    flood = [await hold(budget, 1, 20) for _ in range(4)]
    other = await hold(budget, 2, 20)
    with budget.share(3) as share:
        share.count(10)
        assert budget.held_bytes == 90
        assert await gave_way(*flood, other) == "nnnyn"
        share.count(10)
        share.count(10)
        assert await gave_way(*flood, other) == "nnyyn"


async def test_a_key_preempts_no_key_that_holds_less_than_itself() -> None:
    budget = MemoryBudget(100)
    flood = [await hold(budget, 1, 10) for _ in range(10)]
    with budget.share(2) as share:
        for _ in range(45):
            share.count(1)
        share.count(5)
        with pytest.raises(RateLimitExceeded) as caught:
            share.count(1)
        assert caught.value.reason == "body_memory"
        assert await gave_way(*flood) == "nnnnn" + "yyyyy"


async def test_an_image_that_has_arrived_is_not_preempted() -> None:
    budget = MemoryBudget(100)
    with budget.share(1) as arrived:
        async with arrived.arriving():
            arrived.count(100)
        with budget.share(2) as late, pytest.raises(RateLimitExceeded):
            late.count(1)
        assert arrived.size_bytes == 100


async def test_a_preempted_share_counts_nothing_more_and_is_interrupted() -> None:
    budget = MemoryBudget(100)
    arrival = await hold(budget, 1, 100)
    with budget.share(2) as other:
        other.count(1)
        with pytest.raises(RateLimitExceeded):
            arrival[0].count(1)
        assert budget.held_bytes == 1
        assert await gave_way(arrival) == "y"
    assert budget.held_bytes == 0


async def test_a_body_preempted_in_the_moment_it_has_arrived_is_refused_too() -> None:
    budget = MemoryBudget(100)

    async def arrive(share: MemoryShare) -> None:
        async with share.arriving():
            share.count(100)
            with budget.share(2) as other:
                other.count(50)

    with budget.share(1) as share, pytest.raises(RateLimitExceeded):
        await arrive(share)


async def test_a_timeout_of_the_block_itself_is_raised() -> None:
    with MemoryBudget(100).share(1) as share, pytest.raises(TimeoutError):
        async with share.arriving(), asyncio.timeout(0):
            await asyncio.sleep(1)


@given(
    st.integers(10, 200), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 60)), max_size=60)
)
def test_no_key_is_preempted_by_one_that_holds_as_many_bytes(
    limit_bytes: int, steps: list[tuple[int, int]]
) -> None:
    """Every image is still arriving. The sum is always kept, and full whenever one is refused."""

    async def play() -> None:
        budget = MemoryBudget(limit_bytes)
        shares: list[MemoryShare] = []

        def held(key_id: int) -> int:
            account = budget._accounts.get(key_id)
            return account.held_bytes if account else 0

        for key_id, size_bytes in steps:
            before = {each: held(each) for each in range(1, 5)}
            try:
                shares.append(hold_or_refuse(budget, key_id, size_bytes))
            except RateLimitExceeded:
                assert budget.held_bytes + size_bytes > limit_bytes
            lost = [each for each in before if each != key_id and held(each) < before[each]]
            assert all(before[each] > before[key_id] + size_bytes for each in lost)
            assert budget.held_bytes == sum(share.size_bytes for share in shares) <= limit_bytes
        for share in shares:
            share.close()

    asyncio.run(play())


def hold_or_refuse(budget: MemoryBudget, key_id: int, size_bytes: int) -> MemoryShare:
    """As `hold`, without a task: what gives way only gives its bytes back."""
    opened = budget.share(key_id)
    share = opened.__enter__()
    share._account.arriving[share] = None
    try:
        share.count(size_bytes)
    except RateLimitExceeded:
        opened.__exit__(None, None, None)
        raise
    return share


@pytest.mark.parametrize(
    ("metering", "balance", "most"),
    [(False, 0, None), (True, 0, UNPAID_BODIES), (True, 7, 7 + UNPAID_BODIES)],
)
def test_unfinished_bodies_are_limited_by_the_balance_of_the_key(
    metering: bool, balance: int, most: int | None
) -> None:
    assert max_bodies(load_settings({}, metering=metering), balance) == most


def test_one_body_more_than_may_be_unfinished_is_refused() -> None:
    budget = MemoryBudget(100)
    with budget.share(1, 1) as first, budget.share(1, 1) as second, budget.share(2, 1) as other:
        with first.body():
            with pytest.raises(RateLimitExceeded) as caught, second.body():
                pass
            assert caught.value.reason == "key_bodies"
            with other.body():
                pass
        with second.body():
            pass


@pytest.fixture
def crowded(make_service: MakeService) -> Service:
    """One slot, no queue: 9 images of a megabyte may be here at a time. None is finished."""
    return make_service(HangingExecutor(), max_queue=0, jobs_per_worker=1, max_file_bytes=MB)


def refusals(service: Service, reason: str) -> float:
    name = f'upscaled_refusals_total{{reason="{reason}"}} '
    (line,) = (each for each in service.get("/metrics").text.splitlines() if name in each)
    return float(line.removeprefix(name))


def send_unfinished(service: Service, count: int) -> list[Connection]:
    """Uploads of a megabyte that lack their last byte."""
    senders = [Connection(service) for _ in range(count)]
    for sender in senders:
        sender.send_head("Content-Type: application/json", f"Content-Length: {MB}")
        sender.send(b" " * (MB - 1))
    return senders


def test_one_image_too_many_is_refused_and_no_other_is_preempted(crowded: Service) -> None:
    """Uploads that stop in the middle; once they end, others are accepted again."""
    budget = crowded.app.state.context.budget
    senders = send_unfinished(crowded, 9)
    wait_until(lambda: budget.held_bytes == 9 * (MB - 1))
    refused = crowded.upload(picture_of_bytes(MB // 2))
    assert_error(refused, 429, "rate_limit_exceeded")
    assert int(refused.headers["Retry-After"]) >= 1
    senders[0].send(b" ")
    senders[0].receive().assert_error(400, "invalid_request_body")
    for sender in senders:
        sender.socket.close()
    wait_until(lambda: budget.held_bytes == 0)


def test_one_keys_unfinished_uploads_refuse_no_other_key(make_service: MakeService) -> None:
    service = make_service(ResizingExecutor(), max_queue=0, jobs_per_worker=1, max_file_bytes=MB)
    other = {"X-API-KEY": service.state.keys.create("other")}
    budget = service.app.state.context.budget
    senders = send_unfinished(service, 9)
    wait_until(lambda: budget.held_bytes == 9 * (MB - 1))
    assert service.get("/readyz").status_code == 200
    for _ in range(5):
        assert service.upload(headers=other).status_code == 200
    for _ in range(2):
        assert service.upload(picture_of_bytes(MB // 2), headers=other).status_code == 200
    # The order in which they were sent does not say which of them arrived last.
    readable, _, _ = select.select([each.socket for each in senders], [], [], 10)
    (refused,) = (each for each in senders if each.socket in readable)
    refused.receive().assert_error(429, "rate_limit_exceeded")
    assert budget.held_bytes == 8 * (MB - 1)
    other_sender = next(each for each in senders if each is not refused)  # the others go on
    other_sender.send(b" ")
    other_sender.receive().assert_error(400, "invalid_request_body")
    for sender in senders:
        sender.socket.close()
    wait_until(lambda: refusals(service, "gave_way") == 1)


def test_a_key_that_is_revoked_while_it_sends_holds_nothing_afterwards(crowded: Service) -> None:
    budget = crowded.app.state.context.budget
    senders = send_unfinished(crowded, 3)
    wait_until(lambda: budget.held_bytes == 3 * (MB - 1))
    crowded.state.keys.revoke("test")
    assert_error(crowded.upload(), 401, "invalid_auth_token")
    for sender in senders:
        sender.socket.close()
    wait_until(lambda: budget.held_bytes == 0 and not budget._accounts)


@contextmanager
def stalling_source(data: bytes) -> Iterator[str]:
    """The URL of a web server that sends `data` of one byte more, and waits."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data) + 1}\r\n\r\n".encode()
    held = []

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.recv(65536)
                connection.sendall(head + data)
                held.append(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(60)
            for connection in held:
                connection.close()


def test_images_that_are_being_fetched_are_preempted_too(make_service: MakeService) -> None:
    """Sources that stop before their last byte; what they have on hold is given back."""
    service = make_service(
        ResizingExecutor(),
        credits=9,
        metering=True,
        max_queue=0,
        jobs_per_worker=1,
        max_file_bytes=MB,
        source_timeout_s=30,
        allowed_source_cidrs="127.0.0.0/8",
    )
    other = {"X-API-KEY": service.state.keys.create("other", credits=9)}
    budget = service.app.state.context.budget
    with stalling_source(bytes(MB - 1000)) as url:
        body = json.dumps({"scale": 2, "image_url": url}).encode()
        senders = [Connection(service) for _ in range(9)]
        for sender in senders:
            sender.send_head("Content-Type: application/json", f"Content-Length: {len(body)}")
            sender.send(body)
        wait_until(lambda: budget.held_bytes > 9 * (MB - 1000))
        assert service.balance() == 0
        for _ in range(3):
            assert service.upload(picture_of_bytes(MB // 2), headers=other).status_code == 200
        assert budget.held_bytes <= 8 * MB
        assert service.get("/readyz").status_code == 200
        for sender in senders:
            sender.socket.close()
        wait_until(lambda: service.balance() == 9)


def test_a_key_with_one_credit_has_few_unfinished_bodies(make_service: MakeService) -> None:
    service = make_service(metering=True, credits=1, max_file_bytes=MB)
    budget = service.app.state.context.budget
    senders = send_unfinished(service, 1 + UNPAID_BODIES)
    wait_until(lambda: budget.held_bytes == (1 + UNPAID_BODIES) * (MB - 1))
    assert_error(service.upload(), 429, "rate_limit_exceeded")
    with Connection(service) as too_long:  # checked before
        too_long.send_head("Content-Type: application/json", f"Content-Length: {3 * MB}")
        too_long.receive().assert_error(400, "file_size_too_large")
    senders.pop().socket.close()
    wait_until(lambda: budget.held_bytes == UNPAID_BODIES * (MB - 1))
    assert service.upload().status_code == 200
    for sender in senders:
        sender.socket.close()
    wait_until(lambda: refusals(service, "key_bodies") == 1)


class Held:
    """A connection that holds so many bytes."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def unsent_bytes(self) -> int:
        return self.size_bytes


def test_only_a_key_at_the_limit_of_unsent_bytes_is_refused() -> None:
    unsent = UnsentResponses(limit_bytes=100)
    first, second = Held(60), Held(39)
    for each in (first, second, first):  # two answers on one connection are counted once
        unsent.note(1, each)
    unsent.check(1)
    second.size_bytes = 40
    with pytest.raises(RateLimitExceeded) as caught:
        unsent.check(1)
    assert caught.value.reason == "unread_answers"
    unsent.check(2)
    first.size_bytes = 0
    unsent.check(1)


def test_no_record_is_kept_of_responses_that_were_read() -> None:
    unsent = UnsentResponses()
    held = Held(5)
    unsent.note(1, held)
    held.size_bytes = 0
    unsent.check(1)
    unsent.note(2, held)
    assert not unsent._of_key


def begin_reading(service: Service, key: str) -> Connection:
    """Send an upload, and wait for the first byte of its response."""
    connection = Connection(service, key=key)
    connection.send_upload()
    assert connection.socket.recv(1, socket.MSG_PEEK)
    return connection


def read_all(connection: Connection) -> None:
    left_bytes = LargeExecutor.size_bytes
    while left_bytes > 0:
        data = connection.socket.recv(2**20)
        assert data
        left_bytes -= len(data)


@pytest.mark.parametrize("is_read", [True, False], ids=["read in the end", "left"])
def test_a_key_that_does_not_read_its_images_is_refused(
    make_service: MakeService, is_read: bool
) -> None:
    service = make_service(LargeExecutor(), metering=True, credits=10)
    service.app.state.context.unsent.limit_bytes = LargeExecutor.size_bytes
    other = service.state.keys.create("other", credits=10)
    silent = [begin_reading(service, service.key) for _ in range(2)]
    wait_until(lambda: service.app.state.context.reporter.in_flight == 0)
    refused = service.upload(headers=service.headers | {"Accept": "image/*"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert service.balance() == 8
    with begin_reading(service, other) as connection:
        read_all(connection)
    for connection in silent:
        if is_read:
            read_all(connection)
        connection.socket.close()
    wait_until(lambda: service.upload().status_code == 200)
    wait_until(lambda: 'refusals_total{reason="unread_answers"}' in service.get("/metrics").text)
