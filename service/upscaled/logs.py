"""Write the log to standard error, one line for each record.

For machines each line is one JSON object: `time` (UTC), `level`, `logger`, `event`, `message` and
the fields of the event. For people it is text, followed by the same fields.

No line ever holds an API key, a file name, path or URL that a client sent, or a picture's bytes.
"""

import json
import logging
import os
import select
import stat
import sys
import threading
import time
from contextlib import suppress
from functools import lru_cache
from types import TracebackType
from typing import Final, TextIO

_QUIETED: Final = ("alembic", "asyncio", "uvicorn")
"""Libraries whose lines on every start and stop repeat what the service logs itself."""
_OURS: Final = ("upscaled", "upscaled_models")
"""The only packages that log at debug: libraries would print pictures' tags, headers and SQL."""
ROOM_WAIT_S: Final = 1.0
"""Longest that a line waits for a reader that is only slow; heartbeats may be missing for 10 s."""
_PLAIN_EVENT: Final = "log"

_encode = json.JSONEncoder(ensure_ascii=False, separators=(", ", ": "), default=str).encode
_logger: Final = logging.getLogger(__name__)


def event(name: str, **fields: object) -> dict[str, object]:
    """Return the `extra` of a log call: the name of the event and its fields."""
    return {"event": name, "fields": fields}


def configure_logging(level: str, format_: str = "auto", stream: TextIO | None = None) -> None:
    """Send this process's log to standard error.

    Args:
        level: "debug", "info", "warning" or "error".
        format_: "json", "text", or "auto": text on a terminal, else JSON.
        stream: instead of standard error.
    """
    stream = sys.stderr if stream is None else stream
    handler = _NonBlockingHandler(stream)
    handler.setFormatter(choose_formatter(format_, is_terminal=stream.isatty()))
    root_level = "INFO" if level == "debug" else level.upper()
    logging.basicConfig(level=root_level, handlers=[handler], force=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    for name in _QUIETED:
        logging.getLogger(name).setLevel("WARNING" if level == "info" else logging.NOTSET)


def has_room(stream: TextIO, wait_s: float = 0.0) -> bool:
    """Return whether a write of `PIPE_BUF` bytes would not block, now or within some seconds.

    A pipe has no room while it is full and nothing reads it. A stream without a descriptor has.
    """
    try:
        descriptor = stream.fileno()
    except (OSError, AttributeError):
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(wait_s * 1000))


class _NonBlockingHandler(logging.StreamHandler[TextIO]):
    """Write lines to a stream, and drop them while nothing reads its other end or a disk is full.

    A pipe to a log collector that hangs would stop every thread that logs, and the service with
    them. The first line that finds no room waits for it up to `ROOM_WAIT_S`, the next ones do not;
    how many were dropped is logged as soon as there is room again. A line of more than `PIPE_BUF`
    bytes, as of an exception, is written in parts; one that ran out of room within is cut off, and
    counted too.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._descriptor = _open_again(stream)
        self._dropped = 0
        self._is_cut = False

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._dropped and self._write(_describe_dropped(self._dropped)):
                self._dropped = 0
            if self._dropped or not self._write(record):
                self._dropped += 1
        except Exception:  # noqa: BLE001  (reported as handlers of the standard library do)
            self.handleError(record)

    def _write(self, record: logging.LogRecord) -> bool:
        """Write a line, and return whether there was room for all of it."""
        text = "\n" * self._is_cut + self.format(record) + self.terminator
        for part in _split(text):
            if not self._write_part(part):
                return False
            self._is_cut = not part.endswith("\n")
        return True

    def _write_part(self, part: str) -> bool:
        """Write at most `PIPE_BUF` bytes, and return whether all of them were written."""
        if self._descriptor is None:
            self.stream.write(part)
            self.flush()
            return True
        data = part.encode(self.stream.encoding, "backslashreplace")
        give_up_at_s = time.monotonic() + (0.0 if self._dropped else ROOM_WAIT_S)
        while has_room(self.stream, max(0.0, give_up_at_s - time.monotonic())):
            try:
                written_bytes = os.write(self._descriptor, data)
            except BlockingIOError:  # another process has taken the room since
                if time.monotonic() >= give_up_at_s:
                    return False
            except OSError:  # a full disk, or a reader that has ended
                return False
            else:
                self._is_cut |= written_bytes < len(data)
                return written_bytes == len(data)
        return False


def _open_again(stream: TextIO) -> int | None:
    """Return a descriptor of the stream's file, for a pipe one whose writes never block.

    None for a stream without a file. A pipe is opened once more, since the flag of the stream's own
    descriptor is also that of all programs which have it from the same parent, such as a shell.
    Where it cannot be, as another user's, or except on Linux, writes may block.
    """
    try:
        descriptor = stream.fileno()
    except (OSError, AttributeError):
        return None
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{descriptor}", flags)
    return os.dup(descriptor)


def _split(text: str) -> list[str]:
    """Split a text into parts of at most `PIPE_BUF` bytes in UTF-8, most texts into one."""
    if len(text.encode(errors="replace")) <= select.PIPE_BUF:
        return [text]
    characters = select.PIPE_BUF // 4
    return [text[start : start + characters] for start in range(0, len(text), characters)]


def _describe_dropped(lines: int) -> logging.LogRecord:
    text = "%d lines were dropped: nothing read the log, or its disk was full"
    extra = event("log_lines_dropped", lines=lines)
    return _logger.makeRecord(
        _logger.name, logging.WARNING, "", 0, text, (lines,), None, extra=extra
    )


def choose_formatter(format_: str, *, is_terminal: bool) -> logging.Formatter:
    is_text = format_ == "text" or (format_ == "auto" and is_terminal)
    return TextFormatter() if is_text else JsonFormatter()


def log_uncaught_exceptions() -> None:
    """Log this process's warnings and uncaught exceptions, those of threads too."""
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": format_time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", _PLAIN_EVENT),
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line)


class TextFormatter(logging.Formatter):
    """Format a record as text, with its fields as `name=value` and an exception below it."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        fields_text = "".join(f" {name}={_as_text(value)}" for name, value in fields.items())
        head = f"{format_time(record.created)} {record.levelname} {record.name}: "
        text = head + record.getMessage() + fields_text
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def format_time(seconds: float) -> str:
    """Format seconds since 1970 as RFC 3339 in UTC, to the millisecond."""
    whole = int(seconds)
    return f"{_format_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(maxsize=4)
def _format_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _as_text(value: object) -> str:
    text = value if isinstance(value, str) else _encode(value)
    is_plain = text.isprintable() and not any(mark in text for mark in ' "=')
    return text if is_plain else _encode(text)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    _logger.critical("ended by an exception", exc_info=(kind, error, trace), extra=event("crash"))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
