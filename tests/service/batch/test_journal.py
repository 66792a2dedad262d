import os
import sqlite3
from pathlib import Path, PurePath

import pytest

from upscaled.batch.journal import FORMAT, Journal, JournalBusy, JournalUnusable, Made, Phase

PLACE = PurePath("sub/a-x4.jpg")
SOURCE = Path("/in/sub/a.png")
MADE = Made(b"c" * 32, b"f" * 32, b"r" * 32, 1000, 1_700_000_000_000_000_001, 40, 20, "model")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


def test_a_result_is_known_to_the_next_run_by_place_and_by_content(path: Path) -> None:
    with Journal(path) as journal:
        journal.note_begun(PLACE, SOURCE)
        journal.note_made(PLACE, MADE)
        journal.note_placed(PLACE)
    with Journal(path) as journal:
        row = journal.at(PLACE)
        assert row is not None
        assert (row.place, row.source, row.phase, row.made) == (PLACE, SOURCE, Phase.PLACED, MADE)
        assert journal.alike(MADE.source_sha256, MADE.fingerprint) == [row]
        assert journal.alike(MADE.source_sha256, b"x" * 32) == []
        assert journal.interrupted() == []


def test_the_journal_lists_what_is_in_flight_with_its_phase(path: Path) -> None:
    other = PurePath("b-x4.jpg")
    with Journal(path) as journal:
        journal.note_begun(PLACE, SOURCE)
        journal.note_begun(other, SOURCE)
        journal.note_made(other, MADE)
    with Journal(path) as journal:
        assert {row.place: row.phase for row in journal.interrupted()} == {
            PLACE: Phase.BEGUN, other: Phase.MADE,
        }  # fmt: skip
        assert journal.alike(MADE.source_sha256, MADE.fingerprint) == [], "not there yet"


def test_a_new_place_is_free_again_where_nothing_came_of_it(path: Path) -> None:
    with Journal(path) as journal:
        journal.note_begun(PLACE, SOURCE)
        journal.withdraw(PLACE)
        assert journal.at(PLACE) is None


def test_an_earlier_result_stays_known_where_its_renewal_failed(path: Path) -> None:
    with Journal(path) as journal:
        journal.note_begun(PLACE, SOURCE)
        journal.note_made(PLACE, MADE)
        journal.note_placed(PLACE)
        journal.note_begun(PLACE, SOURCE)
        journal.withdraw(PLACE)
        row = journal.at(PLACE)
    assert row is not None
    assert (row.phase, row.made) == (Phase.PLACED, MADE)


def test_names_that_are_no_text_come_back_byte_for_byte(path: Path) -> None:
    place, source = PurePath(os.fsdecode(b"\xff-x4.jpg")), Path(os.fsdecode(b"/in/\xff.png"))
    with Journal(path) as journal:
        journal.note_begun(place, source)
        row = journal.at(place)
    assert row is not None
    assert (row.place, row.source) == (place, source)


def test_only_one_run_at_a_time_has_it(path: Path) -> None:
    with Journal(path), pytest.raises(JournalBusy, match="another run has it open"):
        Journal(path)
    Journal(path).__exit__()


def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_text("something else entirely, and long enough to be read as a page of SQLite")
    before = path.read_bytes()
    with pytest.raises(JournalUnusable, match="not a database"):
        Journal(path)
    assert path.read_bytes() == before


def test_a_journal_of_another_format_is_refused(path: Path) -> None:
    Journal(path).__exit__()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {FORMAT + 1}")
    database.close()
    with pytest.raises(JournalUnusable, match="no journal that this version can read"):
        Journal(path)


def test_a_folder_that_takes_no_journal_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JournalUnusable, match="unable to open"):
        Journal(tmp_path / "absent" / "journal.sqlite3")


def test_one_without_a_file_works_and_says_that_it_is_not_kept() -> None:
    with Journal(None) as journal:
        journal.note_begun(PLACE, SOURCE)
        assert journal.at(PLACE) is not None
        assert not journal.is_kept
