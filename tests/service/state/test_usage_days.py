"""Finished days that were added up: reports are the same, and faster, whatever comes later."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.service.state.conftest import Clock, MakeSettings, all_of, key_with, lead
from tests.service.state.connections import statements
from tests.service.state.test_usage import image_row
from upscaled.state import State, open_state
from upscaled.state.schema import USAGE_DAYS, USAGE_ROWS
from upscaled.state.usage import UsageRow
from upscaled.state.usage_days import DAY_S, USAGE_GROUPS, UsageGroup


@pytest.fixture
def store(database_url: str, make_settings: MakeSettings, clock: Clock) -> Iterator[State]:
    settings = make_settings(database_url=database_url, usage_retention_days=30)
    with open_state(settings, all_of(clock)) as opened:
        yield opened


def row_sums(executed: list[str]) -> list[str]:
    """Return the statements that add up rows, not days."""
    return [each for each in executed if "device_s" in each and "FROM usage_rows" in each]


def reports(state: State, **period: float) -> list[object]:
    choices: list[Sequence[UsageGroup]] = [
        (),
        ("day",),
        ("key",),
        ("model",),
        ("day", "key"),
        USAGE_GROUPS,
    ]
    return [state.usage.report(by, **period) for by in choices]


def test_reports_of_days_that_were_added_up_are_the_same_without_their_rows(
    store: State, clock: Clock
) -> None:
    today = int(clock()) // DAY_S
    web, shop = key_with(store, 0), key_with(store, 0, "shop")
    first, last = (today - 3) * DAY_S, today * DAY_S - 1
    refused = UsageRow(first + 5, "upscale", None, 401, "invalid_auth_token", answers=4)
    left = UsageRow(last, "upscale", shop, None, device_s=0.25)
    rows = [image_row(web, first), image_row(shop, last), image_row(shop, last, "b"), refused, left]
    store.usage.add([*rows, replace(image_row(web, today * DAY_S), answers=2)])
    periods: list[dict[str, float]] = [
        {},
        {"since_s": first + 1},
        {"since_s": first, "until_s": last + 1},
        {"until_s": last},
        {"until_s": 0},
    ]
    before = [reports(store, **period) for period in periods]
    assert store.usage.roll_up() == 2  # today is not over, and two days have no rows
    assert [reports(store, **period) for period in periods] == before
    assert store.usage.roll_up() == 0
    with statements() as executed:
        store.usage.report(["day"])
    assert len(row_sums(executed)) == 1  # today's
    with statements() as executed:
        store.usage.report(["day"], since_s=first + 1)
    assert len(row_sums(executed)) == 2  # a part of the first day, too


def test_a_row_that_is_written_late_is_in_the_next_report(store: State, clock: Clock) -> None:
    key_id, yesterday_s = key_with(store, 0), (int(clock()) // DAY_S - 1) * DAY_S
    early_s = yesterday_s - DAY_S
    store.usage.add([image_row(key_id, early_s), image_row(key_id, yesterday_s)])
    assert store.usage.roll_up() == 2
    store.usage.add([image_row(key_id, early_s), image_row(key_id, yesterday_s)])
    (total,) = store.usage.report()
    assert total.images == 4
    assert store.usage.roll_up() == 1  # the last day alone is looked at again
    with statements() as executed:
        assert [each.images for each in store.usage.report(["day"])] == [2, 2]
    assert len(row_sums(executed)) == 1


def test_days_are_removed_with_their_rows(store: State, clock: Clock) -> None:
    key_id, day = key_with(store, 0), int(clock()) // DAY_S
    kept_s = (day - 10) * DAY_S
    store.usage.add([image_row(key_id, kept_s), image_row(key_id, (day - 29) * DAY_S)])
    lead(store)
    store.sweep()
    assert days_added_up(store) == [day - 29, day - 10]
    clock.now_s += 5 * DAY_S
    store.sweep()
    (total,) = store.usage.report()
    assert total.images == 1
    assert days_added_up(store) == [day - 10]
    with store.database.read() as connection:
        assert connection.execute(sa.select(USAGE_ROWS.c.at_s)).scalars().all() == [kept_s]


def days_added_up(state: State) -> list[int]:
    with state.database.read() as connection:
        query = sa.select(USAGE_DAYS.c.day).order_by(USAGE_DAYS.c.day)
        return list(connection.execute(query).scalars())


def test_a_part_of_the_days_is_added_up_at_a_time(store: State, clock: Clock) -> None:
    key_id, day = key_with(store, 0), int(clock()) // DAY_S
    store.usage.add([image_row(key_id, (day - ago) * DAY_S) for ago in range(1, 14)])
    assert [store.usage.roll_up() for _ in range(3)] == [10, 3, 0]


def test_no_day_beyond_the_part_that_is_added_up_is_counted(store: State, clock: Clock) -> None:
    key_id, day = key_with(store, 0), int(clock()) // DAY_S
    store.usage.add([image_row(key_id, (day - ago) * DAY_S) for ago in range(1, 14)])
    with statements() as executed:
        assert store.usage.roll_up() == 10
    counted = [each for each in executed if each.startswith("SELECT count(*)")]
    assert len(counted) == 10
