import hashlib
import os
from pathlib import Path, PurePath

import pytest

from tests.service.batch.test_output_store import A_PNG, SETTINGS, content, fill, take
from upscaled.batch.files import CannotWrite, part_of, rename_part, write_part
from upscaled.batch.journal import Journal, Phase, Record
from upscaled.batch.output_folder import OutputFolder, is_intact
from upscaled.batch.output_store import Entry, ExistingResult, OutputStore, ReservedPath
from upscaled.errors import InvalidParameter


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def store(root: Path, journal: Journal) -> OutputStore:
    return open_store(root, journal)


def open_store(root: Path | None, journal: Journal) -> OutputStore:
    return OutputStore(OutputFolder(root, journal), is_overwriting=False)


def write_half(reservation: ReservedPath, data: bytes, suffix: str = ".part") -> None:
    """As far as a run comes that is killed before it records a result."""
    target = Path(reservation.target)
    write_part(target, part_of(target).with_suffix(suffix), data)


def test_without_a_root_results_lie_beside_their_sources(tmp_path: Path, journal: Journal) -> None:
    store = open_store(None, journal)
    source = str(tmp_path / "a.png")
    folder = store.output.folder_of(source, PurePath())
    reservation = store.reserve(source, content("one"), SETTINGS, iter([folder / "a-x4.jpg"]))
    assert isinstance(reservation, ReservedPath)
    assert reservation.target == str(tmp_path / "a-x4.jpg")


def test_no_file_is_left_of_a_released_reservation(
    store: OutputStore, root: Path, journal: Journal
) -> None:
    reservation = take(store, A_PNG, "one")
    assert isinstance(reservation, ReservedPath)
    write_half(reservation, b"half", f".{os.getpid()}.part")  # as without a journal's file
    assert len(list(root.iterdir())) == 1
    store.release(reservation)
    assert list(root.iterdir()) == []
    assert journal.find(reservation.path) is None


@pytest.mark.parametrize("is_renewed", [False, True])
@pytest.mark.parametrize("killed_at", ["reserved", "written", "recorded", "named"])
def test_a_run_that_was_killed_anywhere_is_carried_on(
    root: Path, tmp_path: Path, killed_at: str, is_renewed: bool
) -> None:
    """From the second run's view each result is whole, old or new, and nothing else lies there."""
    path = tmp_path / "journal.sqlite3"
    target, result = root / "a-x4.jpg", b"new result"
    made = Record(
        content("two"), SETTINGS, hashlib.sha256(result).digest(), len(result), 0, 1, 1, ""
    )
    with Journal(path) as journal:
        store = open_store(root, journal)
        if is_renewed:
            fill(store, A_PNG, "one")
        reservation = take(store, A_PNG, "two")
        assert isinstance(reservation, ReservedPath)
        if killed_at != "reserved":
            write_half(reservation, result)
        if killed_at in ("recorded", "named"):
            journal.record(reservation.path, made)
        if killed_at == "named":
            part_of(target).rename(target)
    with Journal(path) as journal, open_store(root, journal) as store:
        is_done = killed_at in ("recorded", "named")
        assert isinstance(take(store, A_PNG, "two"), ExistingResult) == is_done
        assert {row.phase for row in journal.interrupted()} == (
            set() if is_done else {Phase.RESERVED}
        )
        there = {file.name: file.read_bytes() for file in root.iterdir()} if root.exists() else {}
    if is_done:
        assert there == {"a-x4.jpg": result}
    else:
        assert there == ({"a-x4.jpg": b"result of one" + SETTINGS} if is_renewed else {})


def test_a_result_of_a_killed_run_that_cannot_get_its_name_does_not_stop_the_next(
    root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "journal.sqlite3"
    made = Record(content("one"), SETTINGS, b"r" * 32, 4, 0, 1, 1, "")
    with Journal(path) as journal:
        store = open_store(root, journal)
        reservation = take(store, A_PNG, "one")
        assert isinstance(reservation, ReservedPath)
        write_half(reservation, b"made")
        journal.record(reservation.path, made)
    Path(reservation.target).mkdir()
    with Journal(path) as journal, open_store(root, journal) as store:
        assert [file.name for file in root.iterdir()] == ["a-x4.jpg"]
        with pytest.raises(InvalidParameter, match="was not made by this command"):
            take(store, A_PNG, "one")
        Path(reservation.target).rmdir()
        assert isinstance(take(store, A_PNG, "one"), ReservedPath)


def test_a_result_that_cannot_be_renamed_leaves_the_old_one_recorded(
    store: OutputStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = root / fill(store, A_PNG, "old")
    with monkeypatch.context() as patched:
        patched.setattr("upscaled.batch.files.os.replace", refuse)
        with pytest.raises(CannotWrite):
            fill(store, A_PNG, "new")
    content_of_new = A_PNG, content("new"), SETTINGS
    store.release(ReservedPath(PurePath(old.name), str(old), *content_of_new, Entry()))

    assert old.read_bytes().startswith(b"result of old")
    assert fill(store, A_PNG, "new") == old.name, "ours, so it may be replaced"


def refuse(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def write_whole(path: Path, data: bytes) -> Record:
    mtime_ns = write_part(path, part_of(path), data)
    rename_part(path, part_of(path))
    return Record(b"", b"", hashlib.sha256(data).digest(), len(data), mtime_ns, 1, 1, "model")


def test_a_result_is_intact_until_its_bytes_change(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a-x4.jpg"
    record = write_whole(path, b"result")
    assert is_intact(path, record) is True
    os.utime(path, (1, 1))
    assert is_intact(path, record) is True, "copied to another disk, say"
    path.write_bytes(b"edited")
    assert is_intact(path, record) is False
    path.write_bytes(b"longer than before")
    assert is_intact(path, record) is False
    path.unlink()
    assert is_intact(path, record) is None
    path.symlink_to(tmp_path)
    assert is_intact(path, record) is False


def test_an_unfinished_file_s_name_fits_wherever_its_result_s_does(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 255)
    write_whole(target, b"result")
    assert target.read_bytes() == b"result"
