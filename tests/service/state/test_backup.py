"""A copy of the database that was made while others write is whole, private and can be served."""

import errno
import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from tests.service.state.conftest import Clock, MakeSettings, all_of
from upscaled.state import State, open_state
from upscaled.state.backup import back_up
from upscaled.state.errors import DatabaseFailed, DatabaseRefused
from upscaled.state.opening import longest_request_s


def restore(copy: Path, data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "upscaled.sqlite3").write_bytes(copy.read_bytes())


def test_a_backup_serves_the_same_keys_and_credits(
    state: State, make_settings: MakeSettings, tmp_path: Path
) -> None:
    secret = state.keys.create("web", credits=7)
    size_bytes = back_up("", tmp_path / "data", tmp_path / "copy.db")
    state.keys.revoke("web")
    assert size_bytes == (tmp_path / "copy.db").stat().st_size
    restore(tmp_path / "copy.db", tmp_path / "restored")
    with open_state(make_settings(data_dir=tmp_path / "restored")) as restored:
        key = restored.keys.verify(secret)
        assert key is not None
        assert (key.name, restored.credits.show("web")) == ("web", 7)
        assert not restored.is_new


def test_credits_on_hold_in_a_backup_are_released_once_no_request_can_need_them(
    state: State, make_settings: MakeSettings, clock: Clock, tmp_path: Path
) -> None:
    secret = state.keys.create("web", credits=7)
    key = state.keys.verify(secret)
    assert key is not None
    state.credits.hold(key.id, "request-1")
    back_up("", tmp_path / "data", tmp_path / "copy.db")
    restore(tmp_path / "copy.db", tmp_path / "restored")
    settings = make_settings(data_dir=tmp_path / "restored")
    clock.now_s += longest_request_s(settings) + 1
    with open_state(settings, all_of(clock)) as restored:
        assert restored.credits.show("web") == 7
        assert restored.credits.audit() == ()


def test_a_backup_made_beside_writers_is_one_consistent_state(
    state: State, make_settings: MakeSettings, tmp_path: Path
) -> None:
    state.keys.create("web", credits=1)
    is_enough = threading.Event()

    def write() -> None:
        while not is_enough.is_set():
            state.credits.add("web", 1)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        for number in range(3):
            back_up("", tmp_path / "data", tmp_path / f"copy-{number}.db")
    finally:
        is_enough.set()
        for writer in writers:
            writer.join()
    balances = []
    for number in range(3):
        restore(tmp_path / f"copy-{number}.db", tmp_path / f"restored-{number}")
        with open_state(make_settings(data_dir=tmp_path / f"restored-{number}")) as restored:
            assert restored.credits.audit() == ()
            balances.append(restored.credits.show("web"))
    assert balances == sorted(balances)
    assert 1 <= balances[0] <= balances[-1] <= state.credits.show("web")


def test_a_backup_is_one_file_for_its_owner_alone(state: State, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    back_up("", tmp_path / "data", folder / "copy.db")
    assert [path.name for path in folder.iterdir()] == ["copy.db"]
    assert stat.S_IMODE((folder / "copy.db").stat().st_mode) == 0o600
    with sqlite3.connect(folder / "copy.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()


def test_a_backup_replaces_no_file(state: State, tmp_path: Path) -> None:
    (tmp_path / "copy.db").write_text("precious")
    with pytest.raises(FileExistsError):
        back_up("", tmp_path / "data", tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_hard_links_takes_a_backup_and_loses_no_file(
    refusal: int, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FAT and exFAT, of which USB disks are, and shares of Windows."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(refusal, os.strerror(refusal), source, None, target)

    state.keys.create("web", credits=5)
    folder = tmp_path / "usb"
    folder.mkdir()
    monkeypatch.setattr(os, "link", refuse)
    back_up("", tmp_path / "data", folder / "copy.db")
    assert [path.name for path in folder.iterdir()] == ["copy.db"]
    restore(folder / "copy.db", tmp_path / "restored")
    with sqlite3.connect(tmp_path / "restored" / "upscaled.sqlite3") as connection:
        assert connection.execute("SELECT name FROM api_keys").fetchall() == [("web",)]
    connection.close()


def test_a_name_taken_meanwhile_is_not_replaced_without_hard_links(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "usb"
    folder.mkdir()

    def refuse(source: Path, target: Path) -> None:
        target.write_text("precious")
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(FileExistsError):
        back_up("", tmp_path / "data", folder / "copy.db")
    assert [path.name for path in folder.iterdir()] == ["copy.db"]
    assert (folder / "copy.db").read_text() == "precious"


def test_a_backup_that_fails_at_its_end_leaves_no_empty_file(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)

    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), source, None, target)

    folder = tmp_path / "usb"
    folder.mkdir()
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output error"):
        back_up("", tmp_path / "data", folder / "copy.db")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("database_url", "reason"),
    [("postgresql://u:p@127.0.0.1/x", "pg_dump"), ("", "there is no database yet")],
)
def test_what_cannot_be_backed_up_is_refused_with_the_way_out(
    database_url: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(DatabaseRefused, match=reason):
        back_up(database_url, tmp_path / "data", tmp_path / "copy.db")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_database_leaves_no_backup(make_settings: MakeSettings, tmp_path: Path) -> None:
    with open_state(make_settings()) as state:
        for number in range(200):
            state.keys.create(f"key-{number}")
    file = tmp_path / "data" / "upscaled.sqlite3"
    content = bytearray(file.read_bytes())
    content[4096 * 3 : 4096 * 6] = b"\xff" * (4096 * 3)
    file.write_bytes(content)
    backups = tmp_path / "backups"
    backups.mkdir()
    with pytest.raises(DatabaseFailed, match="cannot be backed up"):
        back_up("", tmp_path / "data", backups / "copy.db")
    assert list(backups.iterdir()) == []
