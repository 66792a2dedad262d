"""Front ends of one PostgreSQL choose by what the first one wrote, or are not ready."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
import sqlalchemy as sa

from tests.service.api.executors import IdleExecutor, ResizingExecutor
from tests.service.api.serving import Service, serve
from tests.service.api.waiting import wait_until
from upscaled.api import readiness
from upscaled.process.child import ChildUnusable
from upscaled.state.schema import AUTO_CHOICE
from upscaled.upscale.model_choice import AutoChoice, Rung

PLAN = "upscaled-x4 0123"
FAST = AutoChoice(plans={4: PLAN}, ladders={4: (Rung(model="large"), Rung(model="upscaled-x4"))})
SLOW = AutoChoice(plans={4: PLAN}, ladders={4: (Rung(model="upscaled-x4"),)})
OTHER = AutoChoice(plans={4: "upscaled-x4 ffff"}, ladders=SLOW.ladders)


class Machine(IdleExecutor):
    """Has workers whose machine would choose so."""

    def __init__(self, choice: AutoChoice) -> None:
        super().__init__()
        self.choice = choice


class Starting(Machine):
    """Has no worker at first."""

    starts = 0

    async def own_choice(self) -> AutoChoice:
        self.starts += 1
        if self.starts < 3:
            raise ChildUnusable("no device")
        return await super().own_choice()


class FrontEnds:
    """Front ends of one database, each on a machine of its own."""

    def __init__(self, url: str, folder: Path, stack: ExitStack) -> None:
        self._url, self._folder, self._stack = url, folder, stack
        self._count, self._key = 0, ""

    def start(self, executor: ResizingExecutor) -> Service:
        self._count += 1
        folder = self._folder / str(self._count)
        made = serve(folder, executor, key=self._key, database_url=self._url)
        service = self._stack.enter_context(made)
        self._key = service.key
        return service


@pytest.fixture
def front_ends(
    server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FrontEnds]:
    monkeypatch.setattr(readiness, "CHECKED_EVERY_S", 0.02)
    with ExitStack() as stack:
        yield FrontEnds(server_url, tmp_path, stack)


def is_ready(service: Service) -> bool:
    return requests.get(f"{service.url}/readyz", timeout=60).status_code == 200


def test_machines_of_different_speed_adopt_the_thresholds_of_the_first(
    front_ends: FrontEnds,
) -> None:
    slow = front_ends.start(Machine(SLOW))
    wait_until(lambda: is_ready(slow))
    fast = front_ends.start(Machine(FAST))
    wait_until(lambda: is_ready(fast))
    assert fast.executor.shared == slow.executor.shared == SLOW.ladders


def test_a_front_end_with_other_models_is_not_ready_and_logs_both(
    front_ends: FrontEnds, caplog: pytest.LogCaptureFixture
) -> None:
    first = front_ends.start(Machine(SLOW))
    wait_until(lambda: is_ready(first))
    other = front_ends.start(Machine(OTHER))
    wait_until(lambda: "auto_differs" in [getattr(each, "event", "") for each in caplog.records])
    assert (is_ready(first), is_ready(other), other.executor.shared) == (True, False, {})
    runners = [each.app.state.context.job_runner for each in (first, other)]
    assert [runner._has_room() for runner in runners] == [True, False]
    [error] = [each for each in caplog.records if each.levelno == logging.ERROR]
    for part in (PLAN, "upscaled-x4 ffff", "upscaled cluster thresholds --reset"):
        assert part in error.getMessage()


def test_after_a_reset_the_next_front_end_stores_its_own_and_the_others_follow(
    front_ends: FrontEnds,
) -> None:
    running = front_ends.start(Machine(SLOW))
    wait_until(lambda: is_ready(running))
    assert running.state.auto_choice.reset()
    started = front_ends.start(Machine(FAST))
    wait_until(lambda: is_ready(started))
    wait_until(lambda: running.executor.shared == FAST.ladders)
    assert is_ready(running)


def test_a_choice_that_cannot_be_read_is_named_and_a_reset_brings_readiness_back(
    front_ends: FrontEnds, caplog: pytest.LogCaptureFixture
) -> None:
    service = front_ends.start(Machine(SLOW))
    wait_until(lambda: is_ready(service))
    with service.state.database.write() as connection:
        connection.execute(sa.update(AUTO_CHOICE).values(ladders="of another version"))
    wait_until(lambda: not is_ready(service))
    [error] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert getattr(error, "event", "") == "auto_unreadable"
    assert "upscaled cluster thresholds --reset" in error.getMessage()
    service.state.auto_choice.reset()
    wait_until(lambda: is_ready(service))
    assert service.state.auto_choice.read() == SLOW


def test_thresholds_are_adopted_once_workers_start_that_could_not_at_first(
    front_ends: FrontEnds,
) -> None:
    service = front_ends.start(Starting(SLOW))
    wait_until(lambda: is_ready(service))
    assert service.executor.shared == SLOW.ladders


def test_a_machine_with_a_database_of_its_own_needs_no_agreement(service: Service) -> None:
    assert is_ready(service)
    assert (service.executor.shared, service.state.auto_choice.read()) == ({}, None)
