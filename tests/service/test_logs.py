import fcntl
import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from tests.service.state.disks import small_disk
from upscaled.logs import (
    JsonFormatter,
    TextFormatter,
    choose_formatter,
    configure_logging,
    event,
    format_time,
)


@pytest.fixture
def written() -> Iterator[Callable[..., list[str]]]:
    """Configures the logging of this process, and gives the lines that `log` leaves."""
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    names = ("upscaled", "upscaled_models", "uvicorn", "asyncio", "alembic")
    levels = {name: logging.getLogger(name).level for name in names}

    def write(level: str, format_: str, log: Callable[[], None]) -> list[str]:
        stream = io.StringIO()
        configure_logging(level, format_, stream)
        log()
        return stream.getvalue().splitlines()

    yield write
    root.setLevel(before[0])
    for handler in set(root.handlers).difference(before[1]):
        handler.close()
    root.handlers[:] = before[1]
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


def record_of(message: str, *arguments: object, **extra: Any) -> logging.LogRecord:
    logger = logging.Logger("upscaled.part")
    record = logger.makeRecord(
        "upscaled.part", logging.WARNING, "f.py", 1, message, arguments, None, extra=extra
    )
    record.created = 1_700_000_000.25
    return record


def test_a_json_line_is_one_object_with_the_fields_of_the_event() -> None:
    record = record_of("it is %d\nlines", 2, **event("worker_died", worker=3, pid=4))
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "upscaled.part",
        "event": "worker_died",
        "message": "it is 2\nlines",
        "worker": 3,
        "pid": 4,
    }


def test_a_record_without_an_event_has_the_event_log() -> None:
    assert json.loads(JsonFormatter().format(record_of("hello")))["event"] == "log"


def test_fields_of_types_that_json_lacks_become_text() -> None:
    record = record_of("x", **event("e", kind=ValueError("no")))
    assert json.loads(JsonFormatter().format(record))["kind"] == "no"


def test_text_has_the_fields_after_the_message() -> None:
    record = record_of("it died", **event("worker_died", worker=3, why='a "b"', nothing=""))
    assert TextFormatter().format(record) == (
        '2023-11-14T22:13:20.250Z WARNING upscaled.part: it died worker=3 why="a \\"b\\"" nothing='
    )


def test_no_value_of_a_client_can_begin_a_line_of_the_log() -> None:
    record = record_of("x", **event("request", error_detail="a\n2023 CRITICAL forged"))
    assert "\n" not in TextFormatter().format(record)


@pytest.mark.parametrize(
    ("format_", "is_terminal", "kind"),
    [
        ("auto", True, TextFormatter),
        ("auto", False, JsonFormatter),
        ("json", True, JsonFormatter),
        ("text", False, TextFormatter),
    ],
)
def test_the_format_follows_the_terminal_unless_it_is_named(
    format_: str, is_terminal: bool, kind: type
) -> None:
    assert type(choose_formatter(format_, is_terminal=is_terminal)) is kind


def test_an_exception_is_written_into_one_line(written: Callable[..., list[str]]) -> None:
    def log() -> None:
        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("upscaled.part").exception("oh", extra=event("crash"))

    (line,) = written("info", "json", log)
    read = json.loads(line)
    assert (read["event"], read["level"]) == ("crash", "error")
    assert read["exception"].startswith("Traceback")
    assert read["exception"].endswith("ValueError: broken")


def test_libraries_log_nothing_at_debug(written: Callable[..., list[str]]) -> None:
    """Some print what they read: tags of pictures, headers, statements."""

    def log() -> None:
        for name in ("PIL.TiffImagePlugin", "asyncio", "uvicorn.error", "upscaled.part"):
            logging.getLogger(name).debug("from %s", name)

    loggers = [json.loads(line)["logger"] for line in written("debug", "json", log)]
    assert loggers == ["upscaled.part"]


def test_levels_are_kept(written: Callable[..., list[str]]) -> None:
    def log() -> None:
        for name in ("upscaled.part", "uvicorn.error", "another"):
            logging.getLogger(name).info("info")
            logging.getLogger(name).warning("warning")

    def count(level: str) -> list[tuple[str, str]]:
        lines = [json.loads(line) for line in written(level, "json", log)]
        return [(line["logger"], line["level"]) for line in lines]

    assert count("error") == []
    assert count("warning") == [
        (name, "warning") for name in ("upscaled.part", "uvicorn.error", "another")
    ]
    assert ("upscaled.part", "info") in count("info")
    assert ("uvicorn.error", "info") not in count("info")


@pytest.mark.parametrize("where", ["main", "thread"])
def test_uncaught_exceptions_are_lines_of_the_log(where: str) -> None:
    program = f"""
import threading, warnings
from upscaled.logs import configure_logging, log_uncaught_exceptions
configure_logging("info", "json")
log_uncaught_exceptions()
warnings.warn("mind this")
def fail(): raise ValueError("unexpected")
if {where!r} == "main": fail()
thread = threading.Thread(target=fail); thread.start(); thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program], capture_output=True, text=True, timeout=30
    )
    warned, failed = [json.loads(line) for line in done.stderr.splitlines()]
    assert "mind this" in warned["message"]
    assert (failed["event"], failed["level"]) == ("crash", "critical")
    assert failed["exception"].endswith("ValueError: unexpected")
    assert done.returncode == (1 if where == "main" else 0)


def test_the_time_is_utc_to_the_millisecond() -> None:
    assert format_time(0.0) == "1970-01-01T00:00:00.000Z"
    assert format_time(1_700_000_000.9996) == "2023-11-14T22:13:20.999Z"


def test_lines_of_many_threads_are_not_mixed(written: Callable[..., list[str]]) -> None:
    def log() -> None:
        def write(number: int) -> None:
            for _ in range(50):
                logging.getLogger("upscaled.part").info("x" * 500, extra=event("e", number=number))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    lines = [json.loads(line) for line in written("info", "json", log)]
    assert sorted({line["number"] for line in lines}) == list(range(8))
    assert len(lines) == 400


@dataclass(frozen=True)
class Unread:
    """A log that is written into a pipe of `capacity` bytes, which is read only on request."""

    reader: FileIO
    writing: int
    capacity: int

    def write(self, messages: Iterable[str]) -> None:
        """Log in a thread of its own: one that blocks fails the test, and does not hang it."""

        def write() -> None:
            for message in messages:
                logging.getLogger("upscaled.part").info(message)

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive(), "the log waits for its reader"

    def read(self) -> bytes:
        return self.reader.read(4 * self.capacity)


@pytest.fixture
def unread(written: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Unread]:
    monkeypatch.setattr("upscaled.logs.ROOM_WAIT_S", 0.01)
    reading, writing = os.pipe()
    capacity = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 8192)
    # The reader is closed first: a thread that is blocked in writing ends by that.
    with open(writing, "w") as stream, FileIO(reading) as reader:
        configure_logging("info", "json", stream)
        yield Unread(reader, writing, capacity)


def test_lines_that_nothing_reads_are_dropped_and_counted(unread: Unread) -> None:
    count = unread.capacity // 50
    unread.write(f"line {number}" for number in range(count))
    read = unread.read()
    unread.write(["the reader is back"])
    *kept, dropped, last = (json.loads(line) for line in (read + unread.read()).splitlines())
    assert [line["message"] for line in kept] == [f"line {number}" for number in range(len(kept))]
    assert 0 < len(kept) < count
    assert (dropped["event"], dropped["lines"]) == ("log_lines_dropped", count - len(kept))
    assert last["message"] == "the reader is back"


def test_a_long_line_that_nothing_reads_is_cut_off_and_counted(unread: Unread) -> None:
    """As the line of an exception, which is longer than the room that poll(2) reports."""
    unread.write(["x" * 4 * unread.capacity])
    read = unread.read()
    unread.write(["the reader is back"])
    cut, dropped, last = (read + unread.read()).decode().splitlines()
    assert 0 < cut.count("x") < unread.capacity
    assert json.loads(dropped)["lines"] == 1
    assert json.loads(last)["message"] == "the reader is back"


def test_room_that_another_process_takes_first_does_not_block(
    unread: Unread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All processes of a service log into one pipe: each may find the same last room in it."""
    monkeypatch.setattr("upscaled.logs.has_room", lambda *_: True)
    count = unread.capacity // 50
    unread.write(f"line {number}" for number in range(count))
    read = unread.read()
    unread.write(["the reader is back"])
    *kept, dropped, last = (json.loads(line) for line in (read + unread.read()).splitlines())
    assert (dropped["event"], dropped["lines"]) == ("log_lines_dropped", count - len(kept))
    assert last["message"] == "the reader is back"


def test_the_pipe_stays_one_that_blocks_for_the_others_who_write_to_it(unread: Unread) -> None:
    unread.write(["a line"])
    assert os.get_blocking(unread.writing)


def test_lines_for_which_a_disk_has_no_room_are_dropped_and_counted(
    written: Callable[..., list[str]], tmp_path: Path
) -> None:
    logger, filler, count = logging.getLogger("upscaled.part"), tmp_path / "filler", 200
    with small_disk(tmp_path, 65_536), (tmp_path / "log").open("w") as stream:
        configure_logging("info", "json", stream)
        logger.info("before")
        with suppress(OSError), filler.open("wb", buffering=0) as output:
            while output.write(bytes(512)):
                pass
        for number in range(count):
            logger.info("line %s", number)
        filler.unlink()
        logger.info("after")
        first, *kept, dropped, last = (tmp_path / "log").read_text().splitlines()
        logging.getLogger().handlers[0].close()
    assert json.loads(first)["message"] == "before"
    whole = [json.loads(line)["message"] for line in kept[:-1]]  # the last one may be cut off
    assert whole == [f"line {number}" for number in range(len(whole))]
    assert count - len(kept) <= json.loads(dropped)["lines"] <= count - len(whole)
    assert json.loads(last)["message"] == "after"
