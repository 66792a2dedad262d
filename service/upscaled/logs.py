"""Where log lines go and what they look like: one line for each record, on standard error.

For machines each line is one JSON object: `time` (UTC), `level`, `logger`, `event`, `message`, and
whatever facts belong to the event. For people it is text, the same facts behind it.

No line ever holds an API key, a file name, path or URL that a client sent, or a picture's bytes.
"""

import json
import logging
import sys
import threading
import time
from functools import lru_cache
from types import TracebackType
from typing import Final, Literal, TextIO

LogFormat = Literal["auto", "json", "text"]

# What these say of every start and stop, the service says itself, shorter.
_TALKATIVE: Final = ("alembic", "asyncio", "uvicorn")
# Libraries print what they read when they are asked for everything: tags of pictures, headers, SQL.
_OURS: Final = ("upscaled", "upscaled_models")
_PLAIN_EVENT: Final = "log"

_encode = json.JSONEncoder(ensure_ascii=False, separators=(", ", ": "), default=str).encode
_logger: Final = logging.getLogger(__name__)


def event(name: str, **fields: object) -> dict[str, object]:
    """The `extra` of a log call: what happened, in one word, and the facts of it."""
    return {"event": name, "fields": fields}


def configure_logging(level: str, format_: str = "auto", stream: TextIO | None = None) -> None:
    """Send this process's log to standard error.

    Args:
        level: "debug", "info", "warning" or "error".
        format_: "json", "text", or "auto": text on a terminal, else JSON.
        stream: instead of standard error.
    """
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(choose_formatter(format_, is_terminal=stream.isatty()))
    root_level = "INFO" if level == "debug" else level.upper()
    logging.basicConfig(level=root_level, handlers=[handler], force=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel("WARNING" if level == "info" else logging.NOTSET)


def choose_formatter(format_: str, *, is_terminal: bool) -> logging.Formatter:
    """`format_` as of `configure_logging`."""
    is_text = format_ == "text" or (format_ == "auto" and is_terminal)
    return TextFormatter() if is_text else JsonFormatter()


def log_what_nobody_catches() -> None:
    """Have this process's warnings and uncaught exceptions logged like everything else."""
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

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
    """Time, level, logger and message, then the facts as `name=value`; an exception below it."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        facts = "".join(f" {name}={_as_text(value)}" for name, value in fields.items())
        head = f"{format_time(record.created)} {record.levelname} {record.name}: "
        text = head + record.getMessage() + facts
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def format_time(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond. `seconds` since 1970."""
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
