"""The first API key: made up on SQLite, out of a file, or by hand on PostgreSQL."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.state.conftest import database_url, make_settings
from upscaled.cli.console import CannotServe
from upscaled.cli.first_key import make_first_key
from upscaled.config import Settings
from upscaled.state import open_state
from upscaled.state.keys import Keys

__all__ = ["database_url", "make_settings"]

SECRET = f"upk_{'0123456789abcdef'}_{'A-_z' * 10}xyz"
URL = "http://127.0.0.1:8000"
MakeSettings = Callable[..., Settings]


def test_sqlite_gets_a_key_that_is_printed_once(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with open_state(settings) as state:
        text = make_first_key(state, URL, settings)
        secret = text.partition("shown this once: ")[2].split()[0]
        found = state.keys.verify(secret)
        assert found is not None
        assert found.name == "first"
        assert f"\nThe page with it: {URL}/#key={secret}\n" in text
        assert make_first_key(state, URL, settings) == ""


def test_with_postgresql_no_key_is_made_and_the_log_has_the_command(
    server_url: str, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(database_url=server_url)
    with open_state(settings) as state:
        assert make_first_key(state, URL, settings) == ""
        assert state.keys.is_empty()
        assert "`upscaled keys create NAME`" in caplog.text
        assert "UPSCALED_FIRST_KEY_FILE" in caplog.text
        caplog.clear()
        state.keys.create("web")
        assert make_first_key(state, URL, settings) == ""
        assert [each.levelno for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_a_file_holds_the_first_key_on_both_databases(
    database_url: str, make_settings: MakeSettings, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n")
    settings = make_settings(database_url=database_url, first_key_file=str(tmp_path / "key"))
    with open_state(settings) as state:
        assert SECRET not in make_first_key(state, URL, settings)
        found = state.keys.verify(SECRET)
        assert found is not None
        assert found.name == "first"
        state.keys.revoke("first")
        assert make_first_key(state, URL, settings) == ""  # it was made before
        assert state.keys.verify(SECRET) is None


def test_front_ends_that_start_at_once_make_the_key_of_the_file_once(
    database_url: str,
    make_settings: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "key").write_text(SECRET)
    settings = make_settings(database_url=database_url, first_key_file=str(tmp_path / "key"))
    both_looked = threading.Barrier(2, timeout=60)
    is_empty = Keys.is_empty

    def look(keys: Keys) -> bool:
        found = is_empty(keys)
        both_looked.wait()
        return found

    with open_state(settings) as first, open_state(settings) as second:
        texts: list[str] = []
        with monkeypatch.context() as patched:
            patched.setattr(Keys, "is_empty", look)
            threads = [
                threading.Thread(
                    target=lambda state=state: texts.append(make_first_key(state, URL, settings))
                )
                for state in (first, second)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(map(bool, texts)) == [False, True]
        assert second.keys.names() == ("first",)


@pytest.mark.parametrize("content", ["", "secret", SECRET[:-1], SECRET + "x", f"{SECRET} x"])
def test_a_file_that_holds_no_key_stops_the_start(
    make_settings: MakeSettings, tmp_path: Path, content: str
) -> None:
    (tmp_path / "key").write_text(content)
    settings = make_settings(first_key_file=str(tmp_path / "key"))
    with open_state(settings) as state:
        with pytest.raises(CannotServe, match=r"UPSCALED_FIRST_KEY_FILE=.*holds no API key") as no:
            make_first_key(state, URL, settings)
        assert state.keys.is_empty()
    assert not content or content not in str(no.value)


def test_a_file_that_cannot_be_read_stops_the_start_of_an_empty_database_only(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(first_key_file=str(tmp_path / "missing"))
    with open_state(settings) as state:
        with pytest.raises(CannotServe, match="missing: No such file"):
            make_first_key(state, URL, settings)
        state.keys.create("web")
        assert make_first_key(state, URL, settings) == ""


def test_a_device_without_an_end_stops_the_start_with_the_setting(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(first_key_file="/dev/zero")
    with (
        open_state(settings) as state,
        pytest.raises(
            CannotServe, match=r"^UPSCALED_FIRST_KEY_FILE=/dev/zero: is no regular file;"
        ),
    ):
        make_first_key(state, URL, settings)


@pytest.mark.parametrize(("host", "is_warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_without_keys_every_start_logs_it_and_warns_where_others_reach_the_service(
    database_url: str,
    make_settings: MakeSettings,
    caplog: pytest.LogCaptureFixture,
    host: str,
    is_warned: bool,
) -> None:
    settings = make_settings(database_url=database_url, auth="none", host=host)
    for _ in range(2):
        caplog.clear()
        with open_state(settings) as state:
            text = make_first_key(state, URL, settings)
            assert state.keys.names() == ("local",)
        assert "No API key is needed" in text
        assert "X-API-KEY" not in text
        assert ("requests that reach 0.0.0.0 need no API key" in caplog.text) is is_warned


def test_a_start_with_keys_after_one_without_makes_the_first(make_settings: MakeSettings) -> None:
    with open_state(make_settings(auth="none")) as state:
        assert state.keys.is_empty()
    settings = make_settings()
    with open_state(settings) as state:
        assert "Your API key" in make_first_key(state, URL, settings)
        assert state.keys.names() == ("local", "first")
