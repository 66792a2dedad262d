import hashlib
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePath

import pytest

from upscaled.batch.files import CannotWrite, part_of, rename_part, write_part
from upscaled.batch.journal import Journal, Phase, Record
from upscaled.batch.output_store import (
    ExistingResult,
    OutputStore,
    ReservedPath,
    candidate_names,
    is_intact,
)
from upscaled.errors import InvalidParameter

SETTINGS = b"f" * 32


def content(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def journal() -> Iterator[Journal]:
    with Journal(None) as journal:
        yield journal


@pytest.fixture
def store(root: Path, journal: Journal) -> OutputStore:
    return OutputStore(root, journal, is_overwriting=False)


def names(source: Path) -> Iterator[PurePath]:
    return (PurePath(name) for name in candidate_names(source.name, 4, "jpg"))


def take(
    store: OutputStore, source: Path, text: str, settings: bytes = SETTINGS
) -> ReservedPath | ExistingResult:
    return store.reserve(source, content(text), settings, names(source))


def fill(store: OutputStore, source: Path, text: str, settings: bytes = SETTINGS) -> Path:
    reservation = take(store, source, text, settings)
    assert isinstance(reservation, ReservedPath)
    result = b"result of " + text.encode() + settings
    digest = hashlib.sha256(result).digest()
    mtime_ns = store.write(reservation, result)
    store.commit(
        reservation, Record(content(text), settings, digest, len(result), mtime_ns, 1, 1, "model")
    )
    return reservation.target


A_PNG, A_JPG, OTHER = Path("/in/a.png"), Path("/in/a.jpg"), Path("/other/a.png")


def test_sources_whose_results_would_have_one_name_get_names_of_their_own(
    store: OutputStore,
) -> None:
    targets = [fill(store, source, str(source)).name for source in (A_PNG, A_JPG, OTHER)]
    assert targets == ["a-x4.jpg", "a.jpg-x4.jpg", "a.png-x4.jpg"]
    for source in (A_PNG, A_JPG, OTHER):
        assert isinstance(take(store, source, str(source)), ExistingResult), "and keep them"


def test_a_path_is_reserved_from_the_moment_work_begins(store: OutputStore, root: Path) -> None:
    first, second = take(store, A_PNG, "one"), take(store, A_JPG, "two")
    assert [reservation.target.name for reservation in (first, second)] == [
        "a-x4.jpg",
        "a.jpg-x4.jpg",
    ]
    assert take(store, A_PNG, "one") == ExistingResult(root / "a-x4.jpg", None), "named twice"


def test_an_existing_result_is_found_by_content_and_settings_not_by_name(
    store: OutputStore,
) -> None:
    target = fill(store, A_PNG, "one")
    assert isinstance(found := take(store, OTHER, "one"), ExistingResult)
    assert found.target == target


@pytest.mark.parametrize(("text", "settings"), [("two", SETTINGS), ("one", b"g" * 32)])
def test_another_content_or_other_settings_replace_the_source_s_own_result(
    store: OutputStore, text: str, settings: bytes
) -> None:
    target = fill(store, A_PNG, "one")
    assert fill(store, A_PNG, text, settings) == target
    assert target.read_bytes() == b"result of " + text.encode() + settings


def test_a_result_that_is_gone_is_made_again(store: OutputStore) -> None:
    target = fill(store, A_PNG, "one")
    target.unlink()
    assert fill(store, A_PNG, "one") == target


@pytest.mark.parametrize("is_ours", [True, False], ids=["changed since", "not ours"])
def test_a_foreign_file_is_replaced_only_with_overwrite(
    root: Path, journal: Journal, is_ours: bool
) -> None:
    target = root / "a-x4.jpg"
    if is_ours:
        fill(OutputStore(root, journal, is_overwriting=False), A_PNG, "one")
    root.mkdir(exist_ok=True)
    target.write_text("precious")
    with pytest.raises(InvalidParameter, match="--overwrite replaces it"):
        take(OutputStore(root, journal, is_overwriting=False), A_PNG, "one")
    assert target.read_text() == "precious"
    assert fill(OutputStore(root, journal, is_overwriting=True), A_PNG, "one") == target


def test_the_result_of_a_moved_source_is_found_to_be_copied(store: OutputStore) -> None:
    target = fill(store, A_PNG, "one")
    alike = store.find_identical(content("one"), SETTINGS)
    assert alike is not None
    assert alike[1] == target.read_bytes()
    assert store.find_identical(content("one"), b"g" * 32) is None
    target.write_text("changed")
    assert store.find_identical(content("one"), SETTINGS) is None


def test_the_store_knows_its_own_results(store: OutputStore, root: Path) -> None:
    target = fill(store, A_PNG, "one")
    assert store.holds(target)
    assert not store.holds(root / "b-x4.jpg")
    assert not store.holds(Path("/elsewhere/a-x4.jpg"))


def test_without_a_root_results_lie_beside_their_sources(tmp_path: Path, journal: Journal) -> None:
    store = OutputStore(None, journal, is_overwriting=False)
    source = tmp_path / "a.png"
    folder = store.folder_of(source, PurePath())
    reservation = store.reserve(source, content("one"), SETTINGS, iter([folder / "a-x4.jpg"]))
    assert isinstance(reservation, ReservedPath)
    assert reservation.target == tmp_path / "a-x4.jpg"


def test_a_reservation_that_is_released_leaves_nothing(
    store: OutputStore, root: Path, journal: Journal
) -> None:
    reservation = take(store, A_PNG, "one")
    assert isinstance(reservation, ReservedPath)
    store.write(reservation, b"half")
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
        store = OutputStore(root, journal, is_overwriting=False)
        if is_renewed:
            fill(store, A_PNG, "one")
        reservation = take(store, A_PNG, "two")
        assert isinstance(reservation, ReservedPath)
        if killed_at != "reserved":
            store.write(reservation, result)
        if killed_at in ("recorded", "named"):
            journal.record(reservation.path, made)
        if killed_at == "named":
            part_of(target).rename(target)
    with Journal(path) as journal, OutputStore(root, journal, is_overwriting=False) as store:
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
        store = OutputStore(root, journal, is_overwriting=False)
        reservation = take(store, A_PNG, "one")
        assert isinstance(reservation, ReservedPath)
        store.write(reservation, b"made")
        journal.record(reservation.path, made)
    reservation.target.mkdir()
    with Journal(path) as journal, OutputStore(root, journal, is_overwriting=False) as store:
        assert [file.name for file in root.iterdir()] == ["a-x4.jpg"]
        with pytest.raises(InvalidParameter, match="was not made by this command"):
            take(store, A_PNG, "one")
        reservation.target.rmdir()
        assert isinstance(take(store, A_PNG, "one"), ReservedPath)


def test_a_result_that_cannot_be_renamed_leaves_the_old_one_recorded(
    store: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fill(store, A_PNG, "old")
    with monkeypatch.context() as patched:
        patched.setattr("upscaled.batch.files.os.replace", refuse)
        with pytest.raises(CannotWrite):
            fill(store, A_PNG, "new")
    store.release(ReservedPath(PurePath(old.name), old, content("new"), SETTINGS))

    assert old.read_bytes().startswith(b"result of old")
    assert fill(store, A_PNG, "new") == old, "ours, so it may be replaced"


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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", ["a-x4.jpg", "a.png-x4.jpg", "a.png-2-x4.jpg", "a.png-3-x4.jpg"]),
        ("plain", ["plain-x4.jpg", "plain-2-x4.jpg"]),
        ("a.b.png", ["a.b-x4.jpg", "a.b.png-x4.jpg"]),
        (".png", [".png-x4.jpg", ".png-2-x4.jpg"]),
    ],
)
def test_a_second_source_of_one_name_gets_a_longer_name(name: str, expected: list[str]) -> None:
    assert list(islice(candidate_names(name, 4, "jpg"), len(expected))) == expected


@pytest.mark.parametrize("letter", ["x", "ä", "漢", "\U0001f642", "\udcff", os.fsdecode(b"\x80")])
@pytest.mark.parametrize("length", [240, 247, 248, 249, 250, 251])
def test_no_name_is_longer_than_a_name_may_be(letter: str, length: int) -> None:
    """It is cut between characters, and what differs only behind the cut stays apart."""
    bytes_each = len(os.fsencode(letter))
    stem = letter * (length // bytes_each)
    sources = [f"{stem}.png", f"{stem[:-1]}y.png", f"{stem}.jpg"]
    results = [list(islice(candidate_names(source, 4, "jpg"), 4)) for source in sources]

    for names in results:
        assert len(set(names)) == 4
        for name in names:
            assert len(os.fsencode(name)) <= 255
            assert name.endswith("-x4.jpg")
            assert letter.encode(errors="ignore") == b"" or name.encode(), "no letter is cut in two"
    assert results[0][0] != results[1][0]
    assert not set(results[0][1:]) & set(results[2][1:])
    if length <= 248:
        assert results[0][0] == f"{stem}-x4.jpg"
