"""The addresses of stored results: making them, and knowing them again as an `image_url`."""

from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from upscaled.fetch.url import SourceUrl

RESULT_PATH: Final = "/public/result/"


def build_result_url(request: Request, public_base_url: str, file_name: str) -> str:
    """Below the public base, or where that is empty below the address the client called."""
    return f"{public_base_url or _called_url(request)}{RESULT_PATH}{file_name}"


def find_result_name(url: SourceUrl) -> str | None:
    """The file name in what looks like a result URL, of whatever server.

    A proxy may have changed scheme, host, port and the path before it. The name tells: whoever
    knows one of ours, which nobody can guess, may have the result.
    """
    _, mark, file_name = url.path.rpartition(RESULT_PATH)
    return file_name if mark else None


def _called_url(request: Request) -> str:
    """By the Host header where it is sane (Starlette checks its characters), else the socket."""
    called = str(request.base_url).rstrip("/")
    try:
        _ = urlsplit(called).port
    except ValueError:
        host, port = request.scope["server"]
        return f"{request.url.scheme}://{host}:{port}"
    return called
