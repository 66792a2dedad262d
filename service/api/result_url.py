"""The addresses of stored results: making them, and knowing them again as an `image_url`."""

from typing import Final

from starlette.requests import Request
from yarl import URL

RESULT_PATH: Final = "/public/result/"


def base_urls(request: Request, public_base_url: str) -> list[str]:
    """What our addresses may begin with: the public base first where set, then what was called."""
    called = _called_url(request)
    return [public_base_url, called] if public_base_url else [called]


def build_result_url(bases: list[str], file_name: str) -> str:
    return f"{bases[0]}{RESULT_PATH}{file_name}"


def find_own_result(url: URL, bases: list[str]) -> str | None:
    """The file name in one of our own result URLs; None for any other URL."""
    for base in map(URL, bases):
        prefix = base.raw_path.rstrip("/") + RESULT_PATH
        if _server(url) == _server(base) and url.raw_path.startswith(prefix):
            return url.raw_path.removeprefix(prefix)
    return None


def _called_url(request: Request) -> str:
    """By the Host header where it is sane (Starlette checks its characters), else the socket."""
    called = str(request.base_url).rstrip("/")
    try:
        _ = URL(called).port
    except ValueError:
        host, port = request.scope["server"]
        return f"{request.url.scheme}://{host}:{port}"
    return called


def _server(url: URL) -> tuple[str, str, int | None]:
    return url.scheme, (url.raw_host or "").lower(), url.port
