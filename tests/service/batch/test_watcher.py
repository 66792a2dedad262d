import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.buckets import Bucket, FaultyBucket
from upscaled.batch.bucket_source import S3Url
from upscaled.batch.discovery import Finder, Source
from upscaled.batch.files import is_being_written
from upscaled.batch.watcher import Watcher

SETTLE_S = 0.2
LONG_S = 60.0


class Watched:
    """The sources that a watched folder has given so far."""

    def __init__(self) -> None:
        self.sources: list[Source] = []

    def names(self) -> list[str]:
        return sorted(source.file.name for source in self.sources)

    def wait(self, count: int) -> list[str]:
        give_up_at = time.monotonic() + LONG_S
        while len(self.sources) < count and time.monotonic() < give_up_at:
            time.sleep(0.01)
        return self.names()

    def settle(self) -> list[str]:
        """Return what was given until long after anything complete would have been."""
        time.sleep(5 * SETTLE_S)
        return self.names()


@contextmanager
def watching(
    top: Path | S3Url, output: Path | S3Url, settle_s: float = SETTLE_S, endpoint: str = ""
) -> Iterator[Watched]:
    over, watched = threading.Event(), Watched()
    finder = Finder(output, s3_endpoint=endpoint)
    arrivals = Watcher(finder, top, settle_s=settle_s, every_s=0.05)

    def watch() -> None:
        for source in arrivals.wait_for(over):
            watched.sources.append(source)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield watched
    finally:
        over.set()
        thread.join(LONG_S)
    assert not thread.is_alive(), "it ends when it is over"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_present_and_arriving_files_are_given_once_without_the_output_folder(top: Path) -> None:
    (top / "out").mkdir()
    (top / "out" / "a-x4.jpg").write_text("a result")
    (top / "old.png").write_text("there before")
    os.utime(top / "old.png", (1, 1))
    with watching(top, top / "out") as watched:
        assert watched.wait(1) == ["old.png"]
        (top / "sub").mkdir()
        (top / "sub" / "new.png").write_text("came")
        (top / ".hidden.png").write_text("an upload of some tool")
        assert watched.wait(2) == ["new.png", "old.png"]
        assert str(watched.sources[-1].folder) == "sub"
        assert watched.settle() == ["new.png", "old.png"]


def test_a_growing_file_is_given_once_it_has_settled(top: Path, tmp_path: Path) -> None:
    """Each write opens and closes it, as some tools do: only its size and time change."""
    with watching(top, tmp_path / "out", settle_s=4.0) as watched:
        for _ in range(8):
            with open(top / "a.png", "ab") as file:
                file.write(b"part")
            time.sleep(0.1)
            assert watched.names() == []
        assert watched.wait(1) == ["a.png"]


def knows_writers(folder: Path) -> bool:
    """Some file systems do not; then only time shows whether a file is complete."""
    with open(folder / "probe", "wb"):
        found = is_being_written(folder / "probe")
    (folder / "probe").unlink()
    return found


def test_a_file_open_for_writing_is_not_given_however_long_it_rests(
    top: Path, tmp_path: Path
) -> None:
    if not knows_writers(tmp_path):
        pytest.skip("this file system does not say who writes")
    with watching(top, tmp_path / "out") as watched:
        with open(top / "a.png", "wb", buffering=0) as file:
            file.write(b"half")
            assert watched.settle() == []
            file.write(b"whole")
        assert watched.wait(1) == ["a.png"]


def test_files_and_folders_that_are_moved_in_are_reported(top: Path, tmp_path: Path) -> None:
    (tmp_path / "box" / "inner").mkdir(parents=True)
    (tmp_path / "box" / "inner" / "a.png").write_text("in a folder")
    (tmp_path / "b.png").write_text("alone")
    with watching(top, tmp_path / "out") as watched:
        (tmp_path / "b.png").rename(top / "b.png")
        (tmp_path / "box").rename(top / "box")
        assert watched.wait(2) == ["a.png", "b.png"]


def test_a_file_that_changes_or_is_replaced_is_given_again(top: Path, tmp_path: Path) -> None:
    with watching(top, tmp_path / "out") as watched:
        (top / "a.png").write_text("first")
        assert watched.wait(1) == ["a.png"]
        (tmp_path / "next").write_text("other")
        (tmp_path / "next").replace(top / "a.png")
        assert watched.wait(2) == ["a.png", "a.png"]


def test_files_and_folders_may_be_deleted_at_any_time(top: Path, tmp_path: Path) -> None:
    with watching(top, tmp_path / "out", settle_s=3.0) as watched:
        (top / "gone.png").write_text("for a moment")
        (top / "gone.png").unlink()
        shutil.rmtree(top)
        assert isinstance(watched.wait(1) and watched.sources[0].error, FileNotFoundError)
        time.sleep(SETTLE_S)
        assert len(watched.sources) == 1, "once only"
        top.mkdir()
        (top / "a.png").write_text("mounted again")
        assert "a.png" in watched.wait(2)


def test_objects_are_given_as_soon_as_they_are_there_and_again_when_they_change(
    bucket: Bucket,
) -> None:
    top, output = S3Url(bucket.name, "in"), S3Url(bucket.name, "in/out")
    bucket.put("in/old.png", b"there before")
    bucket.put("in/out/a-x4.jpg", b"a result")
    with watching(top, output, settle_s=3600, endpoint=bucket.endpoint) as watched:
        assert watched.wait(1) == ["old.png"]
        bucket.put("in/sub/new.png", b"came")
        bucket.put("in/.hidden.png", b"an upload of some tool")
        assert watched.wait(2) == ["new.png", "old.png"]
        assert str(watched.sources[-1].folder) == "sub"
        bucket.put("in/old.png", b"changed")
        assert watched.wait(3) == ["new.png", "old.png", "old.png"]
        assert watched.settle() == ["new.png", "old.png", "old.png"]


def test_a_bucket_that_fails_for_a_while_gives_one_error_and_nothing_twice(
    faulty_bucket: FaultyBucket,
) -> None:
    bucket = faulty_bucket.bucket
    bucket.put("in/a.png", b"first")
    with watching(S3Url(bucket.name, "in"), Path("out"), endpoint=bucket.endpoint) as watched:
        assert watched.wait(1) == ["a.png"]
        faulty_bucket.fail("cut")
        watched.wait(2)
        assert "the connection broke off" in str(watched.sources[1].error)
        faulty_bucket.fail(None)
        bucket.put("in/b.png", b"second")
        watched.wait(3)
        assert [str(each.file) for each in watched.sources] == [
            f"s3://{bucket.name}/in/a.png", f"s3://{bucket.name}/in", f"s3://{bucket.name}/in/b.png"
        ]  # fmt: skip
