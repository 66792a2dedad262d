"""The pages for people, playground and documentation, and the OpenAPI documents.

All that the pages need is served from here, so they work with the network unplugged.
"""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePath
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from upscaled.api.openapi import keep_upload_only

# Nothing from outside, nothing inline.
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
# Of what the pages load, by the end of its name.
MEDIA_TYPES: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
}


def build_router() -> APIRouter:
    """Return the routes of every page and of what it loads; the files are read once, here."""
    router = APIRouter(include_in_schema=False)
    for path, endpoint in (
        ("/openapi.json", get_openapi),
        ("/openapi-upload.json", get_upload_openapi),
    ):
        add_page(router, path, endpoint)
    static = files("upscaled.api") / "static"
    for path, name in _PAGES.items():
        add_page(router, path, _serve(static / name, "text/html"))
    for file in sorted(static.iterdir(), key=lambda file: file.name):
        media_type = MEDIA_TYPES.get(PurePath(file.name).suffix)
        if media_type is not None:
            add_page(router, f"/assets/{file.name}", _serve(file, media_type))
    return router


async def get_openapi(request: Request) -> Response:
    """Return the OpenAPI document of the service."""
    return JSONResponse(request.app.openapi(), headers=HEADERS)


async def get_upload_openapi(request: Request) -> Response:
    """Return the document without the JSON body, for generators that know one body at most."""
    return JSONResponse(keep_upload_only(request.app.openapi()), headers=HEADERS)


def _serve(file: Traversable, media_type: str) -> Callable[[], Awaitable[Response]]:
    content = file.read_bytes()

    async def get_page() -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return get_page


def add_page(router: APIRouter, path: str, endpoint: Callable[..., Awaitable[Response]]) -> None:
    """Answer GET and HEAD of a page."""
    for method in ("GET", "HEAD"):
        router.add_api_route(path, endpoint, methods=[method])
