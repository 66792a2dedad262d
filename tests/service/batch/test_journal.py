import os
import sqlite3
from pathlib import Path, PurePath

import pytest

from upscaled.batch.journal import FORMAT, Journal, JournalUnusable, Phase, Record

RESULT = PurePath("sub/a-x4.jpg")
SOURCE = "/in/sub/a.png"
RECORD = Record(b"c" * 32, b"f" * 32, b"r" * 32, 1000, 1_700_000_000_000_000_001, 40, 20, "model")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


def test_the_next_run_recognises_a_result_by_path_and_by_content(path: Path) -> None:
    with Journal(path) as journal:
        journal.reserve(RESULT, SOURCE)
        journal.record(RESULT, RECORD)
        journal.commit(RESULT)
    with Journal(path) as journal:
        row = journal.find(RESULT)
        assert row is not None
        assert (row.path, row.source, row.phase, row.record) == (
            RESULT,
            SOURCE,
            Phase.COMMITTED,
            RECORD,
        )
        assert journal.find_identical(RECORD.source_sha256, RECORD.fingerprint) == [row]
        assert journal.find_identical(RECORD.source_sha256, b"x" * 32) == []
        assert journal.interrupted() == []


def test_the_journal_lists_what_is_in_flight_with_its_phase(path: Path) -> None:
    other = PurePath("b-x4.jpg")
    with Journal(path) as journal:
        journal.reserve(RESULT, SOURCE)
        journal.reserve(other, SOURCE)
        journal.record(other, RECORD)
    with Journal(path) as journal:
        assert {row.path: row.phase for row in journal.interrupted()} == {
            RESULT: Phase.RESERVED, other: Phase.WRITTEN,
        }  # fmt: skip
        assert journal.find_identical(RECORD.source_sha256, RECORD.fingerprint) == [], (
            "not there yet"
        )


def test_a_new_path_is_free_again_after_its_release(path: Path) -> None:
    with Journal(path) as journal:
        journal.reserve(RESULT, SOURCE)
        journal.release(RESULT)
        assert journal.find(RESULT) is None


def test_an_earlier_result_is_still_recorded_where_its_renewal_failed(path: Path) -> None:
    with Journal(path) as journal:
        journal.reserve(RESULT, SOURCE)
        journal.record(RESULT, RECORD)
        journal.commit(RESULT)
        journal.reserve(RESULT, SOURCE)
        journal.release(RESULT)
        row = journal.find(RESULT)
    assert row is not None
    assert (row.phase, row.record) == (Phase.COMMITTED, RECORD)


def test_names_that_are_not_utf_8_are_read_back_byte_for_byte(path: Path) -> None:
    path_below, source = PurePath(os.fsdecode(b"\xff-x4.jpg")), os.fsdecode(b"/in/\xff.png")
    with Journal(path) as journal:
        journal.reserve(path_below, source)
        row = journal.find(path_below)
    assert row is not None
    assert (row.path, row.source) == (path_below, source)


def test_only_one_run_at_a_time_can_open_a_journal(path: Path) -> None:
    with Journal(path), pytest.raises(JournalUnusable, match="another run has it open"):
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


def test_a_journal_in_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JournalUnusable, match="unable to open"):
        Journal(tmp_path / "absent" / "journal.sqlite3")


def test_a_journal_without_a_file_works_and_is_not_kept() -> None:
    with Journal(None) as journal:
        journal.reserve(RESULT, SOURCE)
        assert journal.find(RESULT) is not None
        assert not journal.is_kept
