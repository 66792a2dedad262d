"""API keys: what is stored of them, who is let in, and that a revoke holds at once."""

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.service.api.waiting import wait_until
from tests.service.state.conftest import Clock, MakeSettings, all_of, key_with
from upscaled.state import RateLimit, State, open_state
from upscaled.state.errors import InvalidValue, NameTaken, StateError, UnknownName
from upscaled.state.key_rows import KeyChanges
from upscaled.state.keys import MAX_KEEP_S
from upscaled.state.schema import API_KEYS, CREDIT_ENTRIES


def test_a_new_key_is_verified_under_its_name(state: State) -> None:
    found = state.keys.verify(state.keys.create("web"))
    assert found is not None
    assert found.name == "web"


def test_keys_work_on_both_databases(database_url: str, make_settings: MakeSettings) -> None:
    with open_state(make_settings(database_url=database_url)) as state:
        first, second = state.keys.create("a", credits=3), state.keys.create("b")
        assert [key and key.name for key in map(state.keys.verify, (first, second))] == ["a", "b"]
        with pytest.raises(NameTaken):
            state.keys.create("a")
        state.keys.revoke("a")
        assert state.keys.verify(first) is None
        replacement = state.keys.verify(state.keys.create("a"))
        assert replacement is not None
        assert [key.balance for key in state.keys.list()] == [3, 0, 0]
        assert state.keys.names() == ("b", "a")


def test_a_keys_own_rate_is_kept_on_both_databases(
    database_url: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=database_url)
    with open_state(settings) as state:
        secret = state.keys.create("fast", rate=RateLimit(12.5, 40))
        plain = state.keys.create("plain")
    with open_state(settings) as state:
        assert [key.rate for key in state.keys.list()] == [RateLimit(12.5, 40), RateLimit()]
        assert [key and key.rate for key in map(state.keys.verify, (secret, plain))] == [
            RateLimit(12.5, 40),
            RateLimit(),
        ]
        state.keys.set_rate("fast", RateLimit(burst=1_000_000))
        found = state.keys.verify(secret)
        assert found is not None
        assert found.rate == RateLimit(None, 1_000_000)


def test_a_rotated_key_has_both_secrets_for_a_while_on_both_databases(
    database_url: str, make_settings: MakeSettings, clock: Clock
) -> None:
    with open_state(make_settings(database_url=database_url), all_of(clock)) as state:
        first = state.keys.create("web", credits=3, rate=RateLimit(2, 4))
        second = state.keys.rotate("web", keep_s=100)
        found = [state.keys.verify(secret) for secret in (first, second)]
        assert found[0] == found[1]
        assert found[0] is not None
        assert (found[0].name, found[0].balance, found[0].rate) == ("web", 3, RateLimit(2, 4))
        assert [key.shown_secret for key in state.keys.list()] == [second[:21] + "..."]
        clock.now_s += 99
        assert state.keys.verify(first) is not None
        clock.now_s += 1
        assert state.keys.verify(first) is None
        assert state.keys.verify(second) is not None


def test_rotating_again_shortens_the_time_of_earlier_secrets_and_never_prolongs_it(
    state: State, clock: Clock
) -> None:
    first = state.keys.create("web")
    second = state.keys.rotate("web", keep_s=100)
    third = state.keys.rotate("web", keep_s=1000)
    assert None not in map(state.keys.verify, (first, second, third))
    clock.now_s += 100
    assert state.keys.verify(first) is None
    assert state.keys.verify(second) is not None
    fourth = state.keys.rotate("web", keep_s=0)
    assert [state.keys.verify(each) for each in (first, second, third)] == [None] * 3
    assert state.keys.verify(fourth) is not None


def test_a_rotation_waits_for_a_hold_and_the_hold_not_for_it(
    server_url: str, make_settings: MakeSettings
) -> None:
    """A hold inserts rows of its key and changes the key last: each could wait for the other."""
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")

    def is_one_waiting() -> bool:
        with state.database.read() as connection:
            return bool(connection.execute(waiting).scalar_one())

    with (
        open_state(make_settings(database_url=server_url)) as state,
        ThreadPoolExecutor(1) as threads,
    ):
        key_id = key_with(state, 3)
        with state.database.write() as connection:
            connection.execute(
                sa.insert(CREDIT_ENTRIES).values(
                    key_id=key_id, request_id="r1", kind="hold", amount=-1, at_s=1
                )
            )
            rotating = threads.submit(state.keys.rotate, "web", keep_s=0)
            wait_until(is_one_waiting, 20)
            taken = sa.update(API_KEYS).where(API_KEYS.c.id == key_id)
            connection.execute(taken.values(balance=API_KEYS.c.balance - 1))
        assert state.keys.verify(rotating.result()) is not None
        assert state.credits.show("web") == 2


def test_a_revoke_ends_all_secrets_and_other_keys_keep_theirs(state: State) -> None:
    secrets = [state.keys.create("web"), state.keys.rotate("web", keep_s=100)]
    others = [state.keys.create("other"), state.keys.rotate("other", keep_s=100)]
    state.keys.revoke("web")
    assert [state.keys.verify(secret) for secret in secrets] == [None, None]
    assert None not in map(state.keys.verify, others)
    assert state.keys.verify(others[0][:21] + others[1][21:]) is None


@pytest.mark.parametrize("keep_s", [-1, MAX_KEEP_S + 1])
def test_a_rotation_that_is_refused_changes_no_secret(state: State, keep_s: int) -> None:
    secret = state.keys.create("web")
    with pytest.raises(InvalidValue, match="seconds: must be"):
        state.keys.rotate("web", keep_s=keep_s)
    with pytest.raises(UnknownName):
        state.keys.rotate("other", keep_s=0)
    assert state.keys.verify(secret) is not None
    state.keys.rotate("web", keep_s=MAX_KEEP_S)
    assert state.keys.verify(secret) is not None


def test_rotations_of_one_key_at_once_all_succeed_on_both_databases(
    database_url: str, make_settings: MakeSettings
) -> None:
    with open_state(make_settings(database_url=database_url)) as state:
        state.keys.create("web")
        with ThreadPoolExecutor(8) as threads:
            rotations = [threads.submit(state.keys.rotate, "web", keep_s=100) for _ in range(32)]
            secrets = [each.result() for each in rotations]
        assert None not in map(state.keys.verify, secrets)


def test_a_key_ends_at_its_time_on_both_databases(
    database_url: str, make_settings: MakeSettings, clock: Clock
) -> None:
    with open_state(make_settings(database_url=database_url), all_of(clock)) as state:
        end_s = int(clock.now_s) + 100
        secret = state.keys.create("guest", expires_at_s=end_s)
        former, secret = secret, state.keys.rotate("guest", keep_s=1000)
        clock.now_s = end_s - 1
        assert None not in map(state.keys.verify, (former, secret))
        clock.now_s = end_s
        assert [state.keys.verify(each) for each in (former, secret)] == [None, None]
        (key,) = state.keys.list()
        assert [key.state_at(at_s) for at_s in (end_s - 1, end_s)] == ["active", "expired"]
        with pytest.raises(InvalidValue, match="expired already"):
            state.keys.create("late", expires_at_s=end_s)
        state.keys.revoke("guest")
        assert state.keys.list()[0].state_at(end_s) == "revoked"


def test_a_renamed_key_keeps_its_secret_and_credits(state: State) -> None:
    secret = state.keys.create("web", credits=3)
    state.keys.create("taken")
    state.keys.change("web", {"name": "shop"})
    found = state.keys.verify(secret)
    assert found is not None
    assert (found.name, state.credits.show("shop")) == ("shop", 3)
    with pytest.raises(NameTaken, match="taken"):
        state.keys.change("shop", {"name": "taken"})
    with pytest.raises(InvalidValue, match="is no name for"):
        state.keys.change("shop", {"name": "a b"})
    with pytest.raises(UnknownName, match="web"):
        state.keys.change("web", {"name": "new"})
    assert state.keys.names() == ("shop", "taken")


def test_a_key_is_changed_in_what_is_given_on_both_databases(
    database_url: str, make_settings: MakeSettings, clock: Clock
) -> None:
    settings = make_settings(database_url=database_url)
    end_s = int(clock.now_s) + 100
    with open_state(settings, all_of(clock)) as state, open_state(settings, all_of(clock)) as other:
        secret = state.keys.create("web", rate=RateLimit(2, 4), scopes=frozenset({"jobs"}))
        state.keys.change("web", {"rate_per_s": 5.0, "expires_at_s": end_s})
        found = other.keys.verify(secret)
        assert found is not None
        assert (found.rate, found.scopes) == (RateLimit(5, 4), frozenset({"jobs"}))
        state.keys.change("web", {"rate_burst": None, "scopes": frozenset({"credits", "upscale"})})
        found = other.keys.verify(secret)
        assert found is not None
        assert (found.rate, found.may("jobs")) == (RateLimit(5, None), False)
        clock.now_s = end_s
        assert other.keys.verify(secret) is None
        state.keys.change("web", {"expires_at_s": end_s + 1, "name": "shop", "scopes": None})
        found = other.keys.verify(secret)
        assert found is not None
        assert (found.name, found.scopes) == ("shop", None)
        state.keys.change("shop", {"expires_at_s": None})
        assert [key.expires_at_s for key in other.keys.list()] == [None]
        with pytest.raises(InvalidValue, match="expired already"):
            state.keys.change("shop", {"expires_at_s": end_s})


def test_a_change_is_made_whole_or_not_at_all(state: State) -> None:
    state.keys.create("web", rate=RateLimit(2, 2))
    state.keys.create("taken")
    before, entries = state.keys.list(), state.audit.list()
    refused: list[tuple[str, KeyChanges]] = [
        ("already active", {"name": "taken", "rate_per_s": 5.0}),
        ("a rate of", {"name": "shop", "rate_per_s": 0.0}),
        ("name one or more", {"name": "shop", "scopes": frozenset({"all"})}),
        ("is no name for", {"name": "a b", "rate_per_s": 5.0}),
    ]
    for reason, changes in refused:
        with pytest.raises(StateError, match=reason):
            state.keys.change("web", changes)
    state.keys.change("web", {})
    state.keys.change("web", {"name": "web"})
    with pytest.raises(UnknownName):
        state.keys.change("shop", {})
    assert (state.keys.list(), state.audit.list()) == (before, entries)


def test_a_wrong_rate_or_name_changes_nothing(state: State) -> None:
    state.keys.create("web", rate=RateLimit(2, 2))
    with pytest.raises(InvalidValue, match="a rate of"):
        state.keys.set_rate("web", RateLimit(0))
    with pytest.raises(InvalidValue, match="a burst of"):
        state.keys.create("other", rate=RateLimit(burst=0))
    with pytest.raises(UnknownName):
        state.keys.set_rate("other", RateLimit(3))
    state.keys.revoke("web")
    with pytest.raises(UnknownName):
        state.keys.set_rate("web", RateLimit(3))
    assert [key.rate for key in state.keys.list()] == [RateLimit(2, 2)]


def test_secrets_carry_256_random_bits_and_a_mark(state: State) -> None:
    secrets = {state.keys.create(f"key{number}") for number in range(50)}
    assert all(re.fullmatch(r"upk_[0-9a-f]{16}_[\w-]{43}", secret) for secret in secrets)
    assert len({secret[-43:] for secret in secrets}) == 50


def test_no_part_of_a_secret_is_in_the_files_or_the_list(state: State, tmp_path: Path) -> None:
    secret = state.keys.create("web", credits=2)
    random_part = secret[-43:].encode()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    contents = b"".join(path.read_bytes() for path in files)
    assert b"web" in contents  # the key was written
    assert random_part not in contents
    assert random_part.decode() not in repr(state.keys.list())
    assert state.keys.list()[0].shown_secret == secret[:21] + "..."


@pytest.mark.parametrize(
    "change",
    [
        lambda secret: "",
        lambda secret: secret[:-1],
        lambda secret: secret + "A",
        lambda secret: secret + "\n",
        lambda secret: " " + secret,
        lambda secret: secret.upper(),
        lambda secret: secret[:-1] + ("A" if secret[-1] != "A" else "B"),
        lambda secret: secret[:21] + "A" * 43,
        lambda secret: "upk_" + "0" * 16 + secret[20:],
        lambda secret: secret[4:],
        lambda secret: "é" * len(secret),
        lambda secret: "%" + secret[1:],
        lambda secret: "x" * 1_000_000,
    ],
)
def test_a_changed_secret_is_unknown(state: State, change: Callable[[str], str]) -> None:
    secret = state.keys.create("web")
    assert state.keys.verify(change(secret)) is None
    assert state.keys.verify(secret) is not None


def test_the_random_part_of_another_key_does_not_open_this_one(state: State) -> None:
    first, second = state.keys.create("a"), state.keys.create("b")
    assert state.keys.verify(first[:21] + second[21:]) is None


def test_an_unknown_key_is_checked_in_the_same_steps_as_a_known_one(state: State) -> None:
    """Counted in instructions of SQLite's machine; else the time would show which ids exist."""
    secrets = sorted(state.keys.create(f"key-{number}") for number in range(20))
    state.keys.revoke("key-7")
    with state.keys._database.read() as connection:
        driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)

    def count_steps(secret: str) -> int:
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        driver.set_progress_handler(step, 1)
        try:
            assert state.keys.verify(secret) is None
        finally:
            driver.set_progress_handler(None, 1)
        return steps

    known = {count_steps(secret[:21] + "A" * 43) for secret in secrets}
    unknown = {count_steps(f"upk_{digit * 16}_" + "A" * 43) for digit in "89abcdef"}
    assert len(known) == 1
    assert known == unknown


def test_a_revoke_by_another_process_holds_at_once(
    state: State, make_settings: MakeSettings
) -> None:
    secret = state.keys.create("web")
    assert state.keys.verify(secret) is not None
    environment = {**os.environ, "UPSCALED_DATA_DIR": str(make_settings().data_dir)}
    command = "from upscaled.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", command, "keys", "revoke", "web"], check=True, env=environment
    )
    assert state.keys.verify(secret) is None


def test_a_revoked_key_is_listed_and_its_name_is_free(state: State, clock: Clock) -> None:
    old = state.keys.create("web", credits=4)
    clock.now_s += 100
    state.keys.revoke("web")
    new = state.keys.create("web")
    assert state.keys.verify(old) is None
    assert state.keys.verify(new) is not None
    first, second = state.keys.list()
    assert (first.revoked_at_s, first.balance) == (int(clock.now_s), 4)
    assert first.created_at_s == int(clock.now_s) - 100
    assert (second.revoked_at_s, second.balance) == (None, 0)
    assert state.credits.show("web") == 0


def test_only_an_active_key_can_be_revoked(state: State) -> None:
    with pytest.raises(UnknownName, match="web"):
        state.keys.revoke("web")
    state.keys.create("web")
    state.keys.revoke("web")
    with pytest.raises(UnknownName, match="web"):
        state.keys.revoke("web")


def test_a_state_where_every_key_was_revoked_is_not_empty(state: State) -> None:
    assert state.keys.is_empty()
    state.keys.create("web")
    assert not state.keys.is_empty()
    state.keys.revoke("web")
    assert not state.keys.is_empty()
    assert state.keys.names() == ()


@pytest.mark.parametrize("name", ["a", "A9", "web-shop", "me@example.com", "a_b.c", "x" * 64])
def test_a_valid_name_is_accepted(state: State, name: str) -> None:
    state.keys.create(name)
    assert state.keys.names() == (name,)


@pytest.mark.parametrize(
    "name", ["", "x" * 65, " a", "a b", "-a", ".a", "a/b", "a\n", "ä", "a;b", "--help"]
)
def test_bad_names_are_refused(state: State, name: str) -> None:
    with pytest.raises(InvalidValue, match="is no name for"):
        state.keys.create(name)
    assert state.keys.is_empty()


def test_a_name_cannot_be_taken_twice(state: State) -> None:
    state.keys.create("web", credits=1)
    with pytest.raises(NameTaken, match="web"):
        state.keys.create("web", credits=5)
    assert state.credits.show("web") == 1
    assert state.credits.audit() == ()


def test_negative_credits_make_no_key(state: State) -> None:
    with pytest.raises(InvalidValue, match="-1 credits"):
        state.keys.create("web", credits=-1)
    assert state.keys.is_empty()


def test_only_one_of_several_threads_creates_a_name(state: State) -> None:
    def create(_: int) -> bool:
        try:
            state.keys.create("web")
        except NameTaken:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(create, range(16))) == 1


def test_many_threads_verify_at_once(state: State) -> None:
    secrets = [state.keys.create(f"key{number}") for number in range(8)]

    def verify(number: int) -> bool:
        key = state.keys.verify(secrets[number % 8])
        return key is not None and key.name == f"key{number % 8}"

    with ThreadPoolExecutor(40) as pool:
        assert all(pool.map(verify, range(800)))


def test_a_verify_does_not_wait_for_a_writer(state: State) -> None:
    secret = state.keys.create("web")
    with state.database.write():
        assert state.keys.verify(secret) is not None
