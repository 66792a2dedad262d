"""A credit is captured exactly once for a delivered success, and never for anything else."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.service.api.answers import assert_error
from tests.service.api.executors import FailingExecutor, ResizingExecutor
from tests.service.api.pictures import picture
from tests.service.api.serving import MakeService, Service
from tests.service.api.waiting import wait_until
from upscaled.api.billing import (
    FIRST_RETRY_S,
    LONGEST_RETRY_S,
    hold_credit,
    pause_before_retry_s,
    release_pending_credits,
)
from upscaled.api.telemetry.metrics import CreditEvent, Metrics
from upscaled.config import load_settings
from upscaled.errors import InternalError, MalformedImage
from upscaled.state import Clocks, DatabaseFailed, Hold, State, open_state
from upscaled.state.credits import CreditLedger, Retried
from upscaled.state.folder_results import FolderResults


def metered(
    make_service: MakeService, *arguments: Any, credits: int = 5, **settings: Any
) -> Service:
    return make_service(*arguments, metering=True, credits=credits, **settings)


def assert_credits_add_up(service: Service) -> None:
    assert service.state.credits.audit() == ()


def test_credits_last_for_as_many_successes(make_service: MakeService) -> None:
    service = metered(make_service, credits=3)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: service.upload(), range(8)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200] * 3 + [403] * 5
    assert service.balance() == 0
    assert len(service.stored_files()) == 3
    assert_credits_add_up(service)


def test_without_metering_no_credit_is_captured(make_service: MakeService) -> None:
    service = make_service(credits=5)
    assert service.upload().status_code == 200
    assert service.balance() == 5


def refused_requests(service: Service) -> list[Callable[[], Any]]:
    unreachable = {"image_url": "http://127.0.0.2:49999/", "scale": 2}
    return [
        lambda: service.upload(b"garbage"),
        lambda: service.upload(bytes(5_000_000)),
        lambda: service.upload(bytes(30_000_000)),
        lambda: service.upload(picture(format_name="GIF")),
        lambda: service.upload(picture(10, 10)),
        lambda: service.upload(picture(3001, 64)),
        lambda: service.upload(data={"scale": "3"}),
        lambda: service.upload(data={}),
        lambda: service.send_json(unreachable),
        lambda: service.send_json({}),
        lambda: service.send_json([]),
    ]


def test_a_refused_request_is_not_charged_and_stores_nothing(
    make_service: MakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = metered(make_service)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    for send in refused_requests(service):
        assert send().status_code == 400
    assert list(temporary.iterdir()) == []
    assert service.balance() == 5
    assert service.stored_files() == []
    assert_credits_add_up(service)


@pytest.mark.parametrize("error", [MalformedImage(), InternalError(), ValueError("unforeseen")])
def test_a_failed_job_is_not_charged_and_stores_nothing(
    make_service: MakeService, error: Exception
) -> None:
    service = metered(make_service, FailingExecutor(error))
    assert service.upload().status_code in (400, 500)
    assert service.balance() == 5
    assert service.stored_files() == []
    assert_credits_add_up(service)


@pytest.mark.parametrize("accept", ["*/*", "image/*"])
def test_a_failed_capture_delivers_nothing(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    def refuse(self: CreditLedger, hold: Any, paid: Any) -> None:
        raise OSError("the database is gone")

    service = metered(make_service)
    monkeypatch.setattr(CreditLedger, "capture", refuse)
    answer = service.upload(headers=service.headers | {"Accept": accept})
    assert_error(answer, 500, "internal_error")
    assert service.stored_files() == []
    assert service.balance() == 5
    assert_credits_add_up(service)


def test_a_hold_given_back_meanwhile_delivers_nothing(make_service: MakeService) -> None:
    """As the sweep does with a hold that is too old."""

    class Sweeping(FailingExecutor):
        async def upscale(self, source: bytes, request: Any) -> Any:
            with service.state.database.write() as connection:
                request_ids = connection.exec_driver_sql("SELECT request_id FROM open_holds")
                (request_id,) = request_ids.scalars()
            assert service.state.credits.release(Hold(1, request_id))
            return await super(FailingExecutor, self).upscale(source, request)

    service = metered(make_service, Sweeping(ValueError()))
    assert_error(service.upload(), 500, "internal_error")
    assert service.stored_files() == []
    assert service.balance() == 5
    assert_credits_add_up(service)


@pytest.mark.parametrize("set_by_s", [28 * 3600, -28 * 3600])
@pytest.mark.parametrize("stage", ["work", "capture"])
def test_a_clock_step_during_a_request_changes_nothing(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, stage: str, set_by_s: int
) -> None:
    offset_s = [0]

    def set_clock() -> None:
        offset_s[0] = set_by_s
        assert service.state.sweep().holds_released == 0

    class Setting(ResizingExecutor):
        async def upscale(self, source: bytes, request: Any) -> Any:
            if stage == "work":
                await asyncio.to_thread(set_clock)
            return await super().upscale(source, request)

    capture = CreditLedger.capture

    def set_and_capture(self: CreditLedger, hold: Any, paid: Any) -> None:
        if stage == "capture":
            set_clock()
        capture(self, hold, paid)

    monkeypatch.setattr(CreditLedger, "capture", set_and_capture)
    service = metered(make_service, Setting(), clock=Clocks(wall=lambda: time.time() + offset_s[0]))
    answer = service.upload()
    assert answer.status_code == 200
    service.state.sweep()
    assert service.get("/public/result/" + answer.json()["result_url"][-40:]).status_code == 200
    assert service.balance() == 4
    assert_credits_add_up(service)


def test_a_result_that_cannot_be_stored_is_not_charged(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: FolderResults, data: bytes, media_type: str) -> str:
        raise InternalError(detail="no space left")

    service = metered(make_service)
    monkeypatch.setattr(FolderResults, "store", refuse)
    assert_error(service.upload(), 500, "internal_error")
    assert service.balance() == 5
    assert_credits_add_up(service)


def test_a_failed_release_keeps_the_response_and_is_retried(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: CreditLedger, hold: Any) -> bool:
        raise OSError("the database is gone")

    monkeypatch.setattr("upscaled.api.billing.FIRST_RETRY_S", 0.01)
    service = metered(make_service, FailingExecutor(MalformedImage()))
    with monkeypatch.context() as patched:
        patched.setattr(CreditLedger, "give_back", refuse)
        for _ in range(3):
            assert_error(service.upload(), 400, "malformed_image")
        assert service.balance() == 2
    wait_until(lambda: service.balance() == 5)
    assert_credits_add_up(service)
    wait_until(lambda: 'credits_total{event="released"} 3.0' in service.get("/metrics").text)


@pytest.mark.parametrize(("losses", "status", "left"), [(1, 200, 4), (4, 200, 4), (5, 500, 5)])
def test_a_capture_whose_answer_is_lost_is_retried(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, losses: int, status: int, left: int
) -> None:
    """Each time it was committed, and the connection ended before it could say so."""
    capture, tried = CreditLedger.capture, []

    def lose(self: CreditLedger, hold: Any, paid: Any) -> None:
        capture(self, hold, paid)
        tried.append(hold)
        if len(tried) <= losses:
            raise DatabaseFailed("connection lost", is_connection_lost=True)

    monkeypatch.setattr("upscaled.api.billing.RETRIES_AFTER_S", (0, 0, 0, 0))
    monkeypatch.setattr(CreditLedger, "capture", lose)
    service = metered(make_service)
    assert service.upload().status_code == status
    assert service.balance() == left
    assert len(service.stored_files()) == (status == 200)
    assert_credits_add_up(service)


def test_a_capture_on_a_full_disk_is_not_retried(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []

    def refuse(self: CreditLedger, hold: Any, paid: Any) -> None:
        tried.append(hold)
        raise DatabaseFailed("database or disk is full")

    monkeypatch.setattr(CreditLedger, "capture", refuse)
    service = metered(make_service)
    assert_error(service.upload(), 500, "internal_error")
    assert len(tried) == 1
    assert service.balance() == 5


def test_a_stored_result_is_remembered_with_the_hold_that_paid_for_it(
    make_service: MakeService,
) -> None:
    service = metered(make_service)
    file_name = service.upload().json()["result_url"].rpartition("/")[2]
    assert service.upload(headers=service.headers | {"Accept": "image/*"}).status_code == 200
    with service.state.database.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT s.file_name, s.media_type, s.key_id FROM stored_results s"
            " JOIN credit_entries e ON e.request_id = s.request_id AND e.kind = 'capture'"
        ).all()
    assert [tuple(row) for row in rows] == [(file_name, "image/jpeg", 1)]


def test_a_repeated_request_id_is_charged_each_time(make_service: MakeService) -> None:
    service = metered(make_service)
    for _ in range(2):
        headers = service.headers | {"X-Request-Id": "always-the-same"}
        assert service.upload(headers=headers).status_code == 200
    assert service.balance() == 3


# The hold itself, cancelled at every point.


@pytest.fixture
def state(tmp_path: Path) -> Any:
    with open_state(load_settings({}, data_dir=tmp_path)) as opened:
        opened.keys.create("test", credits=1)
        yield opened


def slow(monkeypatch: pytest.MonkeyPatch, name: str) -> threading.Event:
    """MakeService one step of the ledger take a while; the event is set once it has begun."""
    begun = threading.Event()
    original = getattr(CreditLedger, name)

    def step(self: CreditLedger, *arguments: Any) -> Any:
        begun.set()
        time.sleep(0.1)
        return original(self, *arguments)

    monkeypatch.setattr(CreditLedger, name, step)
    return begun


async def use_credit(state: State, is_captured: bool) -> None:
    async with hold_credit(state, Metrics(), 1, metering=True) as charge:
        if is_captured:
            await charge.capture()
        else:
            raise InternalError


@pytest.mark.parametrize(
    ("step", "is_captured", "left"),
    [("hold", True, 1), ("capture", True, 1), ("give_back", False, 1)],
)
async def test_a_cancelled_step_is_never_left_half_done(
    state: State, monkeypatch: pytest.MonkeyPatch, step: str, is_captured: bool, left: int
) -> None:
    begun = slow(monkeypatch, step)
    task = asyncio.create_task(use_credit(state, is_captured))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert state.credits.balance(1) == left
    assert state.credits.audit() == ()


def test_the_wait_between_retries_doubles_up_to_a_maximum() -> None:
    waits = [pause_before_retry_s(failures) for failures in range(8)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert (waits[0], waits[-1]) == (FIRST_RETRY_S, LONGEST_RETRY_S)
    assert pause_before_retry_s(10**9) == LONGEST_RETRY_S


class FailingState:
    """A state whose database refuses so many times. It is its own ledger."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.pending = [1, 2]
        self.tried = 0

    @property
    def credits(self) -> "FailingState":
        return self

    def retry_pending(self) -> Retried:
        """The first credit goes through just before the database refuses for the last time."""
        self.tried += 1
        failure = DatabaseFailed("away") if self.tried <= self.failures else None
        released = {self.failures: 1, self.failures + 1: 1}.get(self.tried, 0)
        del self.pending[:released]
        return Retried(released, failure)


async def test_pending_credits_are_retried_until_all_are_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    sleep, is_done = asyncio.sleep, asyncio.Event()

    loop = asyncio.get_running_loop()

    async def note(seconds: float) -> None:
        if asyncio.get_running_loop() is not loop:  # of another test's service
            return await sleep(seconds)
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr("upscaled.api.billing.asyncio.sleep", note)
    state: Any = FailingState(4)
    events: list[str] = []

    class Noting(Metrics):
        def note_credit(self, event: CreditEvent) -> None:
            events.append(event)
            if len(events) == 2:
                is_done.set()

    task = asyncio.create_task(release_pending_credits(state, Noting()))
    async with asyncio.timeout(60):
        await is_done.wait()
    task.cancel()
    assert waits[:5] == [0.5, 1, 2, 4, 8]
    assert events == ["released", "released"]
    assert state.tried == 5
