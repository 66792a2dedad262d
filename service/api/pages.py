"""The pages for people: playground and documentation. All they need is served from here."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.api.context import context_of
from service.api.openapi import build_openapi

# Nothing from outside, nothing inline: the pages work with the network unplugged.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# path -> (file in the folder `assets`, media type)
_FILES: Final = {
    "/": ("playground.html", "text/html"),
    "/docs": ("docs.html", "text/html"),
    "/assets/playground.js": ("playground.js", "text/javascript"),
    "/assets/docs.js": ("docs.js", "text/javascript"),
    "/assets/style.css": ("style.css", "text/css"),
}

Answer = Callable[[Request], Awaitable[Response]]


def build_page_routes() -> list[Route]:
    """The routes of every page and of what they load; the files are read once, here."""
    assets = files("service.api") / "assets"
    return [
        Route("/openapi.json", answer_openapi, methods=["GET"]),
        *(
            Route(path, _answer_with((assets / name).read_bytes(), media_type), methods=["GET"])
            for path, (name, media_type) in _FILES.items()
        ),
    ]


async def answer_openapi(request: Request) -> Response:
    return JSONResponse(build_openapi(context_of(request).settings), headers=_HEADERS)


def _answer_with(content: bytes, media_type: str) -> Answer:
    async def answer_page(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return answer_page
