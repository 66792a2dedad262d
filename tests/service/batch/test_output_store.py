import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest

from upscaled.batch.files import CannotWrite, part_of
from upscaled.batch.journal import Journal, Made, Phase
from upscaled.batch.naming import candidate_names
from upscaled.batch.output_store import ExistingResult, OutputStore, Reservation
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


def names(source: Path) -> Iterator[PurePath]:
    return (PurePath(name) for name in candidate_names(source.name, 4, "jpg"))


def take(
    store: OutputStore, source: Path, text: str, settings: bytes = SETTINGS
) -> Reservation | ExistingResult:
    return store.reserve(source, content(text), settings, names(source))


def fill(store: OutputStore, source: Path, text: str, settings: bytes = SETTINGS) -> Path:
    reservation = take(store, source, text, settings)
    assert isinstance(reservation, Reservation)
    result = b"result of " + text.encode() + settings
    digest = hashlib.sha256(result).digest()
    mtime_ns = store.write(reservation, result)
    store.commit(
        reservation, Made(content(text), settings, digest, len(result), mtime_ns, 1, 1, "model")
    )
    return reservation.target


A_PNG, A_JPG, OTHER = Path("/in/a.png"), Path("/in/a.jpg"), Path("/other/a.png")


def test_sources_whose_results_would_have_one_name_get_names_of_their_own(
    root: Path, journal: Journal
) -> None:
    store = OutputStore(root, journal, is_overwriting=False)
    targets = [fill(store, source, str(source)).name for source in (A_PNG, A_JPG, OTHER)]
    assert targets == ["a-x4.jpg", "a.jpg-x4.jpg", "a.png-x4.jpg"]
    for source in (A_PNG, A_JPG, OTHER):
        assert isinstance(take(store, source, str(source)), ExistingResult), "and keep them"


def test_a_place_is_taken_from_the_moment_work_begins(root: Path, journal: Journal) -> None:
    store = OutputStore(root, journal, is_overwriting=False)
    first, second = take(store, A_PNG, "one"), take(store, A_JPG, "two")
    assert [reservation.target.name for reservation in (first, second)] == [
        "a-x4.jpg",
        "a.jpg-x4.jpg",
    ]
    assert take(store, A_PNG, "one") == ExistingResult(root / "a-x4.jpg", None), "named twice"


def test_what_is_done_is_found_by_content_and_settings_not_by_the_source_s_name(
    root: Path, journal: Journal
) -> None:
    store = OutputStore(root, journal, is_overwriting=False)
    target = fill(store, A_PNG, "one")
    assert isinstance(found := take(store, OTHER, "one"), ExistingResult)
    assert found.target == target


@pytest.mark.parametrize(("text", "settings"), [("two", SETTINGS), ("one", b"g" * 32)])
def test_another_content_or_other_settings_replace_the_source_s_own_result(
    root: Path, journal: Journal, text: str, settings: bytes
) -> None:
    store = OutputStore(root, journal, is_overwriting=False)
    target = fill(store, A_PNG, "one")
    assert fill(store, A_PNG, text, settings) == target
    assert target.read_bytes() == b"result of " + text.encode() + settings


def test_a_result_that_is_gone_is_made_again(root: Path, journal: Journal) -> None:
    store = OutputStore(root, journal, is_overwriting=False)
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


def test_the_result_of_a_moved_source_is_found_to_be_copied(root: Path, journal: Journal) -> None:
    store = OutputStore(root, journal, is_overwriting=False)
    target = fill(store, A_PNG, "one")
    alike = store.find_identical(content("one"), SETTINGS)
    assert alike is not None
    assert alike[1] == target.read_bytes()
    assert store.find_identical(content("one"), b"g" * 32) is None
    target.write_text("changed")
    assert store.find_identical(content("one"), SETTINGS) is None


def test_its_own_results_are_known(root: Path, journal: Journal) -> None:
    store = OutputStore(root, journal, is_overwriting=False)
    target = fill(store, A_PNG, "one")
    assert store.holds(target)
    assert not store.holds(root / "b-x4.jpg")
    assert not store.holds(Path("/elsewhere/a-x4.jpg"))


def test_without_a_root_results_lie_beside_their_sources(tmp_path: Path, journal: Journal) -> None:
    store = OutputStore(None, journal, is_overwriting=False)
    source = tmp_path / "a.png"
    folder = store.place_of(source, PurePath())
    reservation = store.reserve(source, content("one"), SETTINGS, iter([folder / "a-x4.jpg"]))
    assert isinstance(reservation, Reservation)
    assert reservation.target == tmp_path / "a-x4.jpg"


def test_a_place_that_is_given_back_leaves_nothing(root: Path, journal: Journal) -> None:
    store = OutputStore(root, journal, is_overwriting=False)
    reservation = take(store, A_PNG, "one")
    assert isinstance(reservation, Reservation)
    store.write(reservation, b"half")
    store.release(reservation)
    assert list(root.iterdir()) == []
    assert journal.at(reservation.place) is None


@pytest.mark.parametrize("is_renewed", [False, True])
@pytest.mark.parametrize("killed_at", ["begun", "written", "made", "placed"])
def test_a_run_that_was_killed_anywhere_is_carried_on(
    root: Path, tmp_path: Path, killed_at: str, is_renewed: bool
) -> None:
    """From the second run's view each result is whole, old or new, and nothing else lies there."""
    path = tmp_path / "journal.sqlite3"
    target, result = root / "a-x4.jpg", b"new result"
    made = Made(content("two"), SETTINGS, hashlib.sha256(result).digest(), len(result), 0, 1, 1, "")
    with Journal(path) as journal:
        store = OutputStore(root, journal, is_overwriting=False)
        if is_renewed:
            fill(store, A_PNG, "one")
        reservation = take(store, A_PNG, "two")
        assert isinstance(reservation, Reservation)
        if killed_at != "begun":
            store.write(reservation, result)
        if killed_at in ("made", "placed"):
            journal.note_made(reservation.place, made)
        if killed_at == "placed":
            part_of(target).rename(target)
    with Journal(path) as journal, OutputStore(root, journal, is_overwriting=False) as store:
        is_done = killed_at in ("made", "placed")
        assert isinstance(take(store, A_PNG, "two"), ExistingResult) == is_done
        assert {row.phase for row in journal.interrupted()} == (set() if is_done else {Phase.BEGUN})
        there = {file.name: file.read_bytes() for file in root.iterdir()} if root.exists() else {}
    if is_done:
        assert there == {"a-x4.jpg": result}
    else:
        assert there == ({"a-x4.jpg": b"result of one" + SETTINGS} if is_renewed else {})


def test_what_a_killed_run_left_for_a_place_that_is_no_more_does_not_stop_the_next(
    root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "journal.sqlite3"
    made = Made(content("one"), SETTINGS, b"r" * 32, 4, 0, 1, 1, "")
    with Journal(path) as journal:
        store = OutputStore(root, journal, is_overwriting=False)
        reservation = take(store, A_PNG, "one")
        assert isinstance(reservation, Reservation)
        store.write(reservation, b"made")
        journal.note_made(reservation.place, made)
    reservation.target.mkdir()
    with Journal(path) as journal, OutputStore(root, journal, is_overwriting=False) as store:
        assert [file.name for file in root.iterdir()] == ["a-x4.jpg"]
        with pytest.raises(InvalidParameter, match="was not made by this command"):
            take(store, A_PNG, "one")
        reservation.target.rmdir()
        assert isinstance(take(store, A_PNG, "one"), Reservation)


def test_a_result_that_cannot_be_placed_leaves_the_old_one_known(
    root: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = OutputStore(root, journal, is_overwriting=False)
    old = fill(store, A_PNG, "old")
    with monkeypatch.context() as patched:
        patched.setattr("upscaled.batch.files.os.replace", refuse)
        with pytest.raises(CannotWrite):
            fill(store, A_PNG, "new")
    store.release(Reservation(PurePath(old.name), old))

    assert old.read_bytes().startswith(b"result of old")
    assert fill(store, A_PNG, "new") == old, "ours, so it may be replaced"


def refuse(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")
