"""The addresses of stored results: making them, and knowing them again as an `image_url`."""

from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

RESULT_PATH: Final = "/public/result/"


def base_urls(request: Request, public_base_url: str) -> list[str]:
    """What our addresses may begin with: the public base first where set, then what was called."""
    called = str(request.base_url).rstrip("/")
    return [public_base_url, called] if public_base_url else [called]


def build_result_url(bases: list[str], file_name: str) -> str:
    return f"{bases[0]}{RESULT_PATH}{file_name}"


def find_own_result(url: str, bases: list[str]) -> str | None:
    """The file name in one of our own result URLs; None for any other URL."""
    for base in bases:
        file_name = _strip_base(url, base)
        if file_name is not None:
            return file_name
    return None


def _strip_base(url: str, base: str) -> str | None:
    asked, own = urlsplit(url), urlsplit(base)
    if (asked.scheme, _port(asked.scheme, asked.port), asked.hostname) != (
        own.scheme,
        _port(own.scheme, own.port),
        own.hostname,
    ):
        return None
    prefix = own.path.rstrip("/") + RESULT_PATH
    return asked.path.removeprefix(prefix) if asked.path.startswith(prefix) else None


def _port(scheme: str, port: int | None) -> int:
    return port or (443 if scheme == "https" else 80)
