"""Usage rows on both databases: written once, with a job's end, totalled by group, and removed."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.service.state.conftest import Clock, MakeSettings, all_of, key_with
from tests.service.state.connections import statements
from upscaled.errors import MalformedImage
from upscaled.state import Clocks, PaidResult, State, open_state
from upscaled.state.job_rows import JobOrder
from upscaled.state.job_steps import MAX_ATTEMPTS
from upscaled.state.schema import JOBS, USAGE_ROWS
from upscaled.state.usage import ROWS_AT_ONCE, MadeImage, UsageRow
from upscaled.state.usage_days import DAY_S

DAY = 20_000
AT_S = DAY * DAY_S
IMAGE = MadeImage("upscaled-x4", "jpeg", 100, 1600, 0.5)
ORDER = JobOrder("source-1", None, 4, "")


@pytest.fixture
def store(database_url: str, make_settings: MakeSettings, clock: Clock) -> Iterator[State]:
    clocks = Clocks(wall=clock, boot=clock)
    with open_state(make_settings(database_url=database_url), clocks) as opened:
        yield opened


def image_row(key_id: int, at_s: int = AT_S, model: str = "upscaled-x4") -> UsageRow:
    return UsageRow(
        at_s,
        "upscale",
        key_id,
        200,
        model=model,
        scale=4,
        format="jpeg",
        input_px=100,
        output_px=1600,
        credits=1,
        device_s=0.5,
    )


def read_rows(state: State) -> list[UsageRow]:
    with state.database.read() as connection:
        rows = connection.execute(sa.select(USAGE_ROWS).order_by(USAGE_ROWS.c.at_s))
        return [UsageRow(**row._mapping) for row in rows]


def test_a_row_is_read_as_it_was_written(store: State) -> None:
    key_id = key_with(store, 0)
    rows = [image_row(key_id), UsageRow(AT_S, "upscale", None, 401, "invalid_auth_token")]
    store.usage.add(rows)
    assert sorted(read_rows(store), key=lambda row: row.id) == sorted(rows, key=lambda row: row.id)


def test_rows_that_are_added_again_count_once(store: State) -> None:
    key_id = key_with(store, 0)
    rows = [image_row(key_id) for _ in range(ROWS_AT_ONCE + 1)]
    store.usage.add(rows[:3])
    store.usage.add(rows)
    (totals,) = store.usage.report()
    assert totals.images == ROWS_AT_ONCE + 1


def test_usage_is_totalled_by_day_key_and_model(store: State) -> None:
    web, shop = key_with(store, 0), key_with(store, 0, "shop")
    store.usage.add(
        [
            image_row(web),
            image_row(web, AT_S + DAY_S - 1),
            image_row(web, AT_S + DAY_S, "other"),
            image_row(shop),
            UsageRow(AT_S, "upscale", shop, 400, "malformed_image", answers=3),
            UsageRow(AT_S, "upscale", None, 401, "invalid_auth_token"),
        ]
    )
    by_day = store.usage.report(["day"])
    assert [(each.day, each.images, each.requests) for each in by_day] == [
        (DAY, 3, 7),
        (DAY + 1, 1, 1),
    ]
    by_key = store.usage.report(["key"])
    assert [(each.key_name, each.images, each.refused) for each in by_key] == [
        (None, 0, 1),
        ("web", 3, 0),
        ("shop", 1, 3),
    ]
    by_model = store.usage.report(["model"])
    assert [(each.model, each.credits) for each in by_model] == [
        (None, 0),
        ("other", 1),
        ("upscaled-x4", 3),
    ]
    both = store.usage.report(["day", "key"], since_s=AT_S + 1)
    assert [(each.day, each.key_id) for each in both] == [(DAY, web), (DAY + 1, web)]
    (total,) = store.usage.report()
    assert (total.input_px, total.output_px, total.device_s) == (400, 6400, 2.0)


def test_each_day_with_rows_is_added_up_by_a_statement_of_its_own(store: State) -> None:
    key_id, last_s = key_with(store, 0), AT_S + 9_000 * DAY_S
    store.usage.add([image_row(key_id, at_s) for at_s in (AT_S, AT_S + DAY_S, last_s)])
    with statements() as executed:
        (web,) = store.usage.report(["key"])
    assert (web.key_name, web.images, web.device_s) == ("web", 3, 1.5)
    sums = [statement for statement in executed if "device_s" in statement]
    assert len(sums) == 3
    assert all("at_s >=" in each and "at_s <" in each for each in sums)


def test_a_row_of_several_answers_counts_as_many(store: State) -> None:
    store.usage.add([replace(image_row(key_with(store, 0)), answers=3)])
    (total,) = store.usage.report()
    assert (total.images, total.credits, total.input_px, total.device_s) == (3, 3, 300, 1.5)


def test_the_end_of_a_reports_time_is_exclusive(store: State) -> None:
    store.usage.add([image_row(key_with(store, 0))])
    for since_s, until_s, images in ((AT_S, AT_S + 1, 1), (0, AT_S, 0), (AT_S + 1, None, 0)):
        (total,) = store.usage.report(since_s=since_s, until_s=until_s)
        assert total.images == images
    assert store.usage.report(["key"], since_s=AT_S + 1) == ()


@pytest.mark.parametrize(
    ("kind", "status", "counted"),
    [
        ("upscale", 200, {"requests", "images"}),
        ("upscale", 399, {"requests"}),
        ("upscale", 400, {"requests", "refused"}),
        ("upscale", 499, {"requests", "refused"}),
        ("upscale", 500, {"requests", "failed"}),
        ("upscale", None, {"requests", "left"}),
        ("dry run", 200, {"requests"}),
        ("replay", 200, {"requests"}),
        ("reuse", 200, {"requests", "images"}),
        ("job", 202, {"requests"}),
        ("job end", 200, {"images"}),
        ("job end", None, {"left"}),
    ],
)
def test_each_answer_counts_as_what_it_was(
    state: State, kind: str, status: int | None, counted: set[str]
) -> None:
    row = replace(UsageRow(AT_S, "upscale", status=status), kind=kind, answers=2)  # type: ignore[arg-type]
    state.usage.add([row])
    (total,) = state.usage.report()
    names = ("requests", "images", "refused", "failed", "left")
    assert {name: getattr(total, name) for name in names} == {
        name: 2 if name in counted else 0 for name in names
    }


def test_a_key_keeps_its_usage_under_a_new_name_and_a_namesake_has_none(store: State) -> None:
    key_id = key_with(store, 0)
    store.usage.add([image_row(key_id)])
    store.keys.change("web", {"name": "site"})
    store.keys.revoke("site")
    key_with(store, 0, "site")
    assert [(each.key_id, each.key_name) for each in store.usage.report(["key"])] == [
        (key_id, "site")
    ]


@pytest.mark.parametrize(("is_metered", "credits"), [(True, 1), (False, 0)])
def test_a_finished_job_has_one_row_with_its_image(
    store: State, clock: Clock, is_metered: bool, credits: int
) -> None:
    key_id = key_with(store, 1)
    store.jobs.submit(key_id, ORDER, is_metered=is_metered, max_unfinished=9)
    claimed = store.jobs.claim()
    assert claimed is not None
    for _ in range(2):  # as a process that lost the answer would
        assert store.jobs.finish(claimed, PaidResult("0.jpg", "image/jpeg"), image=IMAGE)
    (row,) = read_rows(store)
    assert row == UsageRow(
        int(clock()),
        "job end",
        key_id,
        200,
        None,
        "upscaled-x4",
        4,
        "jpeg",
        100,
        1600,
        credits,
        0.5,
        id=row.id,
    )


def test_jobs_that_end_otherwise_have_a_row_each(store: State) -> None:
    key_id = key_with(store, 3)
    failed, cancelled, left = (
        store.jobs.submit(key_id, ORDER, is_metered=True, max_unfinished=9).job for _ in range(3)
    )
    store.jobs.cancel(key_id, cancelled.id)
    store.jobs.cancel(key_id, cancelled.id)
    claimed = store.jobs.claim()
    assert claimed is not None
    assert claimed.job.id == failed.id
    for _ in range(2):
        store.jobs.fail(claimed, MalformedImage())
    assert store.jobs.claim() is not None
    with store.database.write() as connection:
        is_left = sa.update(JOBS).where(JOBS.c.id == left.id)
        connection.execute(is_left.values(lease_until_s=0.0, attempts=MAX_ATTEMPTS))
    store.jobs.end_unwanted()
    rows = [(row.kind, row.status, row.error_code, row.credits) for row in read_rows(store)]
    assert sorted(rows, key=str) == [
        ("job end", 400, "malformed_image", 0),
        ("job end", 500, "internal_error", 0),
        ("job end", None, None, 0),
    ]


def test_rows_are_removed_once_they_are_old_enough(
    database_url: str, make_settings: MakeSettings, clock: Clock
) -> None:
    settings = make_settings(database_url=database_url, usage_retention_days=1)
    with open_state(settings, all_of(clock)) as state:
        key_id, old_s = key_with(state, 0), int(clock()) - DAY_S
        state.usage.add([image_row(key_id, old_s - 1) for _ in range(ROWS_AT_ONCE + 1)])
        state.usage.add([image_row(key_id, old_s)])
        assert state.usage.remove_old() == ROWS_AT_ONCE + 1
        assert [row.at_s for row in read_rows(state)] == [old_s]


def test_the_sweep_removes_rows_beyond_their_retention(state: State, clock: Clock) -> None:
    state.usage.add([image_row(key_with(state, 0), int(clock()) - 401 * DAY_S)])
    state.sweep()
    assert read_rows(state) == []
