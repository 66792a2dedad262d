"""The pages for people: playground and documentation. All they need is served from here."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePath
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from upscaled.api.context import context_of
from upscaled.api.openapi import build_openapi

# Nothing from outside, nothing inline: the pages work with the network unplugged.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_PAGES: Final = {"/": "playground.html", "/docs": "docs.html"}
# What they load, by its name's end.
MEDIA_TYPES: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
}


def build_page_routes() -> list[Route]:
    """The routes of every page and of what they load; the files are read once, here."""
    assets = files("upscaled.api") / "assets"
    routes = [Route("/openapi.json", answer_openapi, methods=["GET"])]
    for path, name in _PAGES.items():
        routes.append(_route(path, assets / name, "text/html"))
    for file in sorted(assets.iterdir(), key=lambda file: file.name):
        media_type = MEDIA_TYPES.get(PurePath(file.name).suffix)
        if media_type is not None:
            routes.append(_route(f"/assets/{file.name}", file, media_type))
    return routes


async def answer_openapi(request: Request) -> Response:
    return JSONResponse(build_openapi(context_of(request).settings), headers=HEADERS)


def _route(path: str, file: Traversable, media_type: str) -> Route:
    content = file.read_bytes()

    async def answer_page(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return Route(path, answer_page, methods=["GET"])
