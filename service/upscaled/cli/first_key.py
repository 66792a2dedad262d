"""Make the first API key at the first start, or say how to make one."""

import logging
from pathlib import Path
from typing import Final

from upscaled.cli.console import CannotServe
from upscaled.config import Settings
from upscaled.doctor.environment import find_exposed
from upscaled.logs import event
from upscaled.process.named_file import NamedFileUnusable, read_named_file
from upscaled.state import State
from upscaled.state.errors import InvalidValue, NameTaken

FIRST_KEY_NAME: Final = "first"

_log: Final = logging.getLogger(__name__)


def make_first_key(state: State, url: str, settings: Settings) -> str:
    """Make the key `first` where no key was ever made, and return what to print about it.

    The secret is that of `UPSCALED_FIRST_KEY_FILE`, which several machines share; else a new one on
    SQLite, to be printed this once. Front ends of a PostgreSQL would race for it: there no key is
    made, and a warning logged. Where no request needs a key, the text says so at every start.

    Raises:
        CannotServe: the file cannot be read, or holds no key.
    """
    if settings.auth == "none":
        _warn_of_exposure(settings)
        lines = ["", "No API key is needed (UPSCALED_AUTH=none).", *_describe_request(url)]
        return "\n".join(lines)
    if not state.keys.is_empty():
        return ""
    if settings.first_key_file:
        return _make_from_file(state, Path(settings.first_key_file).expanduser())
    if state.database.is_server:
        _log.warning(
            "there are no API keys, so every request is answered 401: make one with "
            "`upscaled keys create NAME`, or start with UPSCALED_FIRST_KEY_FILE",
            extra=event("no_keys"),
        )
        return ""
    return describe_first_key(state.keys.create(FIRST_KEY_NAME), url, settings)


def _warn_of_exposure(settings: Settings) -> None:
    if open_to := find_exposed(settings, settings.host):
        _log.warning(
            "UPSCALED_AUTH is none: requests that reach %s need no API key",
            " or ".join(open_to),
            extra=event("no_key_needed"),
        )


def _make_from_file(state: State, file: Path) -> str:
    try:
        state.keys.create(FIRST_KEY_NAME, secret=_read_secret(file))
    except NameTaken:  # by another front end that starts now
        return ""
    except (NamedFileUnusable, UnicodeError, InvalidValue) as error:
        reason = str(error) if isinstance(error, NamedFileUnusable) else "holds no API key"
        raise CannotServe(
            f"UPSCALED_FIRST_KEY_FILE={file}: {reason}; a key is upk_, 16 hexadecimal digits, _, "
            "and 43 letters, digits, - or _ at random"
        ) from None
    return f"made the API key {FIRST_KEY_NAME} of {file}"


def _read_secret(file: Path) -> str:
    return read_named_file(file, takes_pipe=True).decode().strip()


def describe_first_key(secret: str, url: str, settings: Settings) -> str:
    """Return what is printed once, when the first start makes an API key."""
    credits = f"It has no credits yet: upscaled credits add {FIRST_KEY_NAME} 100"
    return "\n".join(
        [
            "",
            f"Your API key, shown this once: {secret}",
            # Behind the #, a browser keeps it to itself: no log of a server or proxy gets it.
            f"The page with it: {url}/#key={secret}",
            *([credits] if settings.metering else []),
            *_describe_request(url, f"-H 'X-API-KEY: {secret}' "),
        ]
    )


def _describe_request(url: str, header: str = "") -> list[str]:
    return [
        "Try it:",
        f"  curl {url}/v1/upscale {header}-H 'Accept: image/*' \\",
        "    -F image=@photo.jpg -F scale=4 -o upscaled.jpg",
        "",
    ]
