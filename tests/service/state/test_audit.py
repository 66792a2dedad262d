"""The audit log: an entry with each change, in its transaction, and none without one."""

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from tests.databases import make_tables
from tests.service.state.conftest import Clock, MakeSettings, all_of
from upscaled.state import RateLimit, State, open_state
from upscaled.state.audit import REMOVED_AT_ONCE, AuditEntry, Detail
from upscaled.state.errors import InvalidValue, NameTaken, StateError, UnknownName
from upscaled.state.job_rows import JobOrder
from upscaled.state.schema import AUDIT_ENTRIES
from upscaled.state.usage_days import DAY_S

Change = Callable[[State], object]


@pytest.fixture
def store(database_url: str, make_settings: MakeSettings, clock: Clock) -> Iterator[State]:
    with open_state(make_settings(database_url=database_url), all_of(clock)) as opened:
        opened.keys.create("web", credits=5)
        opened.keys.create("shop", by="alice@host")
        yield opened


CHANGES: list[tuple[Change, tuple[str, str, dict[str, Detail]]]] = [
    (
        lambda state: state.keys.change("web", {"rate_per_s": 2.5, "scopes": None}, by="bob"),
        ("keys set", "web", {"rate": 2.5, "scopes": "all"}),
    ),
    (lambda state: state.keys.create("new", by="bob"), ("keys create", "new", {"credits": 0})),
    (
        lambda state: state.keys.create(
            "new", credits=3, rate=RateLimit(2.5, 9), expires_at_s=1_900_000_000, by="bob"
        ),
        (
            "keys create",
            "new",
            {"credits": 3, "rate": 2.5, "burst": 9, "expires_at_s": 1_900_000_000},
        ),
    ),
    (
        lambda state: state.keys.set_rate("web", RateLimit(None, 7), by="bob"),
        ("keys rate", "web", {"burst": 7}),
    ),
    (
        lambda state: state.keys.change("web", {"name": "site"}, by="bob"),
        ("keys rename", "web", {"to": "site"}),
    ),
    (
        lambda state: state.keys.rotate("web", keep_s=60, by="bob"),
        ("keys rotate", "web", {"keep_s": 60}),
    ),
    (lambda state: state.keys.revoke("web", by="bob"), ("keys revoke", "web", {})),
    (lambda state: state.credits.add("web", 4, by="bob"), ("credits add", "web", {"credits": 4})),
    (lambda state: state.credits.take("web", 4, by="bob"), ("credits take", "web", {"credits": 4})),
    (
        lambda state: state.credits.transfer("web", "shop", 4, by="bob"),
        ("credits transfer", "web", {"to": "shop", "to_key_id": 2, "credits": 4}),
    ),
    (
        lambda state: state.webhooks.configure(
            "web", "https://name:password@hook.example:444/secret?token=1", by="bob"
        ),
        ("keys webhook", "web", {"site": "https://hook.example:444", "secret": "new"}),
    ),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES, ids=[each[1][0] for each in CHANGES])
def test_each_change_has_its_entry(
    store: State, clock: Clock, change: Change, expected: tuple[str, str, dict[str, Detail]]
) -> None:
    clock.now_s += 100
    change(store)
    (entry,) = store.audit.list(since_s=clock())
    action, subject, details = expected
    key_id = {"web": 1, "new": 3}[subject]
    assert entry == AuditEntry(int(clock()), "bob", action, subject, key_id, details)


def test_a_webhook_that_is_sent_again_is_an_entry_of_its_job(store: State) -> None:
    store.webhooks.configure("web", "https://hook.example/")
    order = JobOrder("source-1", None, 4, "")
    job = store.jobs.submit(1, order, is_metered=False, max_unfinished=9).job
    store.jobs.cancel(1, job.id)
    assert not store.webhooks.retry("no-job", by="bob")
    assert store.webhooks.retry(job.id, by="bob")
    (entry,) = store.audit.list(last=1)
    assert (entry.action, entry.subject, entry.key_id) == ("webhooks retry", job.id, 1)


FAILURES: list[tuple[Change, type[StateError]]] = [
    (lambda state: state.keys.create("web"), NameTaken),
    (lambda state: state.keys.change("web", {"name": "shop"}), NameTaken),
    (lambda state: state.keys.revoke("none"), UnknownName),
    (lambda state: state.keys.rotate("none", keep_s=0), UnknownName),
    (lambda state: state.credits.take("web", 6), InvalidValue),
    (lambda state: state.credits.transfer("web", "none", 1), UnknownName),
    (lambda state: state.webhooks.configure("none", None), UnknownName),
]


@pytest.mark.parametrize(("change", "error"), FAILURES)
def test_a_change_that_fails_has_no_entry(
    store: State, change: Change, error: type[StateError]
) -> None:
    before = store.audit.list()
    with pytest.raises(error):
        change(store)
    assert store.audit.list() == before


@pytest.mark.parametrize("change", [each[0] for each in CHANGES], ids=[c[1][0] for c in CHANGES])
def test_a_change_whose_entry_cannot_be_written_is_not_made(state: State, change: Change) -> None:
    state.keys.create("web", credits=5)
    state.keys.create("shop")
    before = (state.keys.list(), state.webhooks.show("web"))
    with state.database.write() as connection:
        connection.execute(sa.text("ALTER TABLE audit_entries RENAME TO lost"))
    with pytest.raises(Exception, match="audit_entries"):
        change(state)
    assert (state.keys.list(), state.webhooks.show("web")) == before


def test_the_service_itself_is_the_actor_of_what_nothing_else_did(store: State) -> None:
    assert [(entry.actor, entry.subject) for entry in store.audit.list()] == [
        ("upscaled", "web"),
        ("alice@host", "shop"),
    ]


def test_entries_are_removed_once_they_are_old_enough(
    database_url: str, make_settings: MakeSettings, clock: Clock
) -> None:
    settings = make_settings(database_url=database_url, audit_retention_days=1)
    with open_state(settings, all_of(clock)) as state:
        state.keys.create("web")
        old = [{"name": f"old-{number}"} for number in range(REMOVED_AT_ONCE + 1)]
        entry = {"at_s": int(clock()), "actor": "a", "action": "keys rate", "key_id": 1}
        with state.database.write() as connection:
            rows = [{**entry, "subject": each["name"], "details": "{}"} for each in old]
            connection.execute(sa.insert(AUDIT_ENTRIES), rows)
        clock.now_s += 1
        state.keys.create("shop")
        clock.now_s += DAY_S - 1
        assert state.audit.remove_old() == 0
        clock.now_s += 1
        assert state.audit.remove_old() == REMOVED_AT_ONCE + 2
        assert [each.subject for each in state.audit.list()] == ["shop"]


@pytest.mark.parametrize(("days", "kept"), [(0, ["web"]), (36_500, [])])
def test_the_sweep_removes_old_entries_if_a_retention_is_set(
    make_settings: MakeSettings, clock: Clock, days: int, kept: list[str]
) -> None:
    settings = make_settings(audit_retention_days=days)
    make_tables(settings.data_dir)
    with open_state(settings, all_of(clock)) as state:
        state.keys.create("web")
        clock.now_s += 36_501 * DAY_S
        state.sweep()
        assert [each.subject for each in state.audit.list()] == kept


def test_entries_are_listed_by_time_and_number(store: State, clock: Clock) -> None:
    begin_s = clock()
    for name in ("a", "b", "c"):
        clock.now_s += 10
        store.keys.create(name)

    def names(**limits: float) -> list[str]:
        return [entry.subject for entry in store.audit.list(**limits)]  # type: ignore[arg-type]

    assert names(since_s=begin_s + 10) == ["a", "b", "c"]
    assert names(since_s=begin_s + 11, until_s=begin_s + 30) == ["b"]
    assert names(last=2) == ["b", "c"]


def test_no_secret_is_in_the_log(state: State) -> None:
    secrets = [state.keys.create("web"), state.keys.rotate("web", keep_s=5)]
    secrets.append(state.webhooks.configure("web", None).secret)
    with state.database.read() as connection:
        text = str(connection.execute(sa.select(AUDIT_ENTRIES)).all())
    assert len(text) > 100
    assert [secret for secret in secrets if secret in text] == []
